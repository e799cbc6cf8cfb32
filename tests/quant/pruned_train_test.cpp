// A pruned student learns from its whole teacher, and what is exported keeps its sizes.
#include <gtest/gtest.h>

#include "models/errors.h"
#include "quant/pruning.h"
#include "quant/train/cpu_distiller.h"
#include "tests/quant/tiny_start.h"
#include "tests/support/temp_dir.h"

namespace crumb::quant::train {
namespace {

TEST(PrunedStudent, LearnsFromTheWholeTeacher) {
  constexpr int64_t kS = 32;
  models::TinyOptions tiny;
  tiny.layers = 3;
  tiny.vocab = 320;
  const models::SourceModel teacher = models::tiny_model(tiny);
  Pruning pruning = keep_all(teacher.config);
  pruning.kept.erase(pruning.kept.begin() + 1);
  pruning.kept[0].units.resize(64);
  pruning.kept[1].heads = {1};
  const models::SourceModel rest = prune(teacher, pruning);
  QuantizeOptions options;
  options.linear.bits = 4;
  options.linear.group = options.embedding.group = 0;
  options.embedding.bits = 8;
  options.head = options.embedding;
  const test::TempDir dir;
  quantize(rest, options, dir.file("start.crumb"), {});
  const auto start = models::Checkpoint::open(dir.file("start.crumb"));
  const auto source = models::open_source(dir.file("start.crumb"));
  // The teacher's own weights are no masters of it.
  EXPECT_THROW(student_from(start, teacher, 2, false), FormatError);
  Student student = student_from(start, rest, 2, false);
  const auto distiller = make_cpu_distiller(teacher, source, student, kS);
  const auto ids = tiny_tokens(4 * kS, 1);
  const double before = distiller->evaluate(ids, {}).kl;
  for (int64_t t = 1; t <= 8; ++t) {
    StepOptions step;
    step.masters = step.norms = step.scales = adam_step({}, t, 3e-3);
    distiller->step(ids, step);
  }
  EXPECT_LT(distiller->evaluate(ids, {}).kl, 0.9 * before);
  student.parameters = distiller->state().parameters;
  export_student(student, start, R"({"stage":"test"})", dir.file("end.crumb"), 2);
  EXPECT_EQ(models::Checkpoint::open(dir.file("end.crumb")).config().pruned, rest.config.pruned);
}

}  // namespace
}  // namespace crumb::quant::train
