#include "quant/apq/samples.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <sstream>

#include "models/errors.h"
#include "models/file_writer.h"
#include "models/json.h"
#include "models/text.h"
#include "quant/parallel.h"

namespace crumb::quant::apq {
namespace {

constexpr const char* kSchema = "crumb.apq-samples/1";
constexpr double kLeast = 1e-3;  // nats; below that differences are noise

}  // namespace

Candidate candidate_of(const Setting& setting, const Subnet& subnet, bool rounded) {
  Candidate candidate{pruning_of(setting.config, setting.space, setting.importance, subnet), {}};
  for (const LayerChoice& layer : subnet) {
    if (!layer.present || !rounded) continue;
    SiteBits& bits = candidate.bits.emplace_back();
    for (std::size_t site = 0; site < kSites; ++site)
      bits[site] = setting.space.widths[layer.bits[site]];
  }
  return candidate;
}

SampleStore::SampleStore(std::string path, std::string identity)
    : path_(std::move(path)), identity_(std::move(identity)) {
  std::error_code error;
  if (path_.empty() || !std::filesystem::exists(path_, error)) return;
  std::istringstream lines(models::read_text(path_));
  std::string line;
  for (int64_t at = 1; std::getline(lines, line); ++at) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    const auto text = [&](const char* name) {
      const auto found = json.find(name);
      return found != json.end() && found->is_string() ? found->get<std::string>() : std::string();
    };
    const auto bad = [&] {
      throw FormatError("invalid samples (" + path_ + " line " + std::to_string(at) + ")",
                        "delete the file: they are measured again");
    };
    if (!json.is_object()) bad();
    if (at == 1) {
      if (text("schema") != kSchema) bad();
      if (text("identity") != identity_)
        throw Error(ExitCode::kUsage, "samples of another model, text or space (" + path_ + ")",
                    "name another --journal, or delete the file");
      continue;
    }
    const auto kl = json.find("kl");
    const auto rounded = json.find("rounded");
    if (kl == json.end() || !kl->is_number() || rounded == json.end() || !rounded->is_boolean() ||
        text("subnet").empty() || !std::isfinite(kl->get<double>()))
      bad();
    kl_[{rounded->get<bool>(), text("subnet")}] = kl->get<double>();
  }
}

const double* SampleStore::find(const Subnet& subnet, bool rounded) const {
  const auto found = kl_.find({rounded, text_of(subnet)});
  return found == kl_.end() ? nullptr : &found->second;
}

void SampleStore::add(const Subnet& subnet, bool rounded, double kl) {
  kl_[{rounded, text_of(subnet)}] = kl;
}

void SampleStore::save() const {
  if (path_.empty()) return;
  std::string text =
      nlohmann::ordered_json{{"schema", kSchema}, {"identity", identity_}}.dump() + "\n";
  for (const auto& [key, kl] : kl_)
    text +=
        nlohmann::ordered_json{{"rounded", key.first}, {"subnet", key.second}, {"kl", kl}}.dump() +
        "\n";
  models::write_file(path_, text);
}

std::vector<double> measure_subnets(const SubnetMeter& meter, const Setting& setting,
                                    std::span<const Subnet> subnets, bool rounded, int threads,
                                    SampleStore* store, const char* stage,
                                    const ProgressFn& progress) {
  std::vector<std::size_t> left;
  for (std::size_t i = 0; i < subnets.size(); ++i)
    if (store->find(subnets[i], rounded) == nullptr) left.push_back(i);
  const auto count = std::ssize(subnets);
  const auto batch = static_cast<std::size_t>(2 * resolve_threads(threads));
  for (std::size_t first = 0; first < left.size(); first += batch) {
    const std::size_t stop = std::min(first + batch, left.size());
    std::vector<Candidate> candidates;
    for (std::size_t i = first; i < stop; ++i)
      candidates.push_back(candidate_of(setting, subnets[left[i]], rounded));
    const auto done = count - static_cast<int64_t>(left.size() - first);
    const auto inside = [&](const Progress& p) {  // blocks of this batch, as part of it
      const auto parts = static_cast<int64_t>(stop - first);
      return !progress ||
             progress({stage, "", done + parts * p.done / std::max<int64_t>(p.total, 1), count});
    };
    const std::vector<double> kl = meter.measure(candidates, inside);
    for (std::size_t i = first; i < stop; ++i) store->add(subnets[left[i]], rounded, kl[i - first]);
    store->save();
  }
  std::vector<double> all;
  for (const Subnet& subnet : subnets) all.push_back(*store->find(subnet, rounded));
  return all;
}

double quality_of(double kl) { return -std::log(kl + kLeast); }

Example example_of(const Space& space, const Subnet& subnet, bool rounded, double kl) {
  return {architecture_code(space, subnet),
          rounded ? width_code(space, subnet) : std::vector<float>(), quality_of(kl)};
}

Subnet sample_at(const Space& space, uint64_t seed, int64_t index) {
  std::mt19937_64 rng(seed * 0x9e3779b97f4a7c15u + static_cast<uint64_t>(index));
  rng.discard(8);
  return random_subnet(space, rng);
}

}  // namespace crumb::quant::apq
