#include "quant/train/cuda/gemm.h"

#include <algorithm>
#include <array>
#include <map>
#include <string>
#include <vector>

#include "models/errors.h"

namespace crumb::quant::train::cuda {
namespace {

constexpr std::size_t kWorkspace = std::size_t{64} << 20;
constexpr int kTimedRuns = 5;

void require(cublasStatus_t status, const char* call) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw Error(ExitCode::kInternal, std::string("cuBLASLt failed (") + call + ": status " +
                                         std::to_string(static_cast<int>(status)) + ")");
}

// As cuBLASLt sees it, column-major: D [m, n] = op(A) op(B) + beta C.
struct Problem {
  int64_t m, n, k;
  bool transpose_a, transpose_b, float_out, add;
  int64_t batch = 1;
  float alpha = 1, beta = 1;  // beta only if `add`
  auto operator<=>(const Problem&) const = default;
};

struct Layout {
  cublasLtMatrixLayout_t handle = nullptr;
  Layout(cudaDataType type, int64_t rows, int64_t cols, int64_t batch) {
    require(cublasLtMatrixLayoutCreate(&handle, type, static_cast<uint64_t>(rows),
                                       static_cast<uint64_t>(cols), rows),
            "cublasLtMatrixLayoutCreate");
    if (batch == 1) return;
    const auto count = static_cast<int32_t>(batch);
    const int64_t stride = rows * cols;
    require(cublasLtMatrixLayoutSetAttribute(handle, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count,
                                             sizeof count),
            "cublasLtMatrixLayoutSetAttribute");
    require(cublasLtMatrixLayoutSetAttribute(handle, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                             &stride, sizeof stride),
            "cublasLtMatrixLayoutSetAttribute");
  }
  ~Layout() { static_cast<void>(cublasLtMatrixLayoutDestroy(handle)); }
  Layout(const Layout&) = delete;
  Layout& operator=(const Layout&) = delete;
};

struct Plan {
  cublasLtMatmulDesc_t operation = nullptr;
  Layout a, b, d;
  cublasLtMatmulAlgo_t algorithm{};

  explicit Plan(const Problem& p)
      : a(CUDA_R_16BF, p.transpose_a ? p.k : p.m, p.transpose_a ? p.m : p.k, p.batch),
        b(CUDA_R_16BF, p.transpose_b ? p.n : p.k, p.transpose_b ? p.k : p.n, p.batch),
        d(p.float_out ? CUDA_R_32F : CUDA_R_16BF, p.m, p.n, p.batch) {
    require(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F),
            "cublasLtMatmulDescCreate");
    const auto set = [&](cublasLtMatmulDescAttributes_t name, bool transpose) {
      const cublasOperation_t value = transpose ? CUBLAS_OP_T : CUBLAS_OP_N;
      require(cublasLtMatmulDescSetAttribute(operation, name, &value, sizeof value),
              "cublasLtMatmulDescSetAttribute");
    };
    set(CUBLASLT_MATMUL_DESC_TRANSA, p.transpose_a);
    set(CUBLASLT_MATMUL_DESC_TRANSB, p.transpose_b);
  }
  ~Plan() { static_cast<void>(cublasLtMatmulDescDestroy(operation)); }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
};

struct Operands {
  const void *a, *b, *c;
  void* d;
};

}  // namespace

struct Gemm::State {
  cudaStream_t stream;
  int tune;
  cublasLtHandle_t handle = nullptr;
  DeviceArray<uint8_t> workspace{static_cast<int64_t>(kWorkspace)};
  std::map<Problem, std::unique_ptr<Plan>> plans;

  cublasStatus_t launch(const Plan& plan, const cublasLtMatmulAlgo_t& algorithm,
                        const Problem& problem, const Operands& x) {
    const float beta = problem.add ? problem.beta : 0.0f;
    return cublasLtMatmul(handle, plan.operation, &problem.alpha, x.a, plan.a.handle, x.b,
                          plan.b.handle, &beta, x.c, plan.d.handle, x.d, plan.d.handle, &algorithm,
                          workspace.data(), kWorkspace, stream);
  }
  float milliseconds(const Plan& plan, const cublasLtMatmulAlgo_t& algorithm,
                     const Problem& problem, const Operands& x);
  void choose(Plan& plan, const Problem& problem, const Operands& x);
  void run(const Problem& problem, const Operands& x);
};

