// Reports of several models side by side.
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "bench/eval/report.h"

namespace crumb::eval {

// A task at one model; absent where its report does not have the task.
struct ComparedTask {
  Metric main;
  int64_t n = 0;
  std::optional<ReferenceResult> reference;  // against the first model, over common items
};

struct Comparison {
  struct Row {
    std::string label;  // the model's file name, made unique
    ModelDescription model;
    std::optional<Efficiency> efficiency;
    std::optional<double> mean_kld;
    std::vector<std::optional<ComparedTask>> tasks;  // [tasks]
  };
  // Rank correlation over the models between a measure of language modelling (mean_kld, else the
  // first text task) and a task's main metric, and the mean over tasks of the share of items with
  // the first model's choice (models but the first).
  struct Rank {
    std::string measure, task;
    int64_t models = 0;
    std::optional<double> rho;
  };
  std::vector<std::string> tasks,
      metrics;  // in the order of the table of tasks; main metric of each
  std::vector<std::optional<Floor>>
      floors;  // [tasks], the highest, of the first report that has it
  std::vector<Row> rows;
  std::vector<Rank> ranks;
  std::vector<std::string> notices;  // tasks whose data, version or items differ between reports
};

// The first report is the reference. reports not empty.
Comparison compare_all(const std::vector<Report>& reports, uint64_t seed);

// {"schema":"crumb.eval.compare/1","tasks":[{name, metric, floor}],"models":[{label, .., "tasks":
// {NAME:{value, stderr, n, delta, ..}}}],"spearman":[..],"notices":[..]}.
std::string to_json(const Comparison& comparison);
// A line a model and task: label, bits, bytes, speeds, task, metric, n, value, stderr, delta,
// delta_stderr, delta_low, delta_high, won, lost, p, kappa, nll_rise.
std::string to_csv(const Comparison& comparison);

}  // namespace crumb::eval
