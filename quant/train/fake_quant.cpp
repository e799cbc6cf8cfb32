#include "quant/train/fake_quant.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>

#include "quant/parallel.h"

namespace crumb::quant::train {
namespace {

constexpr std::size_t kLanes = 16;

// One group of one row.
struct Group {
  int64_t row, index;
  std::size_t at, scale_at, size;  // in [N, K] and in [N, groups], weights
};

template <class Work>
void for_groups(const Rounded& r, int threads, const Work& work) {
  const int64_t groups = groups_of(r);
  parallel_rows(r.N, threads, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n)
      for (int64_t g = 0; g < groups; ++g) {
        const int64_t first = g * r.group;
        work(Group{n, g, static_cast<std::size_t>(n * r.K + first),
                   static_cast<std::size_t>(n * groups + g),
                   static_cast<std::size_t>(std::min(r.group, r.K - first))});
      }
  });
}

float zero_of(const GroupFit& fit) { return 0.5f * static_cast<float>(fit.zero2); }

}  // namespace

FakeQuant fake_quant_from(std::span<const float> w, Rounded start) {
  assert(std::ssize(w) == start.N * start.K);
  FakeQuant quant{std::move(start), {w.begin(), w.end()}, {}};
  const Rounded& r = quant.rounded;
  quant.log_scale.resize(r.scales.size());
  for_groups(r, 1, [&](const Group& group) {
    const GroupFit fit = fit_of(r, group.row, group.index);
    quant.log_scale[group.scale_at] = std::log(fit.scale);
    const float reach = (0.5f - kCellMargin) * fit.scale;
    for (std::size_t i = group.at; i < group.at + group.size; ++i) {
      const float level = fit.scale * (static_cast<float>(r.codes[i]) - zero_of(fit));
      quant.master[i] = std::clamp(w[i], level - reach, level + reach);
    }
  });
  return quant;
}

void fake_quantize(FakeQuant* quant, std::span<float> w_hat, int threads) {
  Rounded& r = quant->rounded;
  assert(w_hat.size() == r.codes.size());
  for_groups(r, threads, [&](const Group& group) {
    GroupFit fit = fit_of(r, group.row, group.index);
    if (fit.scale > 0)
      fit.scale = nearest_scale(std::exp(static_cast<double>(quant->log_scale[group.scale_at])));
    set_fit(&r, group.row, group.index, fit);
    const auto codes = std::span(r.codes).subspan(group.at, group.size);
    round_group(std::span(quant->master).subspan(group.at, group.size), fit, r.bits, codes);
    const float zero = zero_of(fit);
    float* out = w_hat.data() + group.at;
    for (std::size_t i = 0; i < group.size; ++i)
      out[i] = fit.scale * (static_cast<float>(codes[i]) - zero);
  });
}

void fake_quantize_backward(const FakeQuant& quant, std::span<const float> G,
                            std::span<float> d_master, std::span<float> d_log_scale, int threads) {
  const Rounded& r = quant.rounded;
  assert(G.size() == r.codes.size() && d_master.size() == G.size());
  assert(d_log_scale.size() == r.scales.size());
  for_groups(r, threads, [&](const Group& group) {
    const GroupFit fit = fit_of(r, group.row, group.index);
    const float zero = zero_of(fit);
    const float low = fit.scale * (-0.5f - zero);
    const float high = fit.scale * (static_cast<float>((1 << r.bits) - 1) + 0.5f - zero);
    const uint8_t* code = r.codes.data() + group.at;
    const float* w = quant.master.data() + group.at;
    const float* in = G.data() + group.at;
    float* out = d_master.data() + group.at;
    std::array<float, kLanes> sum{};
    const auto add = [&](std::size_t i, float& lane) {
      const float g = in[i];
      const bool inside = w[i] > low && w[i] < high;
      const float pull = inside ? w[i] : 0.0f;
      lane += g * (fit.scale * (static_cast<float>(code[i]) - zero) - pull);
      out[i] = inside ? g : 0.0f;
    };
    const std::size_t whole = group.size / kLanes * kLanes;
    for (std::size_t i = 0; i < whole; i += kLanes)
      for (std::size_t lane = 0; lane < kLanes; ++lane) add(i + lane, sum[lane]);
    for (std::size_t i = whole; i < group.size; ++i) add(i, sum[i - whole]);
    double total = 0;
    for (const float lane : sum) total += static_cast<double>(lane);
    d_log_scale[group.scale_at] = fit.scale > 0 ? static_cast<float>(total) : 0.0f;
  });
}

}  // namespace crumb::quant::train
