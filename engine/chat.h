// A conversation: history, template, and a session whose cache keeps the common prefix.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/generate.h"

namespace crumb {

// Rows of an image for the decoder, [R, D] (engine/vision/encoder.h).
using ImageRows = std::shared_ptr<const std::vector<float>>;

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::string content;
  std::vector<ImageRows> images = {};  // that the text is about, before it
};

class Chat {
 public:
  // Parses the model's template. Throws Error(kBadFile) with the template's line and column.
  Chat(std::shared_ptr<const Engine> engine, const SessionOptions& session);
  ~Chat();
  Chat(Chat&& other) noexcept;
  Chat& operator=(Chat&& other) noexcept;

  std::vector<ChatMessage>& messages();  // may be edited between turns; the cache follows
  // Token ids of the messages through the template; of images ids below 0, counted through the
  // conversation. Throws TemplateError as Error(kBadFile), and so for a template that leaves an
  // image out; Error(kUsage) for images without a tower.
  std::vector<int32_t> render(bool add_generation_prompt) const;
  // Text the template renders (for `inspect` and tests).
  std::string render_text(bool add_generation_prompt) const;

  // Adds the user's message, answers it, adds the answer (also a cancelled one). Throws Error
  // kMemory if prompt does not fit the context; the user's message is then not kept.
  GenerateResult say(const std::string& text, const GenerateOptions& options,
                     const std::function<bool(std::string_view)>& on_text,
                     std::vector<ImageRows> images = {});
  // Goes on with the last message, which is an answer (one that was stopped, or cut at its limit).
  // Throws Error kUsage if it is none, kMemory if no place is left; the answer is then as before.
  GenerateResult go_on(const GenerateOptions& options,
                       const std::function<bool(std::string_view)>& on_text);
  const Session& session() const;
  int64_t dropped_bytes() const;  // bytes of user text the vocabulary could not hold, so far

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace crumb
