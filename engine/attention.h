// Attention over the cache: the kernels' chunks of positions, merged in order.
//
// A query's softmax is computed a chunk of kernels::kAttendChunk positions at a time and the parts
// are joined as (m, l, o) triples, chunks ascending (Milakov & Gimelshein, "Online normalizer
// calculation for softmax", 2018):
//   m' = max(m, m_c), l' = l e^(m - m') + l_c e^(m_c - m'), o' = o e^(m - m') + o_c e^(m_c - m')
// Chunks lie at fixed positions, so the bits depend neither on the threads nor on how many tokens
// come together. A window's first chunk is masked, the chunks before it are left out.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels/aligned.h"
#include "kernels/backend.h"
#include "models/config.h"

namespace crumb {

struct StepContext;
namespace threads {
class Worker;
}

struct AttentionBuffers {
  AttentionBuffers(const models::ModelConfig& config, int64_t context, int threads);

  // One token: its parts, one for each head and chunk, which all threads fill and then all read.
  std::vector<kernels::AttendRow> parts;    // [H, chunks], of the chunks that exist
  kernels::AlignedBuffer<float> parts_out;  // [H, chunks, Dh]
  // A thread's own.
  struct Scratch {
    kernels::AlignedBuffer<float> scores;  // [kAttendRows, kAttendChunk]
    kernels::AlignedBuffer<float> out;     // [kAttendRows, Dh]
  };
  std::vector<Scratch> own;
};

// total := total joined with the part of the next positions.
void merge(kernels::AttendRow& total, const kernels::AttendRow& part, int64_t Dh) noexcept;

// T = 1 (of one sequence): this thread's share of the (head, chunk) pairs into `parts`. After a
// barrier every thread may ask for the result.
void attend_token(const StepContext& step, const threads::Worker& worker, int64_t layer) noexcept;
void gather_token(const StepContext& step, int64_t layer, float* out) noexcept;  // [H * Dh]

// T > 1: this thread's share of the tokens and heads, finished, into act.att.
void attend_tokens(const StepContext& step, const threads::Worker& worker, int64_t layer) noexcept;

}  // namespace crumb
