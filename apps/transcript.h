// Conversations as files: {"messages": [{"role", "content"}]}, the form that OpenAI servers take.
#pragma once
#include <string>
#include <vector>

#include "engine/chat.h"

namespace crumb::apps {

void save_transcript(const std::string& path, const std::string& model,
                     const std::vector<ChatMessage>& messages);

// Also takes a bare array. Throws IoError, or FormatError naming the message and field.
std::vector<ChatMessage> load_transcript(const std::string& path);

}  // namespace crumb::apps
