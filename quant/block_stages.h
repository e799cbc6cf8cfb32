// A block in four steps, all windows of a stream together: the input of the next linears, from that
// of the ones before and their weights. Between two steps the weights may be replaced, so that a
// matrix is calibrated behind the block's matrices that are stored already. After the last step the
// stream is, bit for bit, what train::block_forward makes of it.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "quant/train/block.h"

namespace crumb::quant {

struct BlockStage {
  std::vector<float> in;   // [tokens, K] input of the linears at hand
  std::vector<float> mid;  // [tokens, D] stream between attention and MLP, from kMlp on
};

// x [tokens, D] is the stream entering the block, whole windows of context.S(). `input` goes
// through train::kLinearInputs in their order; of `weights` the matrices of the input before it are
// read, and the norm before it. Independent of the number of threads.
void enter_stage(const train::BlockContext& context, const train::BlockWeights& weights,
                 std::span<const float> x, train::LinearInput input, int threads,
                 BlockStage* stage);

// [tokens, D]: the stream leaving the block, from a stage at kDown.
std::vector<float> leave_block(const train::BlockContext& context,
                               const train::BlockWeights& weights, int threads,
                               const BlockStage& stage);

}  // namespace crumb::quant
