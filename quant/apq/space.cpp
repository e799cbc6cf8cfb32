#include "quant/apq/space.h"

#include <algorithm>

#include "models/errors.h"

namespace crumb::quant::apq {
namespace {

std::size_t size_of(int64_t n) { return static_cast<std::size_t>(n); }

// The standard library's distributions differ between its makers; these do not.
double uniform(std::mt19937_64& rng) { return static_cast<double>(rng() >> 11) * 0x1p-53; }

uint8_t draw(std::size_t n, std::mt19937_64& rng) {
  return static_cast<uint8_t>(rng() % static_cast<uint64_t>(n));
}

// Shares that sum to 1: powers of uniform numbers, so that some draws are nearly pure.
std::vector<double> shares(std::size_t n, std::mt19937_64& rng) {
  std::vector<double> all;
  double sum = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const double u = uniform(rng);
    all.push_back(u * u);
    sum += all.back();
  }
  for (double& share : all) share = sum > 0 ? share / sum : 1 / static_cast<double>(n);
  return all;
}

uint8_t pick(std::span<const double> of, std::mt19937_64& rng) {
  double left = uniform(rng);
  for (std::size_t i = 0; i + 1 < of.size(); ++i) {
    if (left < of[i]) return static_cast<uint8_t>(i);
    left -= of[i];
  }
  return static_cast<uint8_t>(of.size() - 1);
}

// Layers come back, drawn, until no more are absent than may be.
void bring_back(const Space& space, Subnet& subnet, std::mt19937_64& rng) {
  while (dropped(subnet) > space.most_dropped) {
    LayerChoice& layer = subnet[rng() % subnet.size()];
    layer.present = true;
  }
}

}  // namespace

Space space_of(const models::ModelConfig& config, std::span<const int> widths) {
  models::require_whole(config, "the joint search");
  models::require_blind(config, "the joint search");
  Space space;
  space.layers = config.layers;
  const int64_t unit = config.ffn >= 512 ? 64 : 16;
  for (const int64_t eighths : {8, 7, 6, 4}) {
    const int64_t F = eighths == 8 ? config.ffn : config.ffn * eighths / 8 / unit * unit;
    if (F > 0 && (space.ffn.empty() || F < space.ffn.back())) space.ffn.push_back(F);
  }
  space.kv_heads = {config.kv_heads};
  if (config.kv_heads > 1) space.kv_heads.push_back(config.kv_heads - 1);
  space.widths.assign(widths.begin(), widths.end());
  space.most_dropped =
      std::min(std::max<int64_t>(config.layers / 5, 1),
               std::max<int64_t>(config.layers - space.first_kept - space.last_kept, 0));
  return space;
}

Subnet whole_subnet(const Space& space, uint8_t width) {
  LayerChoice layer;
  layer.bits.fill(width);
  return Subnet(size_of(space.layers), layer);
}

int64_t dropped(const Subnet& subnet) {
  return std::ranges::count_if(subnet, [](const LayerChoice& layer) { return !layer.present; });
}

Subnet random_subnet(const Space& space, std::mt19937_64& rng) {
  Subnet subnet = whole_subnet(space, 0);
  const double cut = uniform(rng);  // how much is taken out at all
  const auto ffn = shares(space.ffn.size(), rng);
  const auto widths = shares(space.widths.size(), rng);
  const double heads = uniform(rng);
  for (LayerChoice& layer : subnet) {
    if (uniform(rng) < cut) layer.ffn = pick(ffn, rng);
    if (uniform(rng) < cut * heads) layer.kv_heads = draw(space.kv_heads.size(), rng);
    for (uint8_t& bits : layer.bits) bits = pick(widths, rng);
  }
  auto out = static_cast<int64_t>(cut * uniform(rng) * static_cast<double>(space.most_dropped + 1));
  for (; out > 0; --out) {
    const auto at = static_cast<int64_t>(rng() % static_cast<uint64_t>(space.layers));
    if (space.may_drop(at)) subnet[size_of(at)].present = false;
  }
  bring_back(space, subnet, rng);
  return subnet;
}

