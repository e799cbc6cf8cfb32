// The embedding, which is the head too, trained like a matrix.
#include <cmath>

#include "quant/train/cpu_distiller.h"
#include "tests/quant/tiny_job.h"

namespace crumb::quant::train {
namespace {

class Embedding : public TinyJob {};

// Scaling a row of the embedding and its step together keeps the codes, so along that line the loss
// is smooth: sum of dL/dw w + dL/dlog s is its derivative. Of rows that are looked up and others.
TEST_F(Embedding, ItsGradientIsTheFiniteDifference) {
  const TinyStart tiny =
      tiny_start(path("start.crumb"), 64, false, 2, 0, kernels::Grid::kSeq, true);
  const ParameterLayout& layout = tiny.student.layout;
  const MatrixSlot& slot = *layout.embedding;
  const auto ids = tiny_tokens(kS, 1);
  const auto distiller = make_cpu_distiller(tiny.teacher, tiny.source, tiny.student, kS);
  StepOptions options;
  options.loss = {LossKind::kJsd, 0.5f};
  options.masters = options.norms = options.scales = options.embedding =
      adam_step({0.0, 0.99, 1e-8, 0}, 1, 0);
  options.gradient_limit = 1e9;
  distiller->step(ids, options);
  const TrainingState state = distiller->state();
  const auto row_of = [&](auto& values, int64_t n) {
    return std::span(values).subspan(static_cast<std::size_t>(slot.master_at + n * slot.K),
                                     static_cast<std::size_t>(slot.K));
  };
  const auto loss_at = [&](int64_t n, float factor) {
    TrainingState moved = state;
    for (float& w : row_of(moved.parameters, n)) w *= factor;
    moved.parameters[static_cast<std::size_t>(slot.scale_at + n)] += std::log(factor);
    distiller->set_state(moved);
    return distiller->evaluate(ids, options.loss).loss;
  };
  std::vector<int64_t> rows(ids.begin(), ids.begin() + 8);
  for (int64_t n = 0; n < slot.N; n += 20) rows.push_back(n);
  double error = 0, size = 0;
  for (const int64_t n : rows) {
    const auto w = row_of(state.parameters, n), d = row_of(state.mean, n);
    double found = static_cast<double>(state.mean[static_cast<std::size_t>(slot.scale_at + n)]);
    for (std::size_t k = 0; k < w.size(); ++k)
      found += static_cast<double>(w[k]) * static_cast<double>(d[k]);
    const double expected = (loss_at(n, 1.0625f) - loss_at(n, 0.9375f)) / 0.125;
    error += (found - expected) * (found - expected);
    size += expected * expected;
  }
  EXPECT_GT(size, 0);
  EXPECT_LT(std::sqrt(error / size), 0.03);
}

TEST_F(Embedding, IsTrainedAndExported) {
  const TinyStart frozen = tiny_start(path("frozen.crumb"));
  const TinyStart tiny =
      tiny_start(path("start.crumb"), 64, false, 2, 0, kernels::Grid::kSeq, true);
  EXPECT_EQ(tiny.student.layout.masters,
            frozen.student.layout.masters + tiny.student.layout.embedding->N * 128);
  TrainRecipe both = recipe(12);
  both.embedding_rate = 1e-3;
  Student student = tiny.student;
  student.parameters = trained(both, tiny).parameters;
  export_student(student, tiny.start, "{}", path("out.crumb"));
  const auto exported = models::open_source(path("out.crumb"));
  std::vector<float> was(320 * 128), now(320 * 128);
  tiny.source.read("model.embed_tokens", was);
  exported.read("model.embed_tokens", now);
  EXPECT_NE(was, now);
  EXPECT_EQ(std::filesystem::file_size(path("out.crumb")) / 1024,
            std::filesystem::file_size(path("start.crumb")) / 1024);
  const auto itself = make_cpu_distiller(exported, exported, student, kS);
  EXPECT_LT(itself->evaluate(tiny_tokens(2 * kS, 9), {}).kl, 1e-10);
}

}  // namespace
}  // namespace crumb::quant::train
