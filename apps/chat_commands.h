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

// chat_edit.cpp: the last message in $VISUAL or $EDITOR, then answered anew.
void edit_command(ChatRoom& room, const std::string& argument);

// chat_model.cpp
void model_command(ChatRoom& room, const std::string& argument);  // FILE: goes on with that model
void bench_command(ChatRoom& room, const std::string& argument);  // reading and writing, timed

// Takes the last user message and what follows it out of the conversation; returns its text.
std::string take_last_turn(ChatRoom& room);
// Answers `text` instead of the last turn; if that fails all is as before.
void answer_instead(ChatRoom& room, const std::string& text);

}  // namespace crumb::apps
