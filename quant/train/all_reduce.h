// Sums over the processes or devices that train one model together on parts of every batch.
#pragma once
#include <span>

namespace crumb::quant::train {

// Every member calls the same functions in the same order with spans of the same sizes and gets the
// same bits back.
class AllReduce {
 public:
  virtual ~AllReduce() = default;
  virtual int rank() const = 0;  // 0 .. size() - 1
  virtual int size() const = 0;
  virtual void sum(std::span<float> values) = 0;  // in place
  virtual void sum(std::span<double> values) = 0;
};

}  // namespace crumb::quant::train
