#include "tests/models/support.h"

#include <malloc.h>
#include <stdlib.h>

#include <atomic>
#include <fstream>
#include <iterator>
#include <new>
#include <random>

namespace {

std::atomic<int64_t> live_bytes{0}, peak{0};

void* counted_alloc(std::size_t size) {
  void* memory = std::malloc(size != 0 ? size : 1);
  if (memory == nullptr) throw std::bad_alloc();
  const int64_t now = live_bytes += static_cast<int64_t>(malloc_usable_size(memory));
  int64_t before = peak.load();
  while (now > before && !peak.compare_exchange_weak(before, now)) {
  }
  return memory;
}

void counted_free(void* memory) noexcept {
  if (memory != nullptr) live_bytes -= static_cast<int64_t>(malloc_usable_size(memory));
  std::free(memory);
}

}  // namespace

void* operator new(std::size_t size) { return counted_alloc(size); }
void* operator new[](std::size_t size) { return counted_alloc(size); }
void operator delete(void* memory) noexcept { counted_free(memory); }
void operator delete[](void* memory) noexcept { counted_free(memory); }
void operator delete(void* memory, std::size_t) noexcept { counted_free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { counted_free(memory); }

namespace crumb::models::test {

void reset_peak() { peak = live_bytes.load(); }
int64_t peak_bytes() { return peak.load() - live_bytes.load(); }

std::vector<uint8_t> read_bytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

void write_bytes(const std::string& path, std::span<const uint8_t> bytes) {
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()),
            static_cast<std::streamsize>(bytes.size()));
  if (!out) throw std::runtime_error("cannot write " + path);
}

std::string golden(const std::string& name) {
  const char* root = std::getenv("CRUMB_SOURCE_DIR");
  return std::string(root != nullptr ? root : ".") + "/tests/golden/" + name;
}

std::vector<float> read_tensor(const SourceModel& model, const TensorInfo& info) {
  std::vector<float> values(static_cast<std::size_t>(weights_of(info)));
  model.read(info.name, values);
  return values;
}

std::vector<MatrixPlan> mixed_plans(const ModelConfig& config) {
  constexpr int kBits[] = {2, 4, 8, 3};
  std::vector<MatrixPlan> plans;
  for (const TensorInfo& info : whole_table(config)) {
    if (!may_be_quantized(info.role)) continue;
    const auto i = static_cast<int64_t>(plans.size());
    const int64_t K = info.shape[1];
    MatrixPlan plan;
    plan.name = info.name;
    plan.bits = i % 7 == 6 ? 32 : kBits[i % 4];
    if (plan.bits != 32) {
      const int64_t groups[] = {K, 32, 64, 128};
      plan.group = groups[i / 2 % 4] < K ? groups[i / 2 % 4] : K;
      plan.grid = static_cast<kernels::Grid>(i % 3);
    }
    if (i % 3 == 0 && K % 32 == 0)
      plan.rotation = {32, 0x123456789abcdef0u + static_cast<uint64_t>(i)};
    plans.push_back(plan);
  }
  return plans;
}

std::vector<MatrixPlan> banded_plans(const ModelConfig& config) {
  std::vector<MatrixPlan> plans = mixed_plans(config);
  std::size_t next = 0;
  for (const TensorInfo& info : whole_table(config)) {
    if (!may_be_quantized(info.role)) continue;
    MatrixPlan& plan = plans[next++];
    const int64_t strips = kernels::strip_count(info.shape[0]);
    if (plan.bits == 32 || strips < 2) continue;
    // One strip, then one, then the rest: the last may be a part of a strip.
    std::vector<Band> bands = {{1, plan.bits}, {1, plan.bits == 8 ? 3 : 8}};
    if (strips > 2) bands.push_back({strips - 2, plan.bits == 2 ? 4 : 2});
    set_bands(bands, &plan);
  }
  return plans;
}

PackedData random_packed(const MatrixPlan& plan, int64_t N, int64_t K, uint64_t seed) {
  std::mt19937_64 random(seed);
  const int64_t strips = kernels::strip_count(N), groups = kernels::group_count(K, plan.group);
  PackedData data;
  data.rows = N;
  data.cols = K;
  data.group = plan.group;
  data.bits = plan.bits;
  data.bands = plan.bands;
  data.grid = plan.grid;
  data.rotation = plan.rotation;
  std::vector<int> bits;  // of each strip
  for (const Band& band : bands_of(plan, N))
    bits.insert(bits.end(), static_cast<std::size_t>(band.strips), band.bits);
  data.codes.resize(static_cast<std::size_t>(code_bytes(bands_of(plan, N), K)));
  for (uint8_t& code : data.codes) code = static_cast<uint8_t>(random());
  for (int64_t i = 0; i < strips * groups * kernels::kStripRows; ++i) {
    const int64_t row =
        i / (groups * kernels::kStripRows) * kernels::kStripRows + i % kernels::kStripRows;
    // 0x2400.. is about 1/64.
    data.scales.push_back(row < N ? static_cast<uint16_t>(0x2400 + random() % 1024) : uint16_t{0});
    if (plan.grid == kernels::Grid::kAsym)
      data.zeros.push_back(static_cast<uint8_t>(
          random() % (1u << bits[static_cast<std::size_t>(row / kernels::kStripRows)])));
  }
  return data;
}

uint64_t write_crumb(const std::string& path, const SourceModel& model,
                     const std::vector<MatrixPlan>& plans) {
  CheckpointHeader header{
      model.config,        model.vocab,
      model.chat_template, model.generation,
      model.license,       R"({"stages":[{"method":"random"}],"source":{"stored":"F32"}})"};
  CheckpointWriter writer(path, header, plans);
  std::size_t next = 0;
  for (const TensorInfo& info : whole_table(model.config)) {
    if (!may_be_quantized(info.role) || plans[next].bits == 32) {
      writer.add(info.name, read_tensor(model, info));
    } else {
      writer.add(info.name, random_packed(plans[next], info.shape[0], info.shape[1], next));
    }
    next += may_be_quantized(info.role) ? 1 : 0;
  }
  return writer.commit();
}

}  // namespace crumb::models::test
