// NIPQ on a tiny model: gradients through the whole network, learned widths from start to export,
// states.
#include <cmath>
#include <fstream>
#include <map>

#include "models/errors.h"
#include "quant/train/block.h"
#include "quant/train/cpu_distiller.h"
#include "quant/train/noise.h"
#include "quant/train/train_job.h"
#include "tests/quant/finite_difference.h"
#include "tests/quant/tiny_job.h"

namespace crumb::quant::train {
namespace {

class Nipq : public TinyJob {
 protected:
  TrainRecipe recipe() const {
    TrainRecipe r = TinyJob::recipe(20);
    r.noise.emplace();
    return r;
  }
};

struct Trained {
  std::map<int64_t, TrainProgress> reports;
  TrainingState state;
};
Trained run(const TrainRecipe& recipe, const TinyStart& tiny) {
  TrainJob job;
  job.recipe = recipe;
  job.costs = width_costs(recipe, tiny.student.parts);
  const TrainText text = read_train_text(recipe, tiny.teacher);
  job.text = &text;
  Trained result;
  job.report = [&](const TrainProgress& p) { result.reports[p.step] = p; };
  const auto distiller = make_cpu_distiller(tiny.teacher, tiny.source, tiny.student, kS);
  TrainingPlace place;
  EXPECT_EQ(train(job, *distiller, place), TrainEnd::kDone);
  result.state = distiller->state();
  return result;
}

// Logarithms of the largest value of each input of the start's blocks in a window.
std::vector<float> largest_inputs(const TinyStart& tiny) {
  const models::ModelConfig& c = tiny.student.config;
  const BlockContext context(c, kS);
  BlockActivations activations(c, kS);
  std::vector<float> embedding(static_cast<std::size_t>(c.vocab * c.dim)), x, largest;
  tiny.source.read("model.embed_tokens", embedding);
  for (const int32_t id : tiny_tokens(kS, 3))
    x.insert(x.end(), embedding.begin() + id * c.dim, embedding.begin() + (id + 1) * c.dim);
  for (int64_t l = 0; l < c.layers; ++l) {
    block_forward(context, read_block(tiny.source, l), x, activations, x);
    for (const LinearInput input : kLinearInputs) {
      float most = 0;
      for (const float v : linear_input(activations, input)) most = std::max(most, std::abs(v));
      largest.push_back(std::log(most));
    }
  }
  return largest;
}

// Noise frozen by its seed, rates of 0: the loss of a step is a function of the parameters, and
// beta1 = 0 makes the first moment its gradient.
TEST_F(Nipq, GradientsAreDifferencesThroughTheNetwork) {
  TinyStart tiny = tiny_start(path("start.crumb"), 64, false, 4);
  // Differences must not step over truncations, so nothing lies near one.
  for (std::size_t i = 0; i < tiny.student.parts.size(); ++i) {
    const MatrixPart& p = tiny.student.parts[i];
    const float levels = std::exp2(static_cast<float>(tiny.student.forms[i].bits)) - 1;
    float* all = tiny.student.parameters.data();
    for (int64_t n = 0; n < p.N; ++n) {
      const float reach = 0.8f * 0.5f * levels * std::exp(all[p.scale_at + n]);
      for (int64_t k = 0; k < p.K; ++k) {
        float& w = all[p.master_at + n * p.K + k];
        w = std::clamp(w, -reach, reach);
      }
    }
  }
  const auto ids = tiny_tokens(kS, 1);
  const WidthCosts costs = byte_costs(tiny.student.parts, 3);
  StepOptions options;
  options.masters = options.norms = options.scales = adam_step({0.0, 0.99, 1e-8, 0}, 1, 0);
  options.gradient_limit = 1e9;
  options.noise = NoiseStep{};
  options.noise->seed = 5;
  options.noise->costs = &costs;
  options.noise->budget_weight = 0;
  options.noise->widths = options.noise->inputs = options.scales;
  options.noise->input_bits = 6;
  const auto distiller = make_cpu_distiller(tiny.teacher, tiny.source, tiny.student, kS);
  distiller->step(ids, options);
  TrainingState state = distiller->state();
  for (float& a : state.inputs.log_alpha) a += 1.0f;  // inputs are not truncated either
  distiller->set_state(state);
  distiller->step(ids, options);
  state = distiller->state();
  const auto loss = [&] {
    distiller->set_state(state);
    return distiller->step(ids, options).loss;
  };
  const ParameterLayout& layout = tiny.student.layout;
  const std::vector<float> moments = state.mean;
  const auto part = [](auto& all, int64_t at, int64_t n) {
    return std::span(all).subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(n));
  };
  expect_gradient("log scales", part(state.parameters, layout.scales_at, layout.scales),
                  part(moments, layout.scales_at, layout.scales), loss, 1e-2, 2e-3f);
  const std::vector<float> d_beta = state.widths.mean;
  expect_gradient("widths", state.widths.beta, d_beta, loss, 1e-2, 1e-2f);
  const std::vector<float> d_log_alpha = state.inputs.mean;
  expect_gradient("inputs' log alphas", state.inputs.log_alpha, d_log_alpha, loss, 1e-2, 2e-3f);
}

TEST_F(Nipq, NoiseLowersTheDivergenceOfTheRoundedStudent) {
  const TinyStart tiny = tiny_start(path("start.crumb"));
  TrainRecipe r = recipe();
  const Trained noise = run(r, tiny);
  r.noise.reset();
  const Trained rounding = run(r, tiny);
  const double start = noise.reports.at(0).kept_back.kl;
  const double by_noise = noise.reports.at(20).kept_back.kl;
  const double by_rounding = rounding.reports.at(20).kept_back.kl;
  std::printf("  KL at the start %.4f, by noise %.4f, straight through %.4f\n", start, by_noise,
              by_rounding);
  EXPECT_LT(by_noise, 0.9 * start);
  EXPECT_TRUE(noise.state.widths.beta.empty());
}

TEST_F(Nipq, WidthsAreLearnedSettledAndExported) {
  TinyStart tiny = tiny_start(path("start.crumb"), 64, false, 4);
  TrainRecipe r = recipe();
  r.steps = 60;
  r.noise->average_bits = 3;
  r.noise->width_rate = 0.1;
  const Trained learned = run(r, tiny);
  const auto& parts = tiny.student.parts;
  const LearnedWidths& widths = learned.state.widths;
  ASSERT_EQ(widths.beta.size(), parts.size());
  double average = 0, stored = 0, weights = 0;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const auto n = static_cast<double>(parts[i].N * parts[i].K);
    average += n * width_of(widths.beta[i]);
    stored += n * static_cast<double>(widths.chosen[i]);
    weights += n;
    std::printf("  %-40s %.2f -> %g\n", parts[i].name.c_str(), width_of(widths.beta[i]),
                static_cast<double>(widths.chosen[i]));
  }
  EXPECT_NEAR(average / weights, 3, 0.05);
  EXPECT_LE(stored / weights, 3);
  EXPECT_NE(*std::min_element(widths.beta.begin(), widths.beta.end()),
            *std::max_element(widths.beta.begin(), widths.beta.end()));
  EXPECT_NEAR(learned.reports.at(60).last.width_cost, stored / weights / 3, 1e-6);

