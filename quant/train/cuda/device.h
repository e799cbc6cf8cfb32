// The GPU as the trainer sees it: one stream, owned memory, errors as exceptions. Everything of
// this folder runs on the stream of one Device, in the order it is called; copies to the host wait.
#pragma once
#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace crumb::quant::train::cuda {

using bf16 = __nv_bfloat16;

// Throws Error naming the call: kMemory for memory, kInternal for all else.
void require(cudaError_t result, const char* call);

// Memory of the device; uninitialised unless said.
template <class T>
class DeviceArray {
 public:
  DeviceArray() = default;
  explicit DeviceArray(int64_t n) : size_(n) {
    if (n > 0)
      require(cudaMalloc(reinterpret_cast<void**>(&data_), static_cast<std::size_t>(n) * sizeof(T)),
              "cudaMalloc");
  }
  explicit DeviceArray(std::span<const T> values) : DeviceArray(std::ssize(values)) {
    upload(values);
  }
  ~DeviceArray() {
    if (data_ != nullptr) static_cast<void>(cudaFree(data_));
  }
  DeviceArray(DeviceArray&& other) noexcept { swap(other); }
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    swap(other);
    return *this;
  }

  T* data() const { return data_; }
  int64_t size() const { return size_; }

  // Both wait for the whole device. Sizes must fit.
  void upload(std::span<const T> values, int64_t at = 0) {
    require(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    require(cudaMemcpy(data_ + at, values.data(), values.size_bytes(), cudaMemcpyHostToDevice),
            "cudaMemcpy");
  }
  void download(std::span<T> values, int64_t at = 0) const {
    require(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    require(cudaMemcpy(values.data(), data_ + at, values.size_bytes(), cudaMemcpyDeviceToHost),
            "cudaMemcpy");
  }
  std::vector<T> to_host() const {
    std::vector<T> values(static_cast<std::size_t>(size_));
    download(values);
    return values;
  }
  void zero(cudaStream_t stream) {
    require(cudaMemsetAsync(data_, 0, static_cast<std::size_t>(size_) * sizeof(T), stream),
            "cudaMemsetAsync");
  }

 private:
  void swap(DeviceArray& other) {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }
  T* data_ = nullptr;
  int64_t size_ = 0;
};

class Stream {
 public:
  Stream() { require(cudaStreamCreate(&stream_), "cudaStreamCreate"); }
  ~Stream() { static_cast<void>(cudaStreamDestroy(stream_)); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  cudaStream_t get() const { return stream_; }
  void wait() const { require(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"); }

 private:
  cudaStream_t stream_ = nullptr;
};

// "NVIDIA H100 80GB HBM3, 132 SMs, driver 13000".
std::string device_name();
// Round to nearest even, on the host.
std::vector<bf16> to_bf16(std::span<const float> values);
std::vector<float> to_float(std::span<const bf16> values);

}  // namespace crumb::quant::train::cuda
