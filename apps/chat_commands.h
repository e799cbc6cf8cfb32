// /commands that have a file of their own; the list is in chat_commands.cpp.
#pragma once
#include <string>

#include "apps/chat_room.h"

namespace crumb::apps {

// chat_files.cpp. Each throws Error(kUsage) if the file name is missing, and what reading throws.
void save_command(ChatRoom& room, const std::string& argument);
void load_command(ChatRoom& room, const std::string& argument);
void export_command(ChatRoom& room, const std::string& argument);  // "md FILE" or "json FILE"
void file_command(ChatRoom& room, const std::string& argument);    // sends the file's text
void image_command(ChatRoom& room, const std::string& argument);   // reserved: always an error
void schema_command(ChatRoom& room, const std::string& argument);  // FILE or "off"

}  // namespace crumb::apps
