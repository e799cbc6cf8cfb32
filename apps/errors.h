// The one place where an exception becomes a message and an exit code.
#pragma once
#include <exception>
#include <string>

namespace crumb::apps {

struct Failure {
  int exit_code = 1;
  std::string code;     // "usage", "bad_file", "io", ... for machines
  std::string message;  // WHAT (WHERE: expected X, found Y), one line
  std::string hint;     // the next step, may be empty
  bool quiet = false;   // nothing to say: a broken pipe, an interrupted job
};
Failure describe(const std::exception_ptr& exception);

// "crumb: error: ..." and "hint: ..." to stderr, and with `json` an object to stdout.
void report(const Failure& failure, bool json);

}  // namespace crumb::apps
