#include "engine/attention.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "engine/threads/pool.h"
#include "engine/transformer.h"
#include "kernels/scalar_math.h"

namespace crumb {
namespace {

using kernels::AttendRow;
using kernels::kAttendChunk;
using kernels::kAttendRows;
using threads::Worker;

constexpr std::size_t size_of(int64_t n) { return static_cast<std::size_t>(n); }

int64_t chunk_count(int64_t positions) { return (positions + kAttendChunk - 1) / kAttendChunk; }

int64_t chunk_length(int64_t chunk, int64_t positions) {
  return std::min(kAttendChunk, positions - chunk * kAttendChunk);
}

// The first position that a query which sees `positions` of them sees with this layer's window.
int64_t window_start(const models::ModelConfig& c, int64_t layer, int64_t positions) {
  const int64_t window = models::window_of(c, layer);
  return window > 0 ? std::max<int64_t>(0, positions - window) : 0;
}

float score_scale(const models::ModelConfig& c) {
  if (c.block.attention_scale != 0.0f) return c.block.attention_scale;
  return 1.0f / std::sqrt(static_cast<float>(c.head_dim));
}

const Layer& layer_at(const StepContext& s, int64_t layer) {
  return s.weights.layers[size_of(layer)];
}

const float* query(const StepContext& s, const Layer& layer, int64_t token, int64_t head) {
  const int64_t Dh = s.config.head_dim, width = (layer.heads + 2 * layer.kv_heads) * Dh;
  return s.act.qkv.data() + token * width + head * Dh;
}

// One block of queries of one kv head over all chunks they see. rows[i].n is the number of
// positions in all, ascending with i; afterwards rows hold the joined parts.
void attend_rows(const StepContext& s, const KvCache& cache, int64_t layer, int64_t kv_head,
                 std::span<AttendRow> rows, AttentionBuffers::Scratch& scratch) noexcept {
  const int64_t Dh = s.config.head_dim;
  std::array<int64_t, kAttendRows> positions, starts;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    positions[r] = rows[r].n;
    starts[r] = window_start(s.config, layer, rows[r].n);
  }
  for (int64_t chunk = starts[0] / kAttendChunk; chunk < chunk_count(positions[rows.size() - 1]);
       ++chunk) {
    const int64_t begin = chunk * kAttendChunk;
    std::array<AttendRow, kAttendRows> parts;
    // Both bounds ascend with the row: rows [first, last) see something of this chunk.
    std::size_t first = 0, last = rows.size();
    while (positions[first] <= begin) ++first;
    while (starts[last - 1] >= begin + kAttendChunk) --last;
    for (std::size_t r = first; r < last; ++r) {
      parts[r] = rows[r];
      parts[r].n = chunk_length(chunk, positions[r]);
      parts[r].first = std::max<int64_t>(0, starts[r] - begin);
      if (starts[r] < begin) parts[r].out = scratch.out.data() + static_cast<int64_t>(r) * Dh;
    }
    if (first >= last) continue;
    s.backend.attend(cache.chunk(layer, kv_head, chunk), Dh, score_scale(s.config),
                     parts.data() + first, static_cast<int64_t>(last - first),
                     scratch.scores.data());
    for (std::size_t r = first; r < last; ++r) {
      if (starts[r] >= begin)
        rows[r] = parts[r];
      else
        merge(rows[r], parts[r], Dh);
    }
  }
}

void divide(const AttendRow& row, int64_t Dh) noexcept {
  for (int64_t d = 0; d < Dh; ++d) row.out[d] /= row.sum;
}

// Tokens [first, first + count) of one sequence's rows with the query heads of one kv head.
void attend_block(const StepContext& s, const StepRows& part, int64_t layer, int64_t kv_head,
                  int64_t first, int64_t count, AttentionBuffers::Scratch& scratch) noexcept {
  const auto& c = s.config;
  const Layer& own = layer_at(s, layer);
  const int64_t heads_per_kv = c.heads / c.kv_heads, all = count * heads_per_kv;
  for (int64_t from = 0; from < all; from += kAttendRows) {
    std::array<AttendRow, kAttendRows> rows;
    const std::span<AttendRow> used(rows.data(), size_of(std::min(kAttendRows, all - from)));
    for (std::size_t r = 0; r < used.size(); ++r) {
      const int64_t at = from + static_cast<int64_t>(r), t = first + at / heads_per_kv;
      const int64_t head = kv_head * heads_per_kv + at % heads_per_kv, row = part.first + t;
      used[r] = {query(s, own, row, head), s.act.att.data() + (row * own.heads + head) * c.head_dim,
                 part.position + t + 1};
    }
    attend_rows(s, *part.cache, layer, kv_head, used, scratch);
    for (const AttendRow& row : used) divide(row, c.head_dim);
  }
}

}  // namespace

