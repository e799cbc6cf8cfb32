// The three functions of CBLAS that the quantizer uses, out of an OpenBLAS that is loaded when
// quantization needs it and not when the program starts (docs/decisions/0008): its constructor
// would start threads and choose kernels without asking. Declared as <cblas.h> does, which is not
// needed.
//
// OpenBLAS runs on one thread, the caller's; calls from several threads at once are safe. Results
// are bit-equal for equal arguments on processors of one class (AVX-512, AVX2, others).
#pragma once
#include <string>

namespace crumb::quant {

using blasint = int;
enum CBLAS_ORDER { CblasRowMajor = 101 };
enum CBLAS_TRANSPOSE { CblasNoTrans = 111, CblasTrans = 112 };
enum CBLAS_UPLO { CblasUpper = 121, CblasLower = 122 };
enum CBLAS_DIAG { CblasNonUnit = 131, CblasUnit = 132 };
enum CBLAS_SIDE { CblasLeft = 141, CblasRight = 142 };

// Loads the library unless it is loaded. Sets variables of the environment for the time of the
// loading, so call it before other threads start. Throws IoError naming the library if it cannot
// be loaded, or is the serial build, which must not be called by two threads at once.
void load_blas();
// "OpenBLAS 0.3.21 ... SkylakeX": what was loaded, and the kernels it uses.
std::string blas_description();

// C = alpha op(A) op(B) + beta C. load_blas() first.
void cblas_sgemm(CBLAS_ORDER order, CBLAS_TRANSPOSE a_op, CBLAS_TRANSPOSE b_op, blasint m,
                 blasint n, blasint k, float alpha, const float* a, blasint lda, const float* b,
                 blasint ldb, float beta, float* c, blasint ldc);
void cblas_dgemm(CBLAS_ORDER order, CBLAS_TRANSPOSE a_op, CBLAS_TRANSPOSE b_op, blasint m,
                 blasint n, blasint k, double alpha, const double* a, blasint lda, const double* b,
                 blasint ldb, double beta, double* c, blasint ldc);
// Solves op(A) X = alpha B or X op(A) = alpha B for X, which replaces B.
void cblas_dtrsm(CBLAS_ORDER order, CBLAS_SIDE side, CBLAS_UPLO uplo, CBLAS_TRANSPOSE op,
                 CBLAS_DIAG diagonal, blasint m, blasint n, double alpha, const double* a,
                 blasint lda, double* b, blasint ldb);

}  // namespace crumb::quant
