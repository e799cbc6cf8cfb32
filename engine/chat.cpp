#include "engine/chat.h"

#include <algorithm>

#include "engine/chat_prompt.h"
#include "models/json.h"

namespace crumb {

struct Chat::State {
  std::shared_ptr<const Engine> engine;
  std::unique_ptr<Session> session;
  ChatPrompt prompt;
  std::vector<ChatMessage> messages;
  std::vector<int32_t> cached;  // ids whose keys and values the session holds
  int64_t dropped = 0;
};

namespace {

std::vector<tokenizer::Segment> render_segments(const ChatPrompt& prompt,
                                                const std::vector<ChatMessage>& messages,
                                                bool add_generation_prompt) {
  nlohmann::ordered_json variables;
  variables["messages"] = nlohmann::ordered_json::array();
  for (const auto& m : messages)
    variables["messages"].push_back({{"role", m.role}, {"content", m.content}});
  variables["add_generation_prompt"] = add_generation_prompt;
  return prompt.render(std::move(variables));
}

}  // namespace

Chat::Chat(std::shared_ptr<const Engine> engine, const SessionOptions& session)
    : state_(new State{engine, engine->make_session(session), ChatPrompt(engine), {}, {}, 0}) {}
Chat::~Chat() = default;

std::vector<ChatMessage>& Chat::messages() { return state_->messages; }
const Session& Chat::session() const { return *state_->session; }
int64_t Chat::dropped_bytes() const { return state_->dropped; }

std::vector<int32_t> Chat::render(bool add_generation_prompt) const {
  const auto segments = render_segments(state_->prompt, state_->messages, add_generation_prompt);
  tokenizer::EncodeReport report;
  auto ids = state_->engine->tokenizer().encode(segments, &report);
  state_->dropped = report.dropped_bytes;
  return ids;
}

std::string Chat::render_text(bool add_generation_prompt) const {
  return tokenizer::joined(
      render_segments(state_->prompt, state_->messages, add_generation_prompt));
}

GenerateResult Chat::say(const std::string& text, const GenerateOptions& options,
                         const std::function<bool(std::string_view)>& on_text) {
  State& s = *state_;
  s.messages.push_back({"user", text});
  GenerateResult result;
  try {
    const auto ids = render(true);
    // What the cache already holds of this prompt stays; at least one token must be read for its
    // logits.
    const auto common = std::min<std::size_t>(
        static_cast<std::size_t>(
            std::mismatch(s.cached.begin(), s.cached.end(), ids.begin(), ids.end()).first -
            s.cached.begin()),
        ids.empty() ? 0 : ids.size() - 1);
    s.cached.resize(common);
    s.session->truncate(static_cast<int64_t>(common));
    const auto fresh = std::span(ids).subspan(common), before = std::span(ids).first(common);
    // If the step fails half-way the cache's content is unknown: forget it, not the conversation.
    s.cached.clear();
    result = generate(*s.session, *s.engine, fresh, options, on_text, before);
    result.cached_tokens = static_cast<int64_t>(common);
    result.prompt_tokens = std::ssize(ids);
    s.cached = ids;
    s.cached.insert(s.cached.end(), result.ids.begin(), result.ids.end());
    s.cached.resize(static_cast<std::size_t>(s.session->position()));
  } catch (...) {
    s.messages.pop_back();
    if (s.cached.empty()) s.session->truncate(0);
    throw;
  }
  s.messages.push_back({"assistant", result.text});
  return result;
}

}  // namespace crumb
