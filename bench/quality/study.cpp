// Many ways of quantizing the blocks of one model, each against the model itself: KL divergence
// over windows of a text, second half scored, as `crumb eval kl`, with float32 activations and with
// embedding, head and norms left in float. All methods walk through the model together, so each
// block is calibrated once. Prints one JSON object a method.
//
//   crumb_study SOURCE METHODS.json CALIBRATION.txt EVALUATION.txt [key=value ...]
//     calib=32 eval=16 (windows of 512)  cache=FOLDER  threads=0  matrices=FILE.jsonl  seed=1
//     every=1 (only blocks 0, n, 2n, ..; above 1 losses of matrices alone, nothing is evaluated)
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>

#include "bench/eval/scoring.h"
#include "bench/quality/method.h"
#include "engine/vocab_tokenizer.h"
#include "models/checkpoint.h"
#include "models/errors.h"
#include "models/json.h"
#include "models/source.h"
#include "models/text.h"
#include "quant/calibration_cache.h"
#include "quant/corpus.h"
#include "quant/parallel.h"
#include "quant/train/ops.h"

namespace crumb::quality {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

constexpr int64_t kWindow = 512;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

struct Options {
  std::string source, methods, calibration, evaluation;
  std::map<std::string, std::string> rest = {{"calib", "32"},  {"eval", "16"},   {"cache", ""},
                                             {"threads", "0"}, {"matrices", ""}, {"seed", "1"},
                                             {"every", "1"}};
  int64_t number(const std::string& key) const { return std::stoll(rest.at(key)); }
};

Options parse(const std::vector<std::string>& args) {
  Options options;
  if (args.size() < 4)
    throw Error(
        ExitCode::kUsage,
        "usage: crumb_study SOURCE METHODS.json CALIBRATION.txt EVALUATION.txt [key=value]");
  options.source = args[0];
  options.methods = args[1];
  options.calibration = args[2];
  options.evaluation = args[3];
  for (std::size_t i = 4; i < args.size(); ++i) {
    const auto equals = args[i].find('=');
    const auto found = options.rest.find(args[i].substr(0, equals));
    if (equals == std::string::npos || found == options.rest.end())
      throw Error(ExitCode::kUsage, "unknown option (" + args[i] + ")");
    found->second = args[i].substr(equals + 1);
  }
  return options;
}

// Windows of a text, whose hidden states go from block to block.
class Text {
 public:
  Text(const models::SourceModel& source, const std::string& text, int64_t windows) {
    ids_ = tokenizer_of(source.vocab)->encode(text, false, nullptr);
    count_ = std::min(windows, std::ssize(ids_) / kWindow);
    if (count_ == 0) throw Error(ExitCode::kUsage, "text is shorter than one window of 512 tokens");
    ids_.resize(static_cast<std::size_t>(count_ * kWindow));
  }
  int64_t count() const { return count_; }
  const std::vector<int32_t>& ids() const { return ids_; }

