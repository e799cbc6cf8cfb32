// What is to be merged next: the least key first. Keys given at the start are sorted once and read
// in order; the few made later wait on a heap of their own, which stays small and near.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace crumb::tokenizer {

class MergeQueue {
 public:
  // Empties the queue.
  void clear() {
    sorted_.clear();
    later_.clear();
    next_ = 0;
  }
  // Before the first pop.
  void add(uint64_t key) { sorted_.push_back(key); }
  void start() { std::sort(sorted_.begin(), sorted_.end()); }

  // Between pops.
  void push(uint64_t key) {
    later_.push_back(key);
    std::push_heap(later_.begin(), later_.end(), std::greater<>());
  }
  // The least key, which is taken off; false if there is none.
  bool pop(uint64_t& key) {
    const bool none = next_ == sorted_.size();
    if (later_.empty() && none) return false;
    if (later_.empty() || (!none && sorted_[next_] <= later_.front())) {
      key = sorted_[next_++];
      return true;
    }
    key = later_.front();
    std::pop_heap(later_.begin(), later_.end(), std::greater<>());
    later_.pop_back();
    return true;
  }

 private:
  std::vector<uint64_t> sorted_;
  std::size_t next_ = 0;
  std::vector<uint64_t> later_;  // min-heap
};

}  // namespace crumb::tokenizer
