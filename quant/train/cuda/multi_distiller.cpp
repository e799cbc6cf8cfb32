#include "quant/train/cuda/multi_distiller.h"

#include <future>
#include <vector>

#include "quant/train/cuda/device.h"
#include "quant/train/cuda/device_group.h"

namespace crumb::quant::train::cuda {
namespace {

class MultiDistiller final : public Distiller {
 public:
  MultiDistiller(const models::SourceModel& teacher, const models::SourceModel& student_source,
                 const Student& student, const CudaOptions& options, int gpus)
      : groups_(join_devices(gpus)), members_(groups_.size()) {
    on_each([&](std::size_t i) {
      CudaOptions own = options;
      own.group = groups_[i].get();
      members_[i] = make_distiller(teacher, student_source, student, own);
      return StepReport{};
    });
  }
  ~MultiDistiller() override {
    on_each([&](std::size_t i) {
      members_[i].reset();
      return StepReport{};
    });
  }
  MultiDistiller(const MultiDistiller&) = delete;
  MultiDistiller& operator=(const MultiDistiller&) = delete;

  StepReport step(std::span<const int32_t> ids, const StepOptions& options) override {
    return on_each([&](std::size_t i) { return members_[i]->step(ids, options); });
  }
  StepReport evaluate(std::span<const int32_t> ids, const LossOptions& loss) override {
    return on_each([&](std::size_t i) { return members_[i]->evaluate(ids, loss); });
  }
  int64_t changed_codes() override {
    require(cudaSetDevice(0), "cudaSetDevice");
    return members_[0]->changed_codes();
  }
  TrainingState state() const override {
    require(cudaSetDevice(0), "cudaSetDevice");
    return members_[0]->state();
  }
  void set_state(const TrainingState& state) override {
    on_each([&](std::size_t i) {
      members_[i]->set_state(state);
      return StepReport{};
    });
  }

 private:
  // A thread a device; the sum of what the members found in their parts.
  template <class Work>
  StepReport on_each(const Work& work) {
    std::vector<std::future<StepReport>> running;
    for (std::size_t i = 0; i < members_.size(); ++i)
      running.push_back(std::async(std::launch::async, [&work, i] {
        require(cudaSetDevice(static_cast<int>(i)), "cudaSetDevice");
        return work(i);
      }));
    StepReport sum;
    for (auto& one : running) {
      const StepReport part = one.get();
      sum.loss += part.loss;
      sum.kl += part.kl;
      sum.top1 += part.top1;
      sum.gradient_norm = part.gradient_norm;  // of the summed gradient, all alike
      sum.width_cost = part.width_cost;        // alike too
    }
    return sum;
  }

  std::vector<std::unique_ptr<DeviceGroup>> groups_;
  std::vector<std::unique_ptr<Distiller>> members_;
};

}  // namespace

std::unique_ptr<Distiller> make_multi_distiller(const models::SourceModel& teacher,
                                                const models::SourceModel& student_source,
                                                const Student& student, const CudaOptions& options,
                                                int gpus) {
  return std::make_unique<MultiDistiller>(teacher, student_source, student, options, gpus);
}

}  // namespace crumb::quant::train::cuda
