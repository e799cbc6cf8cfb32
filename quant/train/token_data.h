// Training text as windows of token ids, and the order in which they are visited.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "models/mapped_file.h"

namespace crumb::quant::train {

// Parts are cut into windows of S each; what is left over at the end of one is not used.
class TokenData {
 public:
  explicit TokenData(int64_t S) : S_(S) {}
  // A file of little-endian u16 ids, nothing else. Throws IoError; FormatError for one of odd size
  // or without a single window.
  void add_file(const std::string& path);
  void add(std::vector<int32_t> ids);
  int64_t windows() const { return windows_; }
  // Hexadecimal xxh3-64 of all windows, the same for ids from a file or from memory.
  std::string hash() const;
  // ids [S].
  void read(int64_t window, std::span<int32_t> ids) const;

 private:
  struct Part {
    std::optional<models::MappedFile> file;  // else ids
    std::vector<int32_t> ids;
    int64_t first = 0;  // window
  };
  int64_t S_, windows_ = 0;
  std::vector<Part> parts_;
};

// A permutation of [0, n) that depends on the key only and needs no memory: the `index`-th value.
int64_t permuted(int64_t index, int64_t n, uint64_t key);

// The next B windows after `cursor` windows, [B * S]: every epoch visits all in another order.
std::vector<int32_t> next_windows(const TokenData& data, int64_t S, int64_t B, int64_t cursor,
                                  uint64_t seed);

}  // namespace crumb::quant::train
