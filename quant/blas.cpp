#include "quant/blas.h"

#include <dlfcn.h>

#include <cstdlib>
#include <optional>
#include <string_view>

#include "kernels/backend.h"
#include "models/errors.h"

namespace crumb::quant {
namespace {

constexpr const char* kLibrary = "libopenblas.so.0";
constexpr const char* kHint = "apt-get install libopenblas0-pthread";
constexpr int kPthreads = 1;  // of openblas_get_parallel(): 0 is serial, 2 is OpenMP

// A variable of the environment for the life of the object, unless it is set.
class Variable {
 public:
  Variable(const char* name, std::string_view value) : name_(name) {
    mine_ = !value.empty() && std::getenv(name) == nullptr;
    if (mine_) setenv(name, std::string(value).c_str(), 1);
  }
  ~Variable() {
    if (mine_) unsetenv(name_);
  }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  const char* name_;
  bool mine_ = false;
};

// OpenBLAS 0.3.21 knows processors by model number and takes SSE3 kernels, four times slower, for
// those that are younger than it. The class is named here instead; every processor of a class then
// sums in the same order, too.
std::string_view core_type() {
  struct Class {
    std::string_view backend, core;
  };
  constexpr Class kClasses[] = {{"avx512vnni", "SkylakeX"}, {"avx2", "Haswell"}};
  for (const Class& one : kClasses)
    if (kernels::find_backend(one.backend) != nullptr) return one.core;
  return {};
}

struct Library {
  decltype(&cblas_sgemm) sgemm = nullptr;
  decltype(&cblas_dgemm) dgemm = nullptr;
  decltype(&cblas_dtrsm) dtrsm = nullptr;
  std::string description;
};

[[noreturn]] void refuse(const std::string& expected, const std::string& found) {
  throw IoError(std::string("OpenBLAS cannot be used (") + kLibrary + ": expected " + expected +
                    ", found " + found + ")",
                kHint);
}

template <class Function>
Function* symbol(void* library, const char* name) {
  void* found = dlsym(library, name);
  if (found == nullptr) refuse(std::string("the function ") + name, "none");
  return reinterpret_cast<Function*>(found);
}

Library open() {
  const Variable one_thread("OPENBLAS_NUM_THREADS", "1");
  const Variable core("OPENBLAS_CORETYPE", core_type());
  void* handle = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) refuse("a library", dlerror());
  if (symbol<int()>(handle, "openblas_get_parallel")() != kPthreads)
    refuse("the pthread build", "another one");
  symbol<void(int)>(handle, "openblas_set_num_threads")(1);
  Library library;
  library.sgemm = symbol<decltype(cblas_sgemm)>(handle, "cblas_sgemm");
  library.dgemm = symbol<decltype(cblas_dgemm)>(handle, "cblas_dgemm");
  library.dtrsm = symbol<decltype(cblas_dtrsm)>(handle, "cblas_dtrsm");
  library.description = std::string(symbol<char*()>(handle, "openblas_get_config")()) + " " +
                        symbol<char*()>(handle, "openblas_get_corename")();
  return library;
}

const Library& library() {
  static const Library loaded = open();
  return loaded;
}

}  // namespace

void load_blas() { library(); }
std::string blas_description() { return library().description; }

void cblas_sgemm(CBLAS_ORDER order, CBLAS_TRANSPOSE a_op, CBLAS_TRANSPOSE b_op, blasint m,
                 blasint n, blasint k, float alpha, const float* a, blasint lda, const float* b,
                 blasint ldb, float beta, float* c, blasint ldc) {
  library().sgemm(order, a_op, b_op, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
void cblas_dgemm(CBLAS_ORDER order, CBLAS_TRANSPOSE a_op, CBLAS_TRANSPOSE b_op, blasint m,
                 blasint n, blasint k, double alpha, const double* a, blasint lda, const double* b,
                 blasint ldb, double beta, double* c, blasint ldc) {
  library().dgemm(order, a_op, b_op, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
void cblas_dtrsm(CBLAS_ORDER order, CBLAS_SIDE side, CBLAS_UPLO uplo, CBLAS_TRANSPOSE op,
                 CBLAS_DIAG diagonal, blasint m, blasint n, double alpha, const double* a,
                 blasint lda, double* b, blasint ldb) {
  library().dtrsm(order, side, uplo, op, diagonal, m, n, alpha, a, lda, b, ldb);
}

}  // namespace crumb::quant
