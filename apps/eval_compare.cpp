#include "apps/eval_compare.h"

#include <fmt/format.h>

#include "apps/eval_args.h"
#include "apps/eval_report.h"
#include "apps/output.h"
#include "bench/eval/comparison.h"
#include "models/errors.h"

namespace crumb::apps {
namespace {

constexpr int64_t kMaxReportBytes = int64_t{1} << 30;

bool is_report(const std::string& path) { return path.ends_with(".json"); }

std::string cell(const eval::Comparison& c, const eval::Comparison::Row& row, std::size_t t) {
  if (!row.tasks[t]) return "";
  const eval::ComparedTask& task = *row.tasks[t];
  std::string text = metric_value(c.metrics[t], task.main.value);
  if (task.main.error >= 0) text += " ± " + metric_value(c.metrics[t], task.main.error);
  return text;
}

std::string scores(const eval::Comparison& c) {
  std::vector<std::string> names = {"task", "metric"};
  for (const auto& row : c.rows) names.push_back(">" + one_line(row.label));
  names.emplace_back("floor");
  Table table(names);
  const auto line = [&](std::string name, auto value) {
    std::vector<std::string> cells = {std::move(name), ""};
    bool any = false;
    for (const auto& row : c.rows) {
      cells.push_back(value(row));
      any |= !cells.back().empty();
    }
    cells.emplace_back();
    if (any) table.add(cells);
  };
  line("weights", [](const auto& row) { return row.model.weights; });
  line("file",
       [](const auto& row) { return human_bytes(static_cast<double>(row.model.file_bytes)); });
  line("linear bpw", [](const auto& row) { return fmt::format("{:.2f}", row.model.linear_bpw); });
  line("whole bpw", [](const auto& row) { return fmt::format("{:.2f}", row.model.total_bpw); });
  const auto efficiency = [&](std::string name, auto value) {
    line(std::move(name),
         [&](const auto& row) { return row.efficiency ? value(*row.efficiency) : ""; });
  };
  efficiency("prefill tokens/s",
             [](const auto& e) { return fmt::format("{:.0f}", e.prefill_tokens_per_s); });
  efficiency("decode tokens/s",
             [](const auto& e) { return fmt::format("{:.0f}", e.decode_tokens_per_s); });
  efficiency("peak memory",
             [](const auto& e) { return human_bytes(static_cast<double>(e.peak_rss_bytes)); });
  efficiency("J a token", [](const auto& e) {
    return e.joules_per_token ? fmt::format("{:.4f}", *e.joules_per_token) : "not measured";
  });
  line("mean KLD",
       [](const auto& row) { return row.mean_kld ? fmt::format("{:.4f}", *row.mean_kld) : ""; });
  for (std::size_t t = 0; t < c.tasks.size(); ++t) {
    std::vector<std::string> cells = {one_line(c.tasks[t]), one_line(c.metrics[t])};
    for (const auto& row : c.rows) cells.push_back(cell(c, row, t));
    cells.push_back(c.floors[t]
                        ? fmt::format("{} ({})", metric_value(c.metrics[t], c.floors[t]->value),
                                      one_line(c.floors[t]->name))
                        : "");
    table.add(cells);
  }
  return table.text();
}

std::string differences(const eval::Comparison& c) {
  Table table({"task", "model", "metric", ">difference ± stderr [95 %]", ">won", ">lost", ">p",
               ">kappa", ">same choice %", ">NLL rise ± stderr"});
  bool any = false;
  for (std::size_t t = 0; t < c.tasks.size(); ++t)
    for (const auto& row : c.rows) {
      if (!row.tasks[t] || !row.tasks[t]->reference) continue;
      any = true;
      auto cells = paired_cells(*row.tasks[t]->reference);
      cells.insert(cells.begin(), {one_line(c.tasks[t]), one_line(row.label)});
      cells.erase(cells.begin() + 8);  // same result: kappa says more
      table.add(cells);
    }
  return any ? fmt::format("\nAgainst {}, the same items:\n\n{}", one_line(c.rows.front().label),
                           table.text())
             : "";
}

std::string ranks(const eval::Comparison& c) {
  if (c.ranks.empty()) return "";
  Table table({"measure", "task", ">models", ">Spearman"});
  for (const auto& rank : c.ranks)
    table.add({rank.measure, rank.task, fmt::format("{}", rank.models),
               rank.rho ? fmt::format("{:+.2f}", *rank.rho) : "undefined"});
  return "\nRank correlation over the models:\n\n" + table.text();
}

std::string markdown(const eval::Comparison& c) {
  std::string text = scores(c) + differences(c) + ranks(c);
  for (const auto& notice : c.notices) text += "note: " + one_line(notice) + "\n";
  return text;
}

}  // namespace

int eval_compare(Context& context) {
  TaskArgs given;
  std::vector<std::string> inputs;
  std::string names = "all", format = "md";
  bool json = false;
  Args args(context,
            "Models or reports (.json, of `crumb eval .. -o`) in one table; the first is the "
            "reference of the others. Models are evaluated first.");
  args.positionals("FILES", inputs, "reports or models");
  add_tasks(args, given);
  args.text("--tasks", names, "LIST",
            "for models: tasks and suites, with commas (default all): " + eval::suite_names());
  args.choice("--format", format, {"md", "json", "csv"}, "of the table (default md)");
  args.flag("--json", json, "the same as --format json");
  args.example("crumb eval compare full.json int4.json int2.json --format csv");
  if (!args.parse()) return 0;
  std::vector<eval::Report> reports;
  for (const std::string& input : inputs) {
    if (is_report(input)) {
      reports.push_back(eval::report_from_json(read_text(input, kMaxReportBytes), input));
      continue;
    }
    TaskArgs one = given;
    one.model.path = input;
    reports.push_back(run_tasks(one, tasks_of(names), false, context.signals));
    for (const auto& line : reports.back().not_scored) note("not scored: {}\n", one_line(line));
  }
  const eval::Comparison comparison = eval::compare_all(reports, given.seed);
  if (json || format == "json")
    write_stdout(eval::to_json(comparison));
  else
    write_stdout(format == "csv" ? eval::to_csv(comparison) : markdown(comparison));
  return 0;
}

}  // namespace crumb::apps