AttentionBuffers::AttentionBuffers(const models::ModelConfig& c, int64_t context, int threads)
    : parts(size_of(c.heads * chunk_count(context))),
      parts_out(size_of(c.heads * chunk_count(context) * c.head_dim)) {
  for (int i = 0; i < threads; ++i)
    own.push_back({kernels::AlignedBuffer<float>(size_of(kAttendRows * kAttendChunk)),
                   kernels::AlignedBuffer<float>(size_of(kAttendRows * c.head_dim))});
}

void merge(AttendRow& total, const AttendRow& part, int64_t Dh) noexcept {
  const float max = part.max > total.max ? part.max : total.max;
  const float a = kernels::exp_f32(total.max - max), b = kernels::exp_f32(part.max - max);
  total.sum = total.sum * a + part.sum * b;
  for (int64_t d = 0; d < Dh; ++d) total.out[d] = total.out[d] * a + part.out[d] * b;
  total.max = max;
}

// The pairs in the order (kv head, chunk, query head) are cut between the threads by the positions
// they cost; a thread's pairs of one kv head and chunk go to the kernel together.
void attend_token(const StepContext& s, const Worker& w, int64_t layer) noexcept {
  const auto& c = s.config;
  AttentionBuffers& buffers = s.act.attention;
  const StepRows& token = s.sequences.front();
  const int64_t positions = token.position + 1, chunks = chunk_count(positions);
  const int64_t start = window_start(c, layer, positions), first = start / kAttendChunk;
  const Layer& sizes = layer_at(s, layer);
  const int64_t heads_per_kv = c.heads / c.kv_heads;
  const int64_t all = (positions - first * kAttendChunk) * sizes.heads;
  const kernels::Range own = w.slice(all);
  int64_t cost = 0;
  for (int64_t h = 0; h < sizes.kv_heads; ++h) {
    for (int64_t chunk = first; chunk < chunks; ++chunk) {
      const int64_t n = chunk_length(chunk, positions);
      // Query heads [begin, end) of this pair start inside this thread's part of the cost.
      const auto heads_below = [&](int64_t limit) {
        return std::clamp<int64_t>((limit - cost + n - 1) / n, 0, heads_per_kv);
      };
      const int64_t begin = own.begin <= cost ? 0 : heads_below(own.begin);
      const int64_t end = own.end <= cost ? 0 : heads_below(own.end);
      cost += n * heads_per_kv;
      for (int64_t g = begin; g < end; g += kAttendRows) {
        std::array<AttendRow, kAttendRows> rows;
        const int64_t count = std::min(kAttendRows, end - g);
        for (int64_t i = 0; i < count; ++i) {
          const int64_t head = h * heads_per_kv + g + i;
          rows[size_of(i)] = {query(s, sizes, 0, head),
                              buffers.parts_out.data() + (head * chunks + chunk) * c.head_dim, n};
          rows[size_of(i)].first = std::max<int64_t>(0, start - chunk * kAttendChunk);
        }
        s.backend.attend(token.cache->chunk(layer, h, chunk), c.head_dim, score_scale(c),
                         rows.data(), count, buffers.own[size_of(w.index())].scores.data());
        for (int64_t i = 0; i < count; ++i)
          buffers.parts[size_of((h * heads_per_kv + g + i) * chunks + chunk)] = rows[size_of(i)];
      }
    }
  }
}

void gather_token(const StepContext& s, int64_t layer, float* out) noexcept {
  const auto& c = s.config;
  const int64_t positions = s.sequences.front().position + 1, chunks = chunk_count(positions);
  const int64_t first = window_start(c, layer, positions) / kAttendChunk;
  for (int64_t h = 0; h < layer_at(s, layer).heads; ++h, out += c.head_dim) {
    const AttendRow* parts = s.act.attention.parts.data() + h * chunks;
    AttendRow total = parts[first];
    total.out = out;
    std::copy(parts[first].out, parts[first].out + c.head_dim, out);
    for (int64_t chunk = first + 1; chunk < chunks; ++chunk) merge(total, parts[chunk], c.head_dim);
    divide(total, c.head_dim);
  }
}

// A block is a few tokens of one sequence and kv head. Later tokens see more positions, so blocks
// are dealt like cards, on from one sequence to the next.
void attend_tokens(const StepContext& s, const Worker& w, int64_t layer) noexcept {
  const auto& c = s.config;
  const int64_t heads_per_kv = c.heads / c.kv_heads, kv_heads = layer_at(s, layer).kv_heads;
  const int64_t most = std::max<int64_t>(1, kAttendRows / heads_per_kv);
  int64_t dealt = 0;
  for (const StepRows& part : s.sequences) {
    const int64_t block = std::clamp<int64_t>(part.count * kv_heads / (4 * w.count()), 1, most);
    const int64_t blocks = (part.count + block - 1) / block * kv_heads;
    const int64_t own = (w.index() + w.count() - dealt % w.count()) % w.count();
    dealt += blocks;
    for (int64_t i = own; i < blocks; i += w.count()) {
      const int64_t h = i % kv_heads, first = i / kv_heads * block;
      attend_block(s, part, layer, h, first, std::min(block, part.count - first),
                   s.act.attention.own[size_of(w.index())]);
    }
  }
}

}  // namespace crumb