 private:
  std::vector<int32_t> ids_;
  int64_t count_ = 0;
};

struct Model {
  models::ModelConfig config;
  std::vector<float> embedding, head, final_norm;
  std::span<const float> head_rows() const { return head.empty() ? embedding : head; }
};

Model read_ends(const models::SourceModel& source) {
  const auto read = [&](const std::string& name, int64_t n) {
    std::vector<float> values(static_cast<std::size_t>(n));
    source.read(name, values);
    return values;
  };
  const auto& c = source.config;
  Model model = {c, read("model.embed_tokens", c.vocab * c.dim), {}, {}};
  model.final_norm = read("model.norm.weight", c.dim);
  if (!c.tied_head) model.head = read("lm_head", c.vocab * c.dim);
  return model;
}

std::vector<float> embed(const Model& model, const Text& text) {
  const int64_t D = model.config.dim;
  std::vector<float> x;
  for (const int32_t id : text.ids())
    x.insert(x.end(), model.embedding.begin() + id * D, model.embedding.begin() + (id + 1) * D);
  return x;
}

void advance(const models::ModelConfig& config, const quant::train::BlockWeights& weights,
             int threads, std::vector<float>* x) {
  const quant::train::BlockContext context(config, kWindow);
  const int64_t window = kWindow * config.dim;
  quant::parallel_rows(std::ssize(*x) / window, threads, [&](int64_t begin, int64_t end) {
    quant::train::BlockActivations a(config, kWindow);
    for (int64_t w = begin; w < end; ++w) {
      const auto part = std::span(*x).subspan(static_cast<std::size_t>(w * window),
                                              static_cast<std::size_t>(window));
      quant::train::block_forward(context, weights, part, a, part);
    }
  });
}

// What the model says at `rows` positions of hidden states x [rows, D].
std::vector<float> logits(const Model& model, std::span<const float> x) {
  std::vector<float> normed(x.size());
  quant::train::rmsnorm(x, model.final_norm, model.config.norm_eps, normed);
  std::vector<float> out(x.size() / static_cast<std::size_t>(model.config.dim) *
                         static_cast<std::size_t>(model.config.vocab));
  quant::train::linear(normed, model.head_rows(), {}, model.config.dim, out);
  return out;
}

// Second half of every window.
std::vector<eval::Divergence> score(const Model& model, const Text& text,
                                    const std::vector<float>& base, const std::vector<float>& mine,
                                    int threads) {
  const int64_t D = model.config.dim;
  constexpr int64_t kFirst = kWindow / 2;
  constexpr int64_t kRows = kWindow - 1 - kFirst;
  constexpr int64_t kBatch = 51;
  constexpr int64_t kBatches = kRows / kBatch;
  static_assert(kBatch * kBatches == kRows);
  std::vector<eval::Divergence> all(static_cast<std::size_t>(text.count() * kRows));
  quant::parallel_rows(text.count() * kBatches, threads, [&](int64_t begin, int64_t end) {
    for (int64_t batch = begin; batch < end; ++batch) {
      const int64_t row = batch / kBatches * kWindow + kFirst + batch % kBatches * kBatch;
      const auto from = static_cast<std::size_t>(row * D);
      const auto a =
          logits(model, std::span(base).subspan(from, kBatch * static_cast<std::size_t>(D)));
      const auto b =
          logits(model, std::span(mine).subspan(from, kBatch * static_cast<std::size_t>(D)));
      const auto V = static_cast<std::size_t>(model.config.vocab);
      for (int64_t i = 0; i < kBatch; ++i)
        all[static_cast<std::size_t>(batch * kBatch + i)] =
            eval::compare(std::span(a).subspan(static_cast<std::size_t>(i) * V, V),
                          std::span(b).subspan(static_cast<std::size_t>(i) * V, V),
                          text.ids()[static_cast<std::size_t>(row + i + 1)]);
    }
  });
  return all;
}

// A float checkpoint of what a method computes, tensor by tensor in execution order.
class FloatFile {
 public:
  FloatFile(const std::string& path, const models::SourceModel& source, const Method& method) {
    const std::string recipe =
        Json{{"schema", "crumb.study/1"},
             {"note", "for evaluation only: float weights as the method computes them"},
             {"method", method.name},
             {"bits", method.bits},
             {"source", {{"hash", source.hash}, {"weights", source.description}}}}
            .dump();
    std::vector<models::MatrixPlan> plans;
    for (const auto& tensor : models::tensor_table(source.config))
      if (models::may_be_quantized(tensor.role))
        plans.push_back({tensor.name, 32, 0, kernels::Grid::kSeq, {}, {}});
    writer_ =
        std::make_unique<models::CheckpointWriter>(path, models::header_of(source, recipe), plans);
  }
  void add(const std::string& name, std::span<const float> values) { writer_->add(name, values); }
  void add_block(const models::ModelConfig& config, int64_t layer,
                 const quant::train::BlockWeights& weights) {
    for (const auto& tensor : models::tensor_table(config))
      for (const auto& part : quant::train::block_tensors())
        if (tensor.layer == layer &&
            tensor.name == models::layer_tensor(layer, std::string(part.suffix)))
          add(tensor.name, weights.*part.member);
  }
  void commit() { writer_->commit(); }

