#include "bench/quality/method.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <string_view>

#include "models/errors.h"
#include "models/json.h"
#include "quant/block_stages.h"
#include "quant/moments.h"
#include "quant/quip.h"
#include "quant/rotation.h"
#include "quant/rtn.h"
#include "quant/train/ops.h"

namespace crumb::quality {
namespace {

using Json = nlohmann::json;
using quant::train::LinearInput;

constexpr quant::Named<Rounding> kStudyRoundings[] = {{"none", Rounding::kNone},
                                                      {"nearest", Rounding::kNearest},
                                                      {"ldlq", Rounding::kLdlq},
                                                      {"quip", Rounding::kQuip}};

constexpr quant::Named<Tokens> kTokens[] = {
    {"all", Tokens::kAll}, {"rest", Tokens::kRest}, {"capped", Tokens::kCapped}};

template <class Value, std::size_t n>
std::function<void(const Json&)> choose(const quant::Named<Value> (&choices)[n], Value& to) {
  return [&choices, &to](const Json& json) {
    const auto name = json.get<std::string>();
    const Value* found = quant::value_of(choices, name);
    if (found == nullptr) throw FormatError("'" + name + "' is not one of its values");
    to = *found;
  };
}
template <class Value>
std::function<void(const Json&)> take(Value& to) {
  return [&to](const Json& json) { to = json.get<Value>(); };
}

std::function<void(const Json&)> take_inputs(std::array<bool, 4>& to) {
  return [&to](const Json& json) {
    for (const Json& one : json) {
      const auto name = one.get<std::string>();
      const auto found =
          std::find_if(quant::train::kLinearInputs.begin(), quant::train::kLinearInputs.end(),
                       [&](LinearInput input) { return linear_input_name(input) == name; });
      if (found == quant::train::kLinearInputs.end())
        throw FormatError("'" + name + "' is not a linear input");
      to[static_cast<std::size_t>(*found)] = true;
    }
  };
}

Method method_from_json(const Json& json, const std::string& file) {
  Method m;
  const std::pair<std::string_view, std::function<void(const Json&)>> fields[] = {
      {"name", take(m.name)},
      {"bits", take(m.bits)},
      {"group", take(m.group)},
      {"grid", choose(quant::kGrids, m.grid)},
      {"rule", choose(quant::kScaleRules, m.rule)},
      {"equalise", choose(quant::kEqualiseMethods, m.equalise.method)},
      {"tile", take(m.equalise.sinkhorn.tile)},
      {"iterations", take(m.equalise.sinkhorn.iterations)},
      {"repeats", take(m.equalise.repeats)},
      {"shared", choose(quant::kSharedScales, m.equalise.shared)},
      {"by_weight", take(m.equalise.by_weight)},
      {"norm", choose(quant::kOutputNorms, m.equalise.norm)},
      {"back", take(m.equalise.back)},
      {"points", take(m.equalise.points)},
      {"rows", take(m.equalise.rows)},
      {"skip", take_inputs(m.equalise.skip)},
      {"unfolded", take_inputs(m.unfolded)},
      {"hadamard", take(m.hadamard)},
      {"seed", take(m.seed)},
      {"rounding", choose(kStudyRoundings, m.rounding)},
      {"tokens", choose(kTokens, m.tokens)},
      {"order", choose(quant::kColumnOrders, m.order)},
      {"scales", choose(quant::kGroupScales, m.scales)},
      {"damping", take(m.damping)},
      {"greedy_passes", take(m.greedy_passes)},
      {"rescale", take(m.rescale)},
      {"keep", take(m.keep)},
      {"write", take(m.write)},
  };
  for (const auto& [key, value] : json.items()) {
    const auto found = std::find_if(std::begin(fields), std::end(fields),
                                    [&key = key](const auto& field) { return field.first == key; });
    const std::string where = file + ", method " + json.value("name", std::string("?"));
    if (found == std::end(fields)) throw FormatError("unknown field '" + key + "' (" + where + ")");
    try {
      found->second(value);
    } catch (const std::exception& error) {
      throw FormatError("bad field '" + key + "' (" + where + ": " + error.what() + ")");
    }
  }
  m.equalise.grid = {m.bits, m.group, m.grid, m.rule};
  return m;
}

// One matrix and its input's second moment, in whatever space the method rounds in.
struct Problem {
  std::vector<float> w;   // [N, K]
  std::vector<double> H;  // [K, K]
  int64_t N = 0, K = 0;
  std::string name;
};

std::vector<float> diagonal_of(const std::vector<double>& H, int64_t K) {
  std::vector<float> h(static_cast<std::size_t>(K));
  for (std::size_t k = 0; k < h.size(); ++k) h[k] = static_cast<float>(H[k * h.size() + k]);
  return h;
}

double stored_bits(const quant::Rounded& rounded) {
  return static_cast<double>(rounded.codes.size()) * rounded.bits +
         16.0 * static_cast<double>(rounded.scales.size()) +
         8.0 * static_cast<double>(rounded.zeros.size());
}

// Rounds p.w in place.
void round(const Method& m, Problem* p, int threads, double* bits, double* damping) {
  quant::Rounded rounded;
  if (m.rounding == Rounding::kQuip) {
    const auto result = quant::quip(p->w, p->N, p->K, p->H,
                                    {m.bits, m.rescale, m.greedy_passes, m.seed}, p->name, threads);
    p->w = result.w;
    *bits += result.bpw * static_cast<double>(p->N * p->K);
    *damping = result.damping;
    return;
  }
  if (m.rounding == Rounding::kLdlq) {
    const auto factor = quant::factor(p->H, p->K, m.order, p->name, threads, m.damping);
    rounded = quant::ldlq(p->w, p->N, p->K, factor,
                          {m.bits, m.group, m.grid, m.rule, m.scales, m.greedy_passes}, threads);
    *damping = factor.damping;
  } else {
    rounded = quant::round_nearest(p->w, p->N, p->K, diagonal_of(p->H, p->K),
                                   {m.bits, m.group, m.grid, m.rule}, threads);
  }
  p->w = quant::dequantize(rounded);
  *bits += stored_bits(rounded);
}

// w [N, K] -> W T: rotate_rows undone.
void unrotate_rows(std::vector<float>* w, int64_t K, const models::Rotation& rotation) {
  const auto signs = models::rotation_signs(rotation, K);
  const std::vector<float> ones(signs.size(), 1.0f);
  for (auto row = std::span(*w); !row.empty(); row = row.subspan(signs.size())) {
    quant::rotate_row(row.first(signs.size()), rotation, ones);
    quant::multiply(row.first(signs.size()), signs);
  }
}

// Transforms, rounds and comes back: the matrix that takes the place of p.w.
std::vector<float> run_matrix(const Method& m, Problem p, bool unfolded,
                              const quant::InputStatistics& statistics, int threads, double* bits,
                              double* damping) {
  std::vector<float> t;
  if (unfolded) {
    const std::vector<std::span<const float>> one = {p.w};
    t = quant::column_scales(one, p.K, &statistics, m.equalise, threads);
    quant::divide_columns(p.w, t);
    quant::InputStatistics scaled = statistics;
    quant::scale_statistics(t, &scaled);
    p.H = std::move(scaled.H);
    *bits += 16.0 * static_cast<double>(p.K);
  }
  const models::Rotation rotation = {m.hadamard, m.seed};
  if (m.hadamard != 0) {
    quant::rotate_rows(p.w, p.K, rotation, threads);
    quant::rotate_hessian(p.H, p.K, rotation, threads);
  }
  round(m, &p, threads, bits, damping);
  if (m.hadamard != 0) unrotate_rows(&p.w, p.K, rotation);
  for (std::size_t i = 0; !t.empty() && i < p.w.size(); ++i) p.w[i] *= t[i % t.size()];
  return std::move(p.w);
}

// x [tokens, K] without the first token of every window of S.
std::vector<float> without_first(std::span<const float> x, int64_t K, int64_t S) {
  std::vector<float> rest;
  for (int64_t t = 0; t < std::ssize(x) / K; ++t)
    if (t % S != 0) rest.insert(rest.end(), x.begin() + t * K, x.begin() + (t + 1) * K);
  return rest;
}

// Tokens longer than twice the median are brought down to that.
std::vector<float> capped(std::span<const float> x, int64_t K) {
  std::vector<double> norms;
  for (int64_t t = 0; t < std::ssize(x) / K; ++t) {
    const auto row = x.subspan(static_cast<std::size_t>(t * K), static_cast<std::size_t>(K));
    norms.push_back(std::sqrt(quant::train::square_sum(row)));
  }
  auto sorted = norms;
  const auto middle = sorted.begin() + std::ssize(sorted) / 2;
  std::nth_element(sorted.begin(), middle, sorted.end());
  const double most = 2 * *middle;
  std::vector<float> out(x.begin(), x.end());
  for (std::size_t t = 0; t < norms.size(); ++t)
    if (norms[t] > most)
      for (auto k = t * static_cast<std::size_t>(K); k < (t + 1) * static_cast<std::size_t>(K); ++k)
        out[k] *= static_cast<float>(most / norms[t]);
  return out;
}

// H of `other` in the space that equalisation has put `transformed` into.
quant::InputStatistics transformed_alike(const quant::InputStatistics& plain,
                                         const quant::InputStatistics& transformed,
                                         quant::InputStatistics other) {
  std::vector<float> t(static_cast<std::size_t>(plain.K), 1.0f);
  for (std::size_t k = 0; k < t.size(); ++k) {
    const double before = plain.H[k * t.size() + k], after = transformed.H[k * t.size() + k];
    if (before > 0) t[k] = static_cast<float>(std::sqrt(after / before));
  }
  quant::scale_statistics(t, &other);
  return other;
}

}  // namespace

void add_token_sets(const quant::train::BlockContext& context,
                    const quant::train::BlockWeights& weights, std::span<const float> x,
                    std::span<const float> evaluation, int threads, StudyStatistics* statistics) {
  quant::BlockStage stage, other;
  for (const LinearInput input : quant::train::kLinearInputs) {
    quant::enter_stage(context, weights, x, input, threads, &stage);
    const int64_t K = quant::train::linear_input_width(context.config(), input);
    const std::string name(quant::train::linear_input_name(input));
    const auto put = [&](Tokens set, const std::vector<float>& tokens) {
      statistics->sets[static_cast<std::size_t>(set)].inputs[static_cast<std::size_t>(input)] =
          quant::second_moments(tokens, K, name, threads);
    };
    put(Tokens::kRest, without_first(stage.in, K, context.S()));
    put(Tokens::kCapped, capped(stage.in, K));
    quant::enter_stage(context, weights, evaluation, input, threads, &other);
    statistics->fresh.inputs[static_cast<std::size_t>(input)] =
        quant::second_moments(other.in, K, name, threads);
  }
}

std::vector<Method> methods_from_json(const std::string& text, const std::string& file) {
  Json json;
  try {
    json = Json::parse(text);
  } catch (const Json::exception& error) {
    throw FormatError("not JSON (" + file + ": " + error.what() + ")");
  }
  std::vector<Method> methods;
  for (const Json& one : json) methods.push_back(method_from_json(one, file));
  return methods;
}

BlockResult run_method(const Method& m, const models::ModelConfig& config, int64_t layer,
                       const quant::train::BlockWeights& weights, const StudyStatistics& sets,
                       bool with_losses, int threads) {
  BlockResult result;
  result.weights = weights;
  const auto of = [&](Tokens set) -> const quant::BlockStatistics& {
    return sets.sets[static_cast<std::size_t>(set)];
  };
  const quant::BlockStatistics& statistics = of(m.tokens);
  auto transformed = statistics;
  auto folded = m.equalise;
  for (std::size_t i = 0; i < folded.skip.size(); ++i)
    folded.skip[i] = folded.skip[i] || m.unfolded[i];
  quant::equalise(config, folded, &result.weights, &transformed, threads);
  for (const LinearInput input : quant::train::kLinearInputs) {
    const auto& s = transformed.of(input);
    quant::InputStatistics all, rest, fresh;
    if (with_losses) {
      all = transformed_alike(statistics.of(input), s, of(Tokens::kAll).of(input));
      rest = transformed_alike(statistics.of(input), s, of(Tokens::kRest).of(input));
      fresh = transformed_alike(statistics.of(input), s, sets.fresh.of(input));
    }
    for (const auto member : quant::readers(input)) {
      auto& w = result.weights.*member;
      const int64_t N = std::ssize(w) / s.K;
      const auto tensors = quant::train::block_tensors();
      const auto suffix = std::find_if(tensors.begin(), tensors.end(), [&](const auto& tensor) {
                            return tensor.member == member;
                          })->suffix;
      MatrixLoss loss;
      loss.name = suffix;
      const std::vector<float> nothing(with_losses ? w.size() : 0);
      if (with_losses) {
        loss.signal = quant::proxy_loss(w, nothing, N, all.H, s.K, threads);
        loss.rest_signal = quant::proxy_loss(w, nothing, N, rest.H, s.K, threads);
        loss.fresh_signal = quant::proxy_loss(w, nothing, N, fresh.H, s.K, threads);
      }
      result.count += static_cast<double>(w.size());
      const std::string full = std::to_string(layer) + "." + loss.name;
      const bool kept = std::any_of(m.keep.begin(), m.keep.end(), [&](const std::string& name) {
        return name == full || name == loss.name;
      });
      if (m.rounding == Rounding::kNone || kept) {
        result.bits += 32.0 * static_cast<double>(w.size());
      } else {
        auto rounded = run_matrix(
            m, {w, s.H, N, s.K, "block " + std::to_string(layer) + " " + loss.name},
            m.unfolded[static_cast<std::size_t>(input)], s, threads, &result.bits, &loss.damping);
        if (with_losses) {
          loss.loss = quant::proxy_loss(w, rounded, N, all.H, s.K, threads);
          loss.rest_loss = quant::proxy_loss(w, rounded, N, rest.H, s.K, threads);
          loss.fresh_loss = quant::proxy_loss(w, rounded, N, fresh.H, s.K, threads);
        }
        w = std::move(rounded);
      }
      result.losses.push_back(std::move(loss));
    }
  }
  return result;
}

}  // namespace crumb::quality
