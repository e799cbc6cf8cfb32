#include "quant/qvlm/search.h"

#include <chrono>
#include <cmath>
#include <numeric>

namespace crumb::quant::qvlm {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double mean_error(const ClipSearch& search, const std::vector<Clips>& clips, int64_t length) {
  double sum = 0;
  int64_t first = 0;
  const Partition blocks = fixed_blocks(std::ssize(clips), length);
  for (const int64_t n : blocks) {
    sum += search.error(first, std::span(clips).subspan(static_cast<std::size_t>(first),
                                                        static_cast<std::size_t>(n)));
    first += n;
  }
  return sum / static_cast<double>(blocks.size());
}

Setting searched(const ClipSearch& search, const std::string& name, const Partition& partition,
                 std::span<const Clips> from) {
  const double begin = now();
  Setting setting;
  setting.name = name;
  setting.clips = with_blocks(from, search.search_blocks(partition, from));
  setting.evaluations = joint_evaluations(partition, std::ssize(search.candidates().input));
  setting.seconds = now() - begin;
  return setting;
}

void measure_pairs(const ClipSearch& search, std::span<const Clips> from, QvlmReport* report,
                   const ProgressFn& progress) {
  const auto n = std::ssize(from) - 1;
  std::vector<double> entropies, errors, dependencies;
  for (int64_t k = 0; k < n; ++k) {
    if (progress && !progress({"pairs", "", k, n})) throw Interrupted{};
    const auto block = search.search_block(k, 2, from);
    const auto site = static_cast<std::size_t>(k);
    report->pairs.push_back({k, report->sites[site + 1].entropy, report->sites[site].error,
                             block.separate_error - block.error});
    entropies.push_back(report->pairs.back().entropy);
    errors.push_back(report->pairs.back().error);
    dependencies.push_back(report->pairs.back().dependency);
  }
  report->entropy_r2 = r_squared(entropies, dependencies);
  report->error_r2 = r_squared(errors, dependencies);
}

}  // namespace

double r_squared(std::span<const double> x, std::span<const double> y) {
  const auto n = static_cast<double>(x.size());
  const double mx = std::accumulate(x.begin(), x.end(), 0.0) / n;
  const double my = std::accumulate(y.begin(), y.end(), 0.0) / n;
  double xx = 0, yy = 0, xy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    xx += (x[i] - mx) * (x[i] - mx);
    yy += (y[i] - my) * (y[i] - my);
    xy += (x[i] - mx) * (y[i] - my);
  }
  return xx > 0 && yy > 0 ? xy * xy / (xx * yy) : 0;
}

QvlmReport search_clips(const models::SourceModel& source, const CalibrationWindows& windows,
                        const CalibrationWindows& check, const QvlmOptions& options,
                        const ProgressFn& progress) {
  QvlmReport report;
  const SiteChain chain(source, windows, options.form);
  const ClipSearch search(chain, options.candidates, options.threads, progress);
  const double begin = now();
  report.sites = search.search_each();
  const double each = now() - begin;
  const auto c = std::ssize(options.candidates.input);
  std::vector<Clips> clips;
  std::vector<double> entropy;
  for (int64_t site = 0; site < chain.sites(); ++site) {
    report.names.push_back(chain.name(site));
    clips.push_back(report.sites[static_cast<std::size_t>(site)].clips);
    entropy.push_back(report.sites[static_cast<std::size_t>(site)].entropy);
  }
  const Partition fixed = fixed_blocks(chain.sites(), options.most);
  report.partition =
      options.by_mean
          ? blocks_by_mean(entropy, options.most)
          : blocks_within(
                entropy, options.most, c,
                std::llround(options.budget * static_cast<double>(joint_evaluations(fixed, c))));
  report.settings.push_back({"unclipped", std::vector<Clips>(clips.size()), 0, 0, {}, 0});
  report.settings.push_back({"site by site", clips, 0, 0, {}, each});
  report.settings.push_back(searched(search, "partition", report.partition, clips));
  if (options.fixed) report.settings.push_back(searched(search, "fixed blocks", fixed, clips));
  for (Setting& setting : report.settings)
    setting.block_error = mean_error(search, setting.clips, options.most);
  if (options.pairs) measure_pairs(search, clips, &report, progress);
  std::vector<std::vector<Clips>> settings;
  for (const Setting& setting : report.settings) settings.push_back(setting.clips);
  const auto found =
      divergence(SiteChain(source, check, options.form), settings, options.threads, progress);
  for (std::size_t i = 0; i < found.size(); ++i) report.settings[i].checked = found[i];
  return report;
}

}  // namespace crumb::quant::qvlm
