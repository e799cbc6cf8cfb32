// Training text as files of token ids, and the order in which its windows are visited.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "models/mapped_file.h"

namespace crumb::quant::train {

// Files of little-endian u16 ids, nothing else, cut into windows of S; what is left over at the end
// of a file is not used.
class TokenData {
 public:
  // Throws IoError; FormatError for a file of odd size or one without a single window.
  TokenData(const std::vector<std::string>& paths, int64_t S);
  int64_t windows() const { return windows_; }
  // ids [S].
  void read(int64_t window, std::span<int32_t> ids) const;

 private:
  struct Part {
    models::MappedFile file;
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
