// A folder for each test and a short training recipe in it.
#pragma once
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <string>

#include "quant/train/cpu_distiller.h"
#include "quant/train/train_job.h"
#include "quant/train/train_recipe.h"
#include "quant/train/train_text.h"
#include "tests/quant/tiny_start.h"
#include "tests/support/temp_dir.h"

namespace crumb::quant::train {

constexpr int64_t kS = 32;  // tokens of a window

class TinyJob : public testing::Test {
 protected:
  std::string path(const std::string& name) const { return folder_.file(name); }

  // Few windows, so that few steps show.
  TrainRecipe recipe(int64_t steps) const {
    std::ofstream file(path("tokens"), std::ios::binary);
    for (const int32_t id : tiny_tokens(4 * kS, 3))
      file.put(static_cast<char>(id & 255)).put(static_cast<char>(id >> 8));
    file.close();
    TrainRecipe r;
    r.data = {path("tokens")};
    r.kept_back = path("tokens");
    r.kept_windows = 4;
    r.batch = 2;
    r.window = kS;
    r.steps = steps;
    r.warmup = 2;
    r.rate = 1.5e-3;
    r.report_every = r.evaluate_every = 4;
    return r;
  }

 private:
  test::TempDir folder_;
};

// The state after the whole job, which must lower the divergence.
inline TrainingState trained(const TrainRecipe& recipe, const TinyStart& tiny) {
  TrainJob job;
  job.recipe = recipe;
  const TrainText text = read_train_text(job.recipe, tiny.teacher);
  job.text = &text;
  std::map<int64_t, double> kl;
  job.report = [&](const TrainProgress& p) { kl[p.step] = p.kept_back.kl; };
  const auto distiller = make_cpu_distiller(tiny.teacher, tiny.source, tiny.student, kS);
  TrainingPlace place;
  EXPECT_EQ(train(job, *distiller, place), TrainEnd::kDone);
  EXPECT_LT(kl.at(12), 0.9 * kl.at(0));
  return distiller->state();
}

}  // namespace crumb::quant::train
