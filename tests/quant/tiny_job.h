// A folder for each test and a short training recipe in it.
#pragma once
#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "quant/train/train_recipe.h"
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

}  // namespace crumb::quant::train
