// Equalising a block before rounding: a scale t [K] > 0 for each distinct linear input,
//   W <- W / t,   x <- t o x,
// folded into what makes x, so that the block computes what it did and the runtime does nothing
// more:
//   attn_in  t -> gain of the input norm        mlp_in   t -> gain of the norm before the MLP
//   down_in  t -> rows of up                    o_in     t -> rows and bias of v; t is equal over
//                                                        the query heads that read one head of v
// Methods, in the order in which the inputs are done (o_in, down_in, attn_in, mlp_in, since folding
// into v and up changes what the later ones see):
//   kSinkhorn  SINQ (arXiv:2509.22944) in its folded form ("Pre-SINQ"): quant/sinkhorn.h on
//              matrices that share the input, see SharedScale. No data.
//   kAwq       AWQ (arXiv:2306.00978): t = 1 / s, s = mean|x|^alpha, s normalised by
//              sqrt(max s * min s); the alpha of `points` in [0, 1) with the least output error of
//              nearest rounding, alpha = 0 (no scale) among them.
//   kAsinq     Sinkhorn first, then kAwq's search on the normalised matrices, with the mean|x| of
//              the input as it was before (SINQ's code).
//   kDiagonal  QuIP's rescale (arXiv:2307.13304): t_k = ((W^T W)_kk / H_kk)^(1/4), parts clamped
//              at 1e-8 of the largest; for a rotation that follows.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "models/config.h"
#include "quant/calibration.h"
#include "quant/method.h"
#include "quant/scale_search.h"
#include "quant/sinkhorn.h"
#include "quant/train/block.h"

namespace crumb::quant {

enum class Equalise : uint8_t { kNone, kSinkhorn, kAwq, kAsinq, kDiagonal };
inline constexpr Named<Equalise> kEqualiseMethods[] = {{"none", Equalise::kNone},
                                                       {"sinkhorn", Equalise::kSinkhorn},
                                                       {"awq", Equalise::kAwq},
                                                       {"asinq", Equalise::kAsinq},
                                                       {"diagonal", Equalise::kDiagonal}};
constexpr bool needs_statistics(Equalise method) { return method >= Equalise::kAwq; }

// kSquared is the sum of all rows' E H E^T; kAbsolute the sum of their roots, which is the L1 norm
// of the output error (A-SINQ's choice) as far as a row's error is Gaussian; kRelative the sum of
// all matrices' tr(E H E^T) / tr(W H W^T), so that v does not speak for q and k.
enum class OutputNorm : uint8_t { kSquared, kAbsolute, kRelative };

inline constexpr Named<OutputNorm> kOutputNorms[] = {{"l2", OutputNorm::kSquared},
                                                     {"l1", OutputNorm::kAbsolute},
                                                     {"relative", OutputNorm::kRelative}};

// Whose t Sinkhorn takes where matrices share an input (q, k, v; gate, up). kStacked: of all rows
// stacked, as Pre-SINQ. kMean: the geometric mean of each one's. kLinear: of v, and of up, alone:
// their outputs go on linearly, and they lose most.
enum class SharedScale : uint8_t { kStacked, kMean, kLinear };
inline constexpr Named<SharedScale> kSharedScales[] = {{"stacked", SharedScale::kStacked},
                                                       {"mean", SharedScale::kMean},
                                                       {"linear", SharedScale::kLinear}};

struct EqualiseOptions {
  Equalise method = Equalise::kNone;
  SinkhornOptions sinkhorn;
  std::array<bool, train::kLinearInputs.size()> skip{};  // by LinearInput: stay as they are
  SharedScale shared = SharedScale::kLinear;
  int repeats = 2;  // kSinkhorn and kAsinq: rounds of normalising and folding
  // kAwq and kAsinq:
  NearestOptions grid;  // what the search rounds with
  int points = 20;
  int64_t rows = 128;      // of each matrix, evenly spaced, that the search looks at; 0: all
  bool by_weight = false;  // s is also divided by mean|w|^(1 - alpha), as AutoAWQ's code does
  OutputNorm norm = OutputNorm::kSquared;
  // kAsinq: the search also looks at all less of Sinkhorn's t, t^(1 - i/back) for i in 1..back.
  int back = 0;
};

// By LinearInput; empty: all 1.
struct BlockScales {
  std::array<std::vector<float>, train::kLinearInputs.size()> t;  // [K]
  std::array<double, train::kLinearInputs.size()> alpha{};        // kAwq and kAsinq: the one chosen
};

// The matrices that read an input.
std::vector<std::vector<float> train::BlockWeights::*> readers(train::LinearInput input);

// t of matrices [N, K] that share one input, as equalise() chooses it, but folded into nothing: for
// a runtime that multiplies x by t itself. `statistics` may be null as for equalise().
std::vector<float> column_scales(std::span<const std::span<const float>> matrices, int64_t K,
                                 const InputStatistics* statistics, const EqualiseOptions& options,
                                 int threads = 0);

// Folds t into the block: readers' columns and the maker's gain or rows. For o_in t must be equal
// over the heads that share a head of v (share_over_heads).
void fold(const models::ModelConfig& config, train::LinearInput input, std::span<const float> t,
          train::BlockWeights* weights);
// The statistics of t o x.
void scale_statistics(std::span<const float> t, InputStatistics* statistics);

// Equalises `weights` and `statistics` in place and says what it did. `statistics` are those of the
// block as given; null only if needs_statistics(method) is false. Deterministic; independent of the
// number of threads.
BlockScales equalise(const models::ModelConfig& config, const EqualiseOptions& options,
                     train::BlockWeights* weights, BlockStatistics* statistics, int threads = 0);

}  // namespace crumb::quant