Subnet mutated(const Space& space, const Subnet& subnet, double probability, std::mt19937_64& rng) {
  Subnet child = subnet;
  for (int64_t at = 0; at < space.layers; ++at) {
    LayerChoice& layer = child[size_of(at)];
    if (uniform(rng) < probability && space.may_drop(at)) layer.present = rng() % 4 != 0;
    if (uniform(rng) < probability) layer.ffn = draw(space.ffn.size(), rng);
    if (uniform(rng) < probability) layer.kv_heads = draw(space.kv_heads.size(), rng);
    for (uint8_t& bits : layer.bits)
      if (uniform(rng) < probability) bits = draw(space.widths.size(), rng);
  }
  bring_back(space, child, rng);
  return child;
}

Subnet crossed(const Space& space, const Subnet& a, const Subnet& b, std::mt19937_64& rng) {
  Subnet child;
  for (std::size_t i = 0; i < a.size(); ++i) child.push_back((rng() & 1) != 0 ? a[i] : b[i]);
  bring_back(space, child, rng);
  return child;
}

std::vector<float> architecture_code(const Space& space, const Subnet& subnet) {
  const std::size_t width = 1 + space.ffn.size() + space.kv_heads.size();
  std::vector<float> code(subnet.size() * width);
  for (std::size_t i = 0; i < subnet.size(); ++i) {
    if (!subnet[i].present) continue;
    float* at = code.data() + i * width;
    at[0] = 1;
    at[1 + subnet[i].ffn] = 1;
    at[1 + space.ffn.size() + subnet[i].kv_heads] = 1;
  }
  return code;
}

std::vector<float> width_code(const Space& space, const Subnet& subnet) {
  const std::size_t n = space.widths.size();
  std::vector<float> code(subnet.size() * kSites * n);
  for (std::size_t i = 0; i < subnet.size(); ++i)
    for (std::size_t site = 0; site < kSites && subnet[i].present; ++site)
      code[(i * kSites + site) * n + subnet[i].bits[site]] = 1;
  return code;
}

Pruning pruning_of(const models::ModelConfig& config, const Space& space,
                   std::span<const LayerImportance> importance, const Subnet& subnet) {
  Pruning pruning{config.layers, config.ffn, config.kv_heads, {}};
  for (std::size_t i = 0; i < subnet.size(); ++i)
    if (subnet[i].present)
      pruning.kept.push_back(most_important(importance[i], static_cast<int64_t>(i),
                                            space.ffn[subnet[i].ffn],
                                            space.kv_heads[subnet[i].kv_heads]));
  return pruning;
}

std::string text_of(const Subnet& subnet) {
  std::string text;
  for (const LayerChoice& layer : subnet) {
    if (!text.empty()) text += '.';
    if (!layer.present) text += '-';
    text += static_cast<char>('0' + layer.ffn);
    text += static_cast<char>('0' + layer.kv_heads);
    for (const uint8_t bits : layer.bits) text += static_cast<char>('0' + bits);
  }
  return text;
}

Subnet subnet_from(const Space& space, const std::string& text) {
  const auto fail = [&]() -> Subnet {
    throw Error(ExitCode::kUsage, "no subnet of this space (expected " +
                                      std::to_string(space.layers) + " layers, found " +
                                      text.substr(0, 60) + ")");
  };
  Subnet subnet;
  for (std::size_t at = 0; at < text.size(); ++at) {
    LayerChoice& layer = subnet.emplace_back();
    if (text[at] == '-') layer.present = (++at, false);
    const auto index = [&](std::size_t size, uint8_t& out) {
      if (at >= text.size() || text[at] < '0' || static_cast<std::size_t>(text[at] - '0') >= size)
        return false;
      out = static_cast<uint8_t>(text[at++] - '0');
      return true;
    };
    bool good = index(space.ffn.size(), layer.ffn) && index(space.kv_heads.size(), layer.kv_heads);
    for (uint8_t& bits : layer.bits) good = good && index(space.widths.size(), bits);
    if (!good || (at < text.size() && text[at] != '.')) return fail();
  }
  if (std::ssize(subnet) != space.layers || dropped(subnet) > space.most_dropped) return fail();
  for (int64_t i = 0; i < space.layers; ++i)
    if (!subnet[size_of(i)].present && !space.may_drop(i)) return fail();
  return subnet;
}

}  // namespace crumb::quant::apq
