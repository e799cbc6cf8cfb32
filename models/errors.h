// The error every library throws at its borders; apps turn `code` into the exit code.
// Message form: WHAT (WHERE: expected X, found Y).
#pragma once
#include <stdexcept>
#include <string>
#include <utility>

namespace crumb {

enum class ExitCode : int {
  kOk = 0,
  kInternal = 1,
  kUsage = 2,
  kBadFile = 3,  // invalid model or input file
  kIo = 4,
  kMemory = 5,   // out of memory, or over a limit
  kNumeric = 6,  // NaN
  kGate = 7,     // quality gate or benchmark regression
  kCpu = 8,      // CPU not supported
};

class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& what, std::string hint = {})
      : std::runtime_error(what), code_(code), hint_(std::move(hint)) {}
  ExitCode code() const { return code_; }
  // The next step for the user, may be empty.
  const std::string& hint() const { return hint_; }

 private:
  ExitCode code_;
  std::string hint_;
};

struct FormatError : Error {
  explicit FormatError(const std::string& what, std::string hint = {})
      : Error(ExitCode::kBadFile, what, std::move(hint)) {}
};
struct IoError : Error {
  explicit IoError(const std::string& what, std::string hint = {})
      : Error(ExitCode::kIo, what, std::move(hint)) {}
};

}  // namespace crumb
