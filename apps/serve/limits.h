// Every limit of the server, each a flag of `crumb serve`.
#pragma once
#include <cstdint>

namespace crumb::serve {

struct Limits {
  // HTTP
  int64_t request_line_bytes = 8 << 10;   // more: 414
  int64_t header_bytes = 16 << 10;        // all of the head; more: 431
  int64_t header_fields = 64;             // more: 431
  int64_t body_bytes = 1 << 20;           // more: 413, before it is read if its length is told
  int64_t header_seconds = 10;            // from its first byte, or from connecting; then closed
  int64_t body_seconds = 30;              // then 408; and from second 5 on at least 1 KiB/s
  int64_t idle_seconds = 15;              // between two requests
  int64_t requests_per_connection = 100;  // then the connection is closed
  int64_t connections = 256;              // more: 503 at once
  int64_t connections_per_peer = 32;      // of one address; loopback is not counted
  bool count_loopback = false;            // it is
  int64_t send_buffer_bytes = 256 << 10;  // of one stream; beyond it the stream waits
  int64_t send_seconds = 30;              // without progress; then closed
  int64_t ping_seconds = 15;              // of silence in a stream; then a comment
  // JSON
  int64_t json_depth = 64;
  int64_t json_keys = 1024;  // of one object
  int64_t messages = 4096;
  int64_t prompts = 128;  // texts of one request
  int64_t stops = 16;
  // Work
  int64_t queue = 64;           // requests waiting; more: 503 with Retry-After
  int64_t request_seconds = 0;  // of one answer; 0: no limit
  int64_t drain_seconds = 30;   // from SIGTERM on until streams are cut
};

}  // namespace crumb::serve
