// Holds the server to what it does: reading its model and talking over sockets it has. What breaks
// into it finds no other file, no program to start and nobody to connect to.
#pragma once
#include <string>
#include <vector>

namespace crumb::serve {

// "" or what this kernel lacks.
std::string sandbox_missing();

// For this thread and all it makes from now on: no new privileges, and (Landlock) files can only be
// read, these and what the system tells of itself below /proc and /sys; where the kernel can,
// no TCP port can be bound or connected to. Call before threads exist and after listening. Throws
// Error(kUsage) if that fails.
void confine_files(const std::vector<std::string>& readable);

// For all threads: only the system calls that serving needs; others fail with EPERM, among them
// every new process, thread, program and socket. Call when all threads exist. Throws Error(kUsage).
void confine_calls();

}  // namespace crumb::serve
