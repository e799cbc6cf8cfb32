// Anonymous memory from the system: zero, page aligned, touched lazily.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

namespace crumb {

// Owns `bytes` of zeroed memory. `huge` asks for transparent huge pages (weights: 15-20 % more read
// bandwidth); without it pages cost nothing until they are touched (KV cache). Throws
// Error(kMemory).
class Arena {
 public:
  Arena() = default;
  Arena(std::size_t bytes, bool huge);
  ~Arena();
  Arena(Arena&& other) noexcept;
  Arena& operator=(Arena&& other) noexcept;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  uint8_t* data() const { return data_; }
  std::size_t size() const { return size_; }
  // The next `bytes` of the arena, 64-byte aligned. Callers size the arena with aligned_size().
  uint8_t* take(std::size_t bytes);
  template <class T>
  std::span<T> take_array(std::size_t n) {
    return {reinterpret_cast<T*>(take(n * sizeof(T))), n};
  }
  static constexpr std::size_t aligned_size(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

 private:
  uint8_t* data_ = nullptr;  // what take() hands out of
  void* mapping_ = nullptr;
  std::size_t mapped_ = 0, size_ = 0, used_ = 0;
};

}  // namespace crumb