  // The file has the chosen widths, and is the student that was evaluated.
  tiny.student.parameters = learned.state.parameters;
  apply_widths(widths, &tiny.student);
  export_student(tiny.student, tiny.start, "{}", path("out.crumb"));
  const auto out = models::Checkpoint::open(path("out.crumb"));
  for (std::size_t i = 0; i < parts.size(); ++i)
    EXPECT_EQ(out.matrix(parts[i].name).bands.at(0).bits, static_cast<int>(widths.chosen[i]));
  const auto exported = models::open_source(path("out.crumb"));
  const TinyStart again{tiny.teacher, exported, models::Checkpoint::open(path("out.crumb")),
                        tiny.student};
  const auto itself = make_cpu_distiller(exported, exported, again.student, kS);
  EXPECT_LT(itself->evaluate(tiny_tokens(2 * kS, 9), {}).kl, 1e-10);
}

// Acceptance: INT4 weights, INT8 and INT4 inputs at static truncations: learned against those of
// the largest values seen, with rounding.
TEST_F(Nipq, LearnedTruncationsOfInputsAreNoWorseThanTheLargestValues) {
  const TinyStart tiny = tiny_start(path("start.crumb"), 64, false, 4);
  for (const int bits : {8, 4}) {
    TrainRecipe r = recipe();
    r.rate = r.scale_rate = 1e-9;  // inputs alone
    r.steps = 12;
    r.noise->input_bits = bits;
    const Trained learned = run(r, tiny);
    const auto distiller = make_cpu_distiller(tiny.teacher, tiny.source, tiny.student, kS);
    TrainingState state = learned.state;
    const auto ids = tiny_tokens(4 * kS, 21);
    const auto kl = [&] {
      distiller->set_state(state);
      return distiller->evaluate(ids, {}).kl;
    };
    const double by_learning = kl();
    state.inputs.log_alpha = largest_inputs(tiny);
    const double by_largest = kl();
    state.inputs = {};
    std::printf("  W4A%d: KL %.5f learned, %.5f largest, %.5f without\n", bits, by_learning,
                by_largest, kl());
    EXPECT_LE(by_learning, by_largest) << bits;
  }
}