float Gemm::State::milliseconds(const Plan& plan, const cublasLtMatmulAlgo_t& algorithm,
                                const Problem& problem, const Operands& x) {
  cudaEvent_t begin{}, end{};
  cuda::require(cudaEventCreate(&begin), "cudaEventCreate");
  cuda::require(cudaEventCreate(&end), "cudaEventCreate");
  float time = 1e30f;
  if (launch(plan, algorithm, problem, x) == CUBLAS_STATUS_SUCCESS) {
    static_cast<void>(cudaEventRecord(begin, stream));
    for (int i = 0; i < kTimedRuns; ++i) static_cast<void>(launch(plan, algorithm, problem, x));
    static_cast<void>(cudaEventRecord(end, stream));
    cuda::require(cudaEventSynchronize(end), "cudaEventSynchronize");
    static_cast<void>(cudaEventElapsedTime(&time, begin, end));
  }
  static_cast<void>(cudaEventDestroy(begin));
  static_cast<void>(cudaEventDestroy(end));
  return time;
}

void Gemm::State::choose(Plan& plan, const Problem& problem, const Operands& x) {
  constexpr int kMost = 16;
  std::array<cublasLtMatmulHeuristicResult_t, kMost> found{};
  int count = 0;
  cublasLtMatmulPreference_t preference = nullptr;
  require(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
  static_cast<void>(cublasLtMatmulPreferenceSetAttribute(
      preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kWorkspace, sizeof kWorkspace));
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      handle, plan.operation, plan.a.handle, plan.b.handle, plan.d.handle, plan.d.handle,
      preference, std::clamp(tune, 1, kMost), found.data(), &count);
  static_cast<void>(cublasLtMatmulPreferenceDestroy(preference));
  require(status, "cublasLtMatmulAlgoGetHeuristic");
  if (count == 0)
    throw Error(ExitCode::kInternal,
                "cuBLASLt has no algorithm for a product (" + std::to_string(problem.m) + " x " +
                    std::to_string(problem.n) + " x " + std::to_string(problem.k) + ")");
  plan.algorithm = found[0].algo;
  // A product that adds to its own result must not be repeated for a measurement.
  if (tune < 2 || (problem.add && x.c == x.d)) return;
  float best = 1e30f;
  for (int i = 0; i < count; ++i) {
    const float time = milliseconds(plan, found[static_cast<std::size_t>(i)].algo, problem, x);
    if (time >= best) continue;
    best = time;
    plan.algorithm = found[static_cast<std::size_t>(i)].algo;
  }
}

void Gemm::State::run(const Problem& problem, const Operands& x) {
  std::unique_ptr<Plan>& plan = plans[problem];
  if (!plan) {
    plan = std::make_unique<Plan>(problem);
    choose(*plan, problem, x);
  }
  require(launch(*plan, plan->algorithm, problem, x), "cublasLtMatmul");
}

Gemm::Gemm(cudaStream_t stream, int tune) : state_(std::make_unique<State>()) {
  state_->stream = stream;
  state_->tune = tune;
  require(cublasLtCreate(&state_->handle), "cublasLtCreate");
}
Gemm::~Gemm() { static_cast<void>(cublasLtDestroy(state_->handle)); }

// Row-major Y = X W^T is column-major Y^T = W X^T, with W and X read as their transposes.
void Gemm::forward(const bf16* x, const bf16* w, int64_t T, int64_t N, int64_t K, bf16* y) {
  state_->run({N, T, K, true, false, false, false}, {w, x, y, y});
}
void Gemm::forward(const bf16* x, const bf16* w, int64_t T, int64_t N, int64_t K, float* y) {
  state_->run({N, T, K, true, false, true, false}, {w, x, y, y});
}
void Gemm::forward_add(const bf16* x, const bf16* w, int64_t T, int64_t N, int64_t K,
                       const float* residual, float* y) {
  state_->run({N, T, K, true, false, true, true}, {w, x, residual, y});
}
void Gemm::backward_input(const bf16* dy, const bf16* w, int64_t T, int64_t N, int64_t K,
                          bf16* dx) {
  state_->run({K, T, N, false, false, false, false}, {w, dy, dx, dx});
}
void Gemm::backward_weight(const bf16* dy, const bf16* x, int64_t T, int64_t N, int64_t K, bool add,
                           float* dw) {
  state_->run({K, N, T, false, true, true, add}, {x, dy, dw, dw});
}
void Gemm::batched(const BatchedProduct& p, const bf16* x, const bf16* w, const bf16* c, bf16* y) {
  state_->run({p.cols, p.rows, p.inner, p.transposed == Transposed::kW,
               p.transposed == Transposed::kX, false, p.beta != 0, p.batch, p.alpha, p.beta},
              {w, x, p.beta != 0 ? c : y, y});
}

}  // namespace crumb::quant::train::cuda
