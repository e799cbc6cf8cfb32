#include "quant/emq/proxy.h"

#include <algorithm>
#include <cmath>

#include "models/errors.h"
#include "models/json.h"

namespace crumb::quant::emq {
namespace {

using Values = std::span<float>;

template <class Function>
void each(Values x, const Function& function) {
  for (float& v : x) v = function(v);
}
double mean_of(Values x) {
  double sum = 0;
  for (const float v : x) sum += static_cast<double>(v);
  return sum / static_cast<double>(x.size());
}
void fill(Values x, double value) { std::ranges::fill(x, static_cast<float>(value)); }

void normalise(Values x) {
  const double mean = mean_of(x);
  double squares = 0;
  for (const float v : x)
    squares += (static_cast<double>(v) - mean) * (static_cast<double>(v) - mean);
  const double deviation = std::sqrt(squares / static_cast<double>(x.size()));
  each(x, [&](float v) { return static_cast<float>((static_cast<double>(v) - mean) / deviation); });
}
void to_unit_range(Values x) {
  const auto [low, high] = std::ranges::minmax(x);
  each(x, [low = low, range = high - low](float v) { return (v - low) / range; });
}
void softmax(Values x) {
  const float top = std::ranges::max(x);
  each(x, [top](float v) { return std::exp(v - top); });
  const auto sum = static_cast<float>(mean_of(x) * static_cast<double>(x.size()));
  each(x, [sum](float v) { return v / sum; });
}
void frobenius(Values x) {
  double squares = 0;
  for (const float v : x) squares += static_cast<double>(v) * static_cast<double>(v);
  fill(x, std::sqrt(squares));
}

constexpr UnaryOp kUnary[] = {
    {"identity", [](Values) {}},
    {"abs", [](Values x) { each(x, [](float v) { return std::abs(v); }); }},
    {"square", [](Values x) { each(x, [](float v) { return v * v; }); }},
    {"sqrt_abs", [](Values x) { each(x, [](float v) { return std::sqrt(std::abs(v)); }); }},
    {"log_abs", [](Values x) { each(x, [](float v) { return std::log(std::abs(v)); }); }},
    {"exp", [](Values x) { each(x, [](float v) { return std::exp(v); }); }},
    {"negate", [](Values x) { each(x, [](float v) { return -v; }); }},
    {"invert", [](Values x) { each(x, [](float v) { return 1.0f / v; }); }},
    {"relu", [](Values x) { each(x, [](float v) { return std::max(v, 0.0f); }); }},
    {"sigmoid", [](Values x) { each(x, [](float v) { return 1.0f / (1.0f + std::exp(-v)); }); }},
    {"normalise", normalise},
    {"unit_range", to_unit_range},
    {"softmax", softmax},
    {"frobenius", frobenius},
    {"l1",
     [](Values x) {
       each(x, [](float v) { return std::abs(v); });
       fill(x, mean_of(x));
     }},
    {"mean", [](Values x) { fill(x, mean_of(x)); }},
};
constexpr BinaryOp kBinary[] = {
    {"+", [](float x, float y) { return x + y; }},
    {"-", [](float x, float y) { return x - y; }},
    {"*", [](float x, float y) { return x * y; }},
    {"/", [](float x, float y) { return x / y; }},
};

std::span<const float> values_of(const MatrixTerms& terms, int input, std::size_t width) {
  const auto i = static_cast<std::size_t>(input);
  return i < kFixedTerms ? terms.fixed[i] : terms.error[width];
}

bool has_error(const Proxy& p) {
  const int error = static_cast<int>(Term::kError);
  return p.input[0] == error || p.input[1] == error;
}

// One side of the tree on one matrix at one width.
std::vector<float> side_of(const Proxy& p, std::size_t side, const MatrixTerms& terms,
                           std::size_t width) {
  const auto values = values_of(terms, p.input[side], width);
  std::vector<float> x(values.begin(), values.end());
  for (const int op : p.unary[side]) kUnary[static_cast<std::size_t>(op)].apply(x);
  return x;
}

double tree_of(const Proxy& p, const MatrixTerms& terms, std::size_t width) {
  const std::vector<float> x = side_of(p, 0, terms, width), y = side_of(p, 1, terms, width);
  const auto join = kBinary[static_cast<std::size_t>(p.binary)].apply;
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += static_cast<double>(join(x[i], y[i]));
  return sum / static_cast<double>(x.size());
}

std::string side_text(const Proxy& p, std::size_t side) {
  std::string text = kTermNames.at(static_cast<std::size_t>(p.input[side]));
  for (const int op : p.unary[side])
    if (op != 0) text = std::string(kUnary[static_cast<std::size_t>(op)].name) + "(" + text + ")";
  return text;
}

Scores table(std::span<const MatrixTerms> terms, std::span<const int> widths, const auto& value) {
  Scores scores;
  for (const MatrixTerms& t : terms) {
    auto& row = scores.emplace_back();
    for (std::size_t w = 0; w < widths.size(); ++w) row.push_back(value(t, w));
  }
  return scores;
}

}  // namespace

std::span<const UnaryOp> unary_ops() { return kUnary; }
std::span<const BinaryOp> binary_ops() { return kBinary; }

std::string formula(const Proxy& p) {
  std::string a = side_text(p, 0), b = side_text(p, 1);
  const std::string op = kBinary[static_cast<std::size_t>(p.binary)].name;
  if ((op == "+" || op == "*") && b < a) std::swap(a, b);
  return "mean(" + a + " " + op + " " + b + ")" + (p.mode == Mode::kTimes ? " * b" : "");
}

Scores scores_of(const Proxy& p, std::span<const MatrixTerms> terms, std::span<const int> widths) {
  const bool by_width = has_error(p);
  return table(terms, widths, [&](const MatrixTerms& t, std::size_t w) {
    const double value = tree_of(p, t, by_width ? w : 0);
    return p.mode == Mode::kTimes ? value * widths[w] : value;
  });
}

double score_of(const Scores& scores, std::span<const int> plan) {
  double sum = 0;
  for (std::size_t i = 0; i < plan.size(); ++i) sum += scores[i][static_cast<std::size_t>(plan[i])];
  return sum;
}

std::vector<HandMade> hand_made(std::span<const MatrixTerms> terms, std::span<const int> widths) {
  const auto sum = [](const MatrixTerms& t, const auto& value) {
    double total = 0;
    for (std::size_t i = 0; i < t.fixed[0].size(); ++i) total += static_cast<double>(value(i));
    return total / static_cast<double>(t.fixed[0].size());
  };
  const auto squared_error = [&](const MatrixTerms& t, std::size_t w) {
    return sum(t, [&](std::size_t i) { return t.error[w][i] * t.error[w][i]; });
  };
  const auto energy = [&](const MatrixTerms& t) {
    return sum(t, [&](std::size_t i) { return t.fixed[0][i] * t.fixed[0][i]; });
  };
  const auto output = [&](const MatrixTerms& t, const std::vector<float>& e) {
    return sum(t, [&](std::size_t i) {
      const float v = e[i] * t.fixed[1][i];
      return v * v;
    });
  };
  std::vector<HandMade> all;
  const auto add = [&](const char* name, const auto& value) {
    all.push_back({name, table(terms, widths, value)});
  };
  add("sum of bits", [&](const MatrixTerms&, std::size_t w) { return widths[w]; });
  add("size", [&](const MatrixTerms& t, std::size_t w) {
    return static_cast<double>(t.weights) * widths[w];
  });
  add("weight error", [&](const MatrixTerms& t, std::size_t w) {
    return static_cast<double>(t.weights) * squared_error(t, w);
  });
  add("relative weight error",
      [&](const MatrixTerms& t, std::size_t w) { return squared_error(t, w) / energy(t); });
  add("output error", [&](const MatrixTerms& t, std::size_t w) {
    return static_cast<double>(t.weights) * output(t, t.error[w]);
  });
  add("relative output error", [&](const MatrixTerms& t, std::size_t w) {
    return output(t, t.error[w]) / output(t, t.fixed[0]);
  });
  add("log relative error", [&](const MatrixTerms& t, std::size_t w) {
    return std::log(squared_error(t, w) / energy(t));
  });
  add("Fisher error", [&](const MatrixTerms& t, std::size_t w) {
    return static_cast<double>(t.weights) *
           sum(t, [&](std::size_t i) { return t.fixed[3][i] * t.error[w][i] * t.error[w][i]; });
  });
  add("snip times bits", [&](const MatrixTerms& t, std::size_t w) {
    return widths[w] *
           sum(t, [&](std::size_t i) { return std::abs(t.fixed[0][i] * t.fixed[2][i]); });
  });
  add("Hessian times bits", [&](const MatrixTerms& t, std::size_t w) {
    return widths[w] * sum(t, [&](std::size_t i) { return t.fixed[3][i]; });
  });
  return all;
}

std::string to_json(const Proxy& p) {
  nlohmann::ordered_json json = {{"mode", name_of(kModes, p.mode)}};
  for (std::size_t side = 0; side < 2; ++side) {
    json["inputs"].push_back(kTermNames.at(static_cast<std::size_t>(p.input[side])));
    nlohmann::ordered_json ops;
    for (const int op : p.unary[side]) ops.push_back(kUnary[static_cast<std::size_t>(op)].name);
    json["unary"].push_back(ops);
  }
  json["binary"] = kBinary[static_cast<std::size_t>(p.binary)].name;
  json["formula"] = formula(p);
  return json.dump();
}

Proxy proxy_from_json(const std::string& text) {
  const auto refuse = [](const std::string& what) {
    throw Error(ExitCode::kUsage, "proxy (" + what + ")");
  };
  const auto index_of = [&](const auto& list, const auto& name, const std::string& wanted) {
    for (std::size_t i = 0; i < std::size(list); ++i)
      if (wanted == name(list[i])) return static_cast<int>(i);
    refuse("unknown name '" + wanted + "'");
    return 0;
  };
  Proxy p;
  try {
    const auto json = nlohmann::json::parse(text);
    const Mode* mode = value_of(kModes, json.at("mode").get<std::string>());
    if (mode == nullptr) refuse("mode: expected times or err");
    p.mode = *mode;
    for (std::size_t side = 0; side < 2; ++side) {
      p.input[side] = index_of(
          kTermNames, [](const char* n) { return n; },
          json.at("inputs").at(side).get<std::string>());
      for (std::size_t i = 0; i < 2; ++i)
        p.unary[side][i] = index_of(
            kUnary, [](const UnaryOp& op) { return op.name; },
            json.at("unary").at(side).at(i).get<std::string>());
    }
    p.binary = index_of(
        kBinary, [](const BinaryOp& op) { return op.name; }, json.at("binary").get<std::string>());
  } catch (const nlohmann::json::exception& error) {
    refuse(error.what());
  }
  if (p.mode == Mode::kTimes && has_error(p)) refuse("mode times: expected no term E");
  return p;
}

}  // namespace crumb::quant::emq
