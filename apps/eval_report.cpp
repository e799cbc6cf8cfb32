#include "apps/eval_report.h"

#include <fmt/format.h>

#include <cmath>

#include "apps/output.h"

namespace crumb::apps {
namespace {

using eval::Metric;
using eval::PairedResult;
using eval::TaskReport;

// Perplexities, lengths and nats are not shares.
bool is_share(const std::string& name) {
  return !name.starts_with("nll") && !name.starts_with("ppl") && name != "tokens" &&
         !name.starts_with("bias_");
}

std::string metric_text(const TaskReport& task, const std::string& name) {
  const Metric* metric = eval::find(task.metrics, name);
  if (metric == nullptr) return "";
  const std::string value = metric_value(name, metric->value);
  return metric->error < 0 ? value : value + " ± " + metric_value(name, metric->error);
}

std::string paired_text(const std::string& name, const PairedResult& paired) {
  const double scale = is_share(name) ? 100 : 1;
  const int digits = is_share(name) ? 1 : 3;
  return fmt::format("{:+.{}f} ± {:.{}f} [{:+.{}f}, {:+.{}f}]", scale * paired.delta, digits,
                     scale * paired.error, digits, scale * paired.interval[0], digits,
                     scale * paired.interval[1], digits);
}

std::string scores(const eval::Report& report) {
  Table table(
      {"task", "dimension", ">n", "metric", ">score", ">acc", ">acc_norm", ">NLL", "floor"});
  for (const TaskReport& task : report.tasks) {
    const eval::Floor floor = eval::highest(task.floors);
    table.add({task.name, task.dimension,
               task.n < task.available ? fmt::format("{}/{}", task.n, task.available)
                                       : fmt::format("{}", task.n),
               task.metric, metric_text(task, task.metric),
               task.metric == "acc" ? "" : metric_text(task, "acc"),
               task.metric == "acc_norm" ? "" : metric_text(task, "acc_norm"),
               metric_text(task, "nll"),
               floor.name.empty()
                   ? ""
                   : fmt::format("{} ({})", metric_value(task.metric, floor.value), floor.name)});
  }
  return table.text();
}

// Metrics the first table has no column for.
std::string more_scores(const eval::Report& report) {
  Table table({"task", "metric", ">value"});
  bool any = false;
  for (const TaskReport& task : report.tasks)
    for (const Metric& metric : task.metrics) {
      if (metric.name == task.metric || metric.name == "acc" || metric.name == "acc_norm" ||
          metric.name == "nll" || metric.name.find('/') != std::string::npos)
        continue;
      table.add({task.name, metric.name, metric_text(task, metric.name)});
      any = true;
    }
  return any ? "\n" + table.text() : "";
}

std::string differences(const eval::Report& report) {
  Table table({"task", "metric", ">difference ± stderr [95 %]", ">won", ">lost", ">p", ">kappa",
               ">same result %", ">same choice %", ">NLL rise ± stderr"});
  for (const TaskReport& task : report.tasks) {
    if (!task.reference) continue;
    const eval::ReferenceResult& result = *task.reference;
    std::vector<std::string> cells = paired_cells(result);
    cells.insert(cells.begin(), task.name);
    table.add(cells);
    for (std::size_t i = 0; i < result.others.size(); ++i)
      table.add({"", result.other_names[i], paired_text(result.other_names[i], result.others[i]),
                 "", "", "", "", "", "", ""});
  }
  return table.text();
}

std::string model_line(const eval::ModelDescription& model) {
  return fmt::format("{} · {} · {} · linear {:.2f} bpw, head {:.2f}, whole {:.2f}",
                     one_line(model.name), model.weights,
                     human_bytes(static_cast<double>(model.file_bytes)), model.linear_bpw,
                     model.head_bits, model.total_bpw);
}

std::string efficiency_text(const eval::Efficiency& e) {
  return fmt::format(
      "\nspeed: pp512 {:.1f} tokens/s, tg128 {:.1f} tokens/s ({} threads, {}, {}) · peak memory {} "
      "· "
      "KV {} a token · energy {}\n",
      e.prefill_tokens_per_s, e.decode_tokens_per_s, e.threads, e.isa, e.cpu,
      human_bytes(static_cast<double>(e.peak_rss_bytes)),
      human_bytes(static_cast<double>(e.kv_bytes_per_token)),
      e.joules_per_token ? fmt::format("{:.4f} J a token ({})", *e.joules_per_token, e.energy_note)
                         : e.energy_note);
}

}  // namespace

std::string metric_value(const std::string& name, double value) {
  return is_share(name) ? fmt::format("{:.1f}", 100 * value) : fmt::format("{:.3f}", value);
}

std::vector<std::string> paired_cells(const eval::ReferenceResult& result) {
  std::vector<std::string> cells = {result.paired_metric,
                                    paired_text(result.paired_metric, result.paired)};
  if (const auto& flips = result.paired.flips)
    cells.insert(cells.end(), {fmt::format("{}", flips->won), fmt::format("{}", flips->lost),
                               fmt::format("{:.2g}", flips->p),
                               flips->kappa ? fmt::format("{:.2f}", *flips->kappa) : "undefined",
                               fmt::format("{:.1f}", 100 * flips->agreement)});
  else
    cells.insert(cells.end(), 5, "");
  const auto same = result.same_choice ? result.same_choice : result.same_text;
  cells.push_back(same ? fmt::format("{:.1f}", 100 * *same) : "");
  cells.push_back(result.nll ? fmt::format("{:+.4f} ± {:.4f}", result.nll->delta, result.nll->error)
                             : "");
  return cells;
}

std::string report_text(const eval::Report& report) {
  std::string text = "model: " + model_line(report.model) + " · KV " + report.kv +
                     (report.chat ? " · multiple choice through the chat template" : "") + "\n";
  if (report.reference) text += "reference: " + model_line(*report.reference) + "\n";
  text += "\n" + scores(report) + more_scores(report);
  if (report.reference)
    text +=
        fmt::format("\nAgainst the reference, the same items ({} bootstrap samples, seed {}):\n\n",
                    eval::kResamples, report.seed) +
        differences(report);
  if (report.mean_kld)
    text += fmt::format(
        "\nKL from the reference: {:.5f} ± {:.5f} nats a token, same first token {:.2f} %\n",
        *report.mean_kld, report.kld_stderr.value_or(0), 100 * report.same_top.value_or(0));
  if (report.efficiency) text += efficiency_text(*report.efficiency);
  for (const auto& line : report.not_scored) text += "not scored: " + one_line(line) + "\n";
  return text;
}

}  // namespace crumb::apps