 private:
  std::unique_ptr<models::CheckpointWriter> writer_;
};

// A method on its way through the model.
struct Run {
  Method method;
  std::vector<float> x;  // [tokens, D]
  double bits = 0, count = 0, loss_ratio = 0, rest_ratio = 0, fresh_ratio = 0, matrices = 0,
         seconds = 0;
  std::unique_ptr<FloatFile> file;
};

Json result_json(const Run& run, const Text& text, const std::vector<eval::Divergence>& all) {
  std::vector<double> kld;
  double nll = 0, nll_base = 0, same = 0;
  for (const auto& one : all) {
    kld.push_back(one.kld);
    nll += one.nll_model;
    nll_base += one.nll_base;
    same += one.same_top ? 1 : 0;
  }
  const auto n = static_cast<double>(all.size());
  const auto mean = eval::mean_of(kld);
  return {
      {"method", run.method.name},
      {"bits", run.method.bits},
      {"linear_bpw", run.bits / run.count},
      {"mean_kld", mean.mean},
      {"stderr_kld", mean.error},
      {"top1", same / n},
      {"ppl_ratio", std::exp((nll - nll_base) / n)},
      {"relative_output_error", run.matrices > 0 ? Json(run.loss_ratio / run.matrices) : Json()},
      {"without_first_tokens", run.matrices > 0 ? Json(run.rest_ratio / run.matrices) : Json()},
      {"evaluation_text", run.matrices > 0 ? Json(run.fresh_ratio / run.matrices) : Json()},
      {"tokens", all.size()},
      {"windows", text.count()},
      {"seconds", run.seconds}};
}

void print_losses(const std::vector<Run>& runs) {
  for (const Run& run : runs)
    std::puts(Json{{"method", run.method.name},
                   {"linear_bpw", run.bits / run.count},
                   {"relative_output_error", run.loss_ratio / run.matrices},
                   {"without_first_tokens", run.rest_ratio / run.matrices},
                   {"evaluation_text", run.fresh_ratio / run.matrices},
                   {"seconds", run.seconds}}
                  .dump()
                  .c_str());
}

void study(const Options& options) {
  const auto source = models::open_source(options.source);
  const auto threads = static_cast<int>(options.number("threads"));
  quant::train::single_threaded_blas();
  const Text text(source, models::read_text(options.evaluation), options.number("eval"));
  quant::CorpusOptions corpus_options = {options.calibration, options.number("calib"), kWindow,
                                         static_cast<uint64_t>(options.number("seed"))};
  const auto corpus = quant::make_corpus(source, corpus_options);
  std::unique_ptr<quant::CalibrationCache> cache;
  if (!options.rest.at("cache").empty())
    cache =
        std::make_unique<quant::CalibrationCache>(options.rest.at("cache"), source, corpus.windows);
  std::ofstream matrices;
  if (!options.rest.at("matrices").empty()) matrices.open(options.rest.at("matrices"));
  const Model model = read_ends(source);
  std::vector<float> base = embed(model, text);
  std::vector<Run> runs;
  for (auto& method : methods_from_json(models::read_text(options.methods), options.methods)) {
    runs.push_back({method, base, 0, 0, 0, 0, 0, 0, 0, nullptr});
    if (method.write.empty()) continue;
    runs.back().file = std::make_unique<FloatFile>(method.write, source, method);
    runs.back().file->add("model.embed_tokens", model.embedding);
  }
  const int64_t every = options.number("every");
  quant::CalibrationOptions calibration;
  calibration.threads = threads;
  calibration.cache = cache.get();
  quant::Calibrator calibrator(source, corpus.windows, calibration);
  for (; !calibrator.done(); calibrator.advance()) {
    auto block = calibrator.next_block();
    if (block.layer % every != 0) {
      advance(source.config, block.weights, threads, &base);
      continue;
    }
    StudyStatistics statistics;
    statistics.sets[0] = *std::move(block.full);
    if (matrices.is_open() || std::any_of(runs.begin(), runs.end(), [](const Run& run) {
          return run.method.tokens != Tokens::kAll;
        }))
      add_token_sets(quant::train::BlockContext(source.config, kWindow), block.weights,
                     calibrator.full_stream(), base, threads, &statistics);
    std::fprintf(stderr, "block %d of %d\n", static_cast<int>(block.layer + 1),
                 static_cast<int>(source.config.layers));
    for (Run& run : runs) {
      const auto start = Clock::now();
      const auto result = run_method(run.method, source.config, block.layer, block.weights,
                                     statistics, matrices.is_open(), threads);
      run.seconds += seconds_since(start);
      run.bits += result.bits;
      run.count += result.count;
      for (const auto& one : result.losses) {
        if (!matrices.is_open()) break;
        run.loss_ratio += one.loss / one.signal;
        run.rest_ratio += one.rest_loss / one.rest_signal;
        run.fresh_ratio += one.fresh_loss / one.fresh_signal;
        run.matrices += 1;
        matrices << Json{{"method", run.method.name},
                         {"layer", block.layer},
                         {"matrix", one.name},
                         {"signal", one.signal},
                         {"loss", one.loss},
                         {"rest_signal", one.rest_signal},
                         {"rest_loss", one.rest_loss},
                         {"fresh_signal", one.fresh_signal},
                         {"fresh_loss", one.fresh_loss},
                         {"damping", one.damping}}
                        .dump()
                 << '\n';
      }
      if (every == 1) advance(source.config, result.weights, threads, &run.x);
      if (run.file) run.file->add_block(source.config, block.layer, result.weights);
    }
    advance(source.config, block.weights, threads, &base);
  }
  if (every > 1) return print_losses(runs);
  for (Run& run : runs) {
    std::puts(result_json(run, text, score(model, text, base, run.x, threads)).dump().c_str());
    std::fflush(stdout);
    if (!run.file) continue;
    run.file->add("model.norm.weight", model.final_norm);
    if (!source.config.tied_head) run.file->add("lm_head", model.head);
    run.file->commit();
  }
}

}  // namespace
}  // namespace crumb::quality

int main(int argc, char** argv) {
  try {
    crumb::quality::study(crumb::quality::parse({argv + 1, argv + argc}));
    return 0;
  } catch (const crumb::Error& error) {
    std::fprintf(stderr, "crumb_study: error: %s\n", error.what());
    return static_cast<int>(error.code());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "crumb_study: error: %s\n", error.what());
    return 1;
  }
}
