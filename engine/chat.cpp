#include "engine/chat.h"

#include <algorithm>

#include "engine/chat_prompt.h"
#include "engine/vision/prompt.h"
#include "models/errors.h"
#include "models/json.h"

namespace crumb {

struct Chat::State {
  std::shared_ptr<const Engine> engine;
  std::unique_ptr<Session> session;
  ChatPrompt prompt;
  std::vector<ChatMessage> messages;
  std::vector<int32_t> cached;     // ids whose keys and values the session holds
  std::vector<float> cached_rows;  // that ids below 0 among them stood for
  int64_t dropped = 0;

  std::vector<int32_t> encode(const std::vector<tokenizer::Segment>& segments);
  GenerateResult write_behind(const std::vector<int32_t>& ids, const GenerateOptions& options,
                              const std::function<bool(std::string_view)>& on_text);
};

namespace {

std::vector<tokenizer::Segment> render_segments(const Engine& engine, const ChatPrompt& prompt,
                                                const std::vector<ChatMessage>& messages,
                                                bool add_generation_prompt) {
  nlohmann::ordered_json variables;
  variables["messages"] = nlohmann::ordered_json::array();
  for (const auto& m : messages)
    variables["messages"].push_back(
        {{"role", m.role},
         {"content", vision::content_with_images(engine, m.content, std::ssize(m.images))}});
  variables["add_generation_prompt"] = add_generation_prompt;
  return prompt.render(std::move(variables));
}

int64_t image_count(const std::vector<ChatMessage>& messages) {
  int64_t count = 0;
  for (const ChatMessage& message : messages) count += std::ssize(message.images);
  return count;
}

// The rows of all images, in the order of their ids.
std::vector<float> all_rows(const std::vector<ChatMessage>& messages) {
  std::vector<float> rows;
  for (const ChatMessage& message : messages)
    for (const ImageRows& image : message.images)
      rows.insert(rows.end(), image->begin(), image->end());
  return rows;
}

}  // namespace

std::vector<int32_t> Chat::State::encode(const std::vector<tokenizer::Segment>& segments) {
  tokenizer::EncodeReport report;
  auto ids = vision::encode_with_images(*engine, segments, image_count(messages), &report);
  dropped = report.dropped_bytes;
  return ids;
}

// What the cache already holds of `ids` stays; at least one token must be read for its logits.
GenerateResult Chat::State::write_behind(const std::vector<int32_t>& ids,
                                         const GenerateOptions& options,
                                         const std::function<bool(std::string_view)>& on_text) {
  try {
    const auto rows = all_rows(messages);
    GenerateOptions with_rows = options;
    with_rows.rows = rows;
    const auto common = std::min<std::size_t>(
        vision::common_prefix({cached, cached_rows}, {ids, rows}, engine->config().dim),
        ids.empty() ? 0 : ids.size() - 1);
    cached.resize(common);
    session->truncate(static_cast<int64_t>(common));
    const auto fresh = std::span(ids).subspan(common), before = std::span(ids).first(common);
    // If the step fails half-way the cache's content is unknown: forget it, not the conversation.
    cached.clear();
    GenerateResult result = generate(*session, *engine, fresh, with_rows, on_text, before);
    result.cached_tokens = static_cast<int64_t>(common);
    result.prompt_tokens = std::ssize(ids);
    cached = ids;
    cached_rows = rows;
    cached.insert(cached.end(), result.ids.begin(), result.ids.end());
    cached.resize(static_cast<std::size_t>(session->position()));
    return result;
  } catch (...) {
    if (cached.empty()) session->truncate(0);
    throw;
  }
}

Chat::Chat(std::shared_ptr<const Engine> engine, const SessionOptions& session)
    : state_(new State{engine, engine->make_session(session), ChatPrompt(engine), {}, {}, {}, 0}) {}
Chat::~Chat() = default;
Chat::Chat(Chat&& other) noexcept = default;
Chat& Chat::operator=(Chat&& other) noexcept = default;

std::vector<ChatMessage>& Chat::messages() { return state_->messages; }
const Session& Chat::session() const { return *state_->session; }
int64_t Chat::dropped_bytes() const { return state_->dropped; }

std::vector<int32_t> Chat::render(bool add_generation_prompt) const {
  return state_->encode(
      render_segments(*state_->engine, state_->prompt, state_->messages, add_generation_prompt));
}

std::string Chat::render_text(bool add_generation_prompt) const {
  return tokenizer::joined(
      render_segments(*state_->engine, state_->prompt, state_->messages, add_generation_prompt));
}

GenerateResult Chat::say(const std::string& text, const GenerateOptions& options,
                         const std::function<bool(std::string_view)>& on_text,
                         std::vector<ImageRows> images) {
  State& s = *state_;
  s.messages.push_back({"user", text, std::move(images)});
  GenerateResult result;
  try {
    result = s.write_behind(render(true), options, on_text);
  } catch (...) {
    s.messages.pop_back();
    throw;
  }
  s.messages.push_back({"assistant", result.text, {}});
  return result;
}

GenerateResult Chat::go_on(const GenerateOptions& options,
                           const std::function<bool(std::string_view)>& on_text) {
  State& s = *state_;
  if (s.messages.empty() || s.messages.back().role != "assistant")
    throw Error(ExitCode::kUsage, "nothing to go on with: the last message is not an answer");
  const std::vector<ChatMessage> asked(s.messages.begin(), s.messages.end() - 1);
  auto segments = render_segments(*s.engine, s.prompt, asked, true);
  segments.push_back({s.messages.back().content, true});
  GenerateResult result = s.write_behind(s.encode(segments), options, on_text);
  s.messages.back().content += result.text;
  return result;
}

}  // namespace crumb