// Stopped at the end of the noise and in the tail; the state crosses a file.
TEST_F(Nipq, ResumesToTheSameBytes) {
  const TinyStart tiny = tiny_start(path("start.crumb"), 64, false, 4);
  TrainRecipe r = recipe();
  r.noise->average_bits = 3;
  r.noise->random_widths = true;
  r.noise->input_bits = 8;
  const Trained straight = run(r, tiny);
  for (const int64_t at : {17, 18}) {
    TrainJob job;
    job.recipe = r;
    job.costs = width_costs(r, tiny.student.parts);
    job.state_prefix = path("state" + std::to_string(at));
    const TrainText text = read_train_text(r, tiny.teacher);
    job.text = &text;
    bool stop = false;
    job.stop = [&] { return stop; };
    job.report = [&](const TrainProgress& p) { stop = p.step >= at; };
    TrainingPlace place;
    const auto first = make_cpu_distiller(tiny.teacher, tiny.source, tiny.student, kS);
    EXPECT_EQ(train(job, *first, place), TrainEnd::kStopped);
    auto loaded = load_full(job.state_prefix);
    ASSERT_TRUE(loaded);
    EXPECT_EQ(loaded->place.step, at);
    EXPECT_EQ(loaded->state.widths.settled(), at > 17);
    EXPECT_THROW(save_compact(path("compact"), tiny.student, *loaded), Error);
    const auto second = make_cpu_distiller(tiny.teacher, tiny.source, tiny.student, kS);
    second->set_state(loaded->state);
    job.stop = nullptr;
    job.report = nullptr;
    EXPECT_EQ(train(job, *second, loaded->place), TrainEnd::kDone);
    const TrainingState end = second->state();
    EXPECT_EQ(end.parameters, straight.state.parameters) << at;
    EXPECT_EQ(end.widths, straight.state.widths) << at;
    EXPECT_EQ(end.inputs, straight.state.inputs) << at;
  }
}

TEST_F(Nipq, RecipesAreReadBackAndCheckedForSense) {
  TrainRecipe r = recipe();
  r.noise->average_bits = 2.5;
  EXPECT_EQ(to_json(recipe_from_json(to_json(r))), to_json(r));
  for (const char* noise :
       {R"({"shares": 1})", R"({"share": 1.5})", R"({"average_bits": 1})",
        R"({"share": 0, "average_bits": 3})", R"({"share": 1, "average_bits": 3})",
        R"({"costs": "x", "average_bits": 3})", R"({"width_rate": 0})"})
    EXPECT_THROW(recipe_from_json(R"({"data": ["a"], "noise": )" + std::string(noise) + "}"), Error)
        << noise;
}

}  // namespace
}  // namespace crumb::quant::train
