// The slow twin of engine/vision/encoder.h: the obvious loops, in double, from a source's floats.
#pragma once
#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "models/source.h"

namespace crumb::test {

using Rows = std::vector<std::vector<double>>;

class VisionTwin {
 public:
  explicit VisionTwin(const models::SourceModel& source)
      : v_(*source.config.vision), dim_(source.config.dim) {
    for (const auto& info : models::vision_table(source.config)) {
      std::vector<float> values(static_cast<std::size_t>(models::weights_of(info)));
      source.read(info.name, values);
      tensors_[info.name].assign(values.begin(), values.end());
    }
  }

  // [patches, D] behind the last norm.
  Rows features(const std::vector<float>& pixels) const {
    Rows x = embed(pixels);
    for (int64_t layer = 0; layer < v_.layers; ++layer) run_layer(layer, x);
    if (v_.class_token) x.erase(x.begin());
    if (v_.final_norm) x = norm(x, "vision.final_norm");
    return x;
  }

  Rows rows(const Rows& features) const {
    const int64_t side = models::patches_a_side(v_), u = v_.unshuffle;
    Rows cells;
    for (int64_t y = 0; y < side; y += u)
      for (int64_t x = 0; x < side; x += u) {
        std::vector<double> cell;
        for (int64_t dy = 0; dy < u; ++dy)
          for (int64_t dx = 0; dx < u; ++dx) {
            const auto& patch = features[size_of((y + dy) * side + x + dx)];
            cell.insert(cell.end(), patch.begin(), patch.end());
          }
        cells.push_back(cell);
      }
    if (v_.hidden == 0) return linear(cells, "projector.linear_1", dim_);
    Rows hidden = linear(cells, "projector.linear_1", v_.hidden);
    activate(v_.projector_activation, hidden);
    return linear(hidden, "projector.linear_2", dim_);
  }

 private:
  static std::size_t size_of(int64_t n) { return static_cast<std::size_t>(n); }
  const std::vector<double>* find(const std::string& name) const {
    const auto found = tensors_.find(name);
    return found == tensors_.end() ? nullptr : &found->second;
  }

  Rows linear(const Rows& x, const std::string& name, int64_t N) const {
    const auto& w = *find(name);
    const auto* bias = find(name + ".bias");
    Rows y;
    for (const auto& row : x) {
      y.emplace_back();
      for (std::size_t n = 0; n < size_of(N); ++n) {
        double sum = bias != nullptr ? (*bias)[n] : 0;
        for (std::size_t k = 0; k < row.size(); ++k) sum += w[n * row.size() + k] * row[k];
        y.back().push_back(sum);
      }
    }
    return y;
  }

  Rows norm(const Rows& x, const std::string& name) const {
    const auto &weight = *find(name + ".weight"), &bias = *find(name + ".bias");
    Rows y = x;
    for (auto& row : y) {
      double mean = 0, variance = 0;
      for (const double value : row) mean += value / static_cast<double>(row.size());
      for (const double value : row)
        variance += (value - mean) * (value - mean) / static_cast<double>(row.size());
      for (std::size_t i = 0; i < row.size(); ++i)
        row[i] =
            (row[i] - mean) / std::sqrt(variance + static_cast<double>(v_.norm_eps)) * weight[i] +
            bias[i];
    }
    return y;
  }

  static void activate(models::VisionActivation kind, Rows& x) {
    for (auto& row : x)
      for (double& value : row) switch (kind) {
          case models::VisionActivation::kGeluErf:
            value = value / 2 * (1 + std::erf(value / std::sqrt(2.0)));
            break;
          case models::VisionActivation::kQuickGelu:
            value = value / (1 + std::exp(-1.702 * value));
            break;
          case models::VisionActivation::kGeluTanh:
            value = value / 2 *
                    (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) *
                                   (value + 0.044715 * value * value * value)));
            break;
        }
  }

  Rows embed(const std::vector<float>& pixels) const {
    const int64_t S = v_.image, p = v_.patch;
    Rows patches;
    for (int64_t y = 0; y + p <= S; y += p)
      for (int64_t x = 0; x + p <= S; x += p) {
        patches.emplace_back();
        for (int64_t c = 0; c < 3; ++c)
          for (int64_t dy = 0; dy < p; ++dy)
            for (int64_t dx = 0; dx < p; ++dx)
              patches.back().push_back(
                  static_cast<double>(pixels[size_of((c * S + y + dy) * S + x + dx)]));
      }
    Rows x = linear(patches, "vision.patch_embed", v_.dim);
    if (v_.class_token) x.insert(x.begin(), *find("vision.class_embed"));
    const auto& position = *find("vision.position_embed");
    for (std::size_t t = 0; t < x.size(); ++t)
      for (std::size_t i = 0; i < x[t].size(); ++i) x[t][i] += position[t * x[t].size() + i];
    return v_.pre_norm ? norm(x, "vision.pre_norm") : x;
  }

  void add(const Rows& what, const std::string& scale, Rows& x) const {
    const auto* factor = find(scale);
    for (std::size_t t = 0; t < x.size(); ++t)
      for (std::size_t i = 0; i < x[t].size(); ++i)
        x[t][i] += (factor != nullptr ? (*factor)[i] : 1) * what[t][i];
  }

  Rows attention(const Rows& q, const Rows& k, const Rows& v) const {
    const std::size_t Dh = size_of(v_.dim / v_.heads);
    Rows out(q.size(), std::vector<double>(size_of(v_.dim)));
    for (std::size_t t = 0; t < q.size(); ++t)
      for (std::size_t h = 0; h < size_of(v_.heads); ++h) {
        std::vector<double> weight;
        for (std::size_t s = 0; s < k.size(); ++s) {
          double score = 0;
          for (std::size_t d = h * Dh; d < (h + 1) * Dh; ++d) score += q[t][d] * k[s][d];
          weight.push_back(score / std::sqrt(static_cast<double>(Dh)));
        }
        const double most = *std::max_element(weight.begin(), weight.end());
        double sum = 0;
        for (double& value : weight) sum += value = std::exp(value - most);
        for (std::size_t s = 0; s < k.size(); ++s)
          for (std::size_t d = h * Dh; d < (h + 1) * Dh; ++d)
            out[t][d] += weight[s] / sum * v[s][d];
      }
    return out;
  }

  void run_layer(int64_t layer, Rows& x) const {
    const std::string in = models::vision_tensor(layer, "");
    const Rows a = norm(x, in + "norm1");
    const Rows attended =
        attention(linear(a, in + "q_proj", v_.dim), linear(a, in + "k_proj", v_.dim),
                  linear(a, in + "v_proj", v_.dim));
    add(linear(attended, in + "o_proj", v_.dim), in + "scale1", x);
    Rows wide = linear(norm(x, in + "norm2"), in + "fc1", v_.ffn);
    activate(v_.activation, wide);
    add(linear(wide, in + "fc2", v_.dim), in + "scale2", x);
  }

  models::VisionConfig v_;
  int64_t dim_;
  std::map<std::string, std::vector<double>> tensors_;
};

}  // namespace crumb::test
