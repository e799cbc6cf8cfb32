// Measured subnets, kept on disk so that a search that was stopped goes on where it was.
#pragma once
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "quant/apq/meter.h"
#include "quant/apq/predictor.h"
#include "quant/apq/space.h"

namespace crumb::quant::apq {

// What the divergences of a search belong to.
struct Setting {
  const models::ModelConfig& config;
  const Space& space;
  std::span<const LayerImportance> importance;
};

// The candidate that a subnet stands for; not rounded if `rounded` is false.
Candidate candidate_of(const Setting& setting, const Subnet& subnet, bool rounded);

// Divergences by subnet. JSONL: {"schema", "identity"}, then {"rounded", "subnet", "kl"} a line.
class SampleStore {
 public:
  // An empty path keeps nothing on disk. Throws Error(kUsage) for a file of another identity,
  // FormatError for one that is none, IoError.
  SampleStore(std::string path, std::string identity);

  const double* find(const Subnet& subnet, bool rounded) const;
  // Written with the next save().
  void add(const Subnet& subnet, bool rounded, double kl);
  void save() const;  // throws IoError
  std::size_t size() const { return kl_.size(); }

 private:
  std::string path_, identity_;
  std::map<std::pair<bool, std::string>, double> kl_;
};

// Divergences of all, those that the store does not have measured, a few at a time, and kept.
// Progress counts subnets as `stage`.
std::vector<double> measure_subnets(const SubnetMeter& meter, const Setting& setting,
                                    std::span<const Subnet> subnets, bool rounded, int threads,
                                    SampleStore* store, const char* stage,
                                    const ProgressFn& progress);

// -log(kl + 1e-3): what predictors learn.
double quality_of(double kl);
Example example_of(const Space& space, const Subnet& subnet, bool rounded, double kl);

// Subnet `index` of a seed's sequence.
Subnet sample_at(const Space& space, uint64_t seed, int64_t index);

}  // namespace crumb::quant::apq
