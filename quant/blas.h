// OpenBLAS as a setting of the process.
#pragma once

namespace crumb::quant {

// One thread, because it splits sums differently for different numbers of threads and callers
// divide the work themselves; and the kernels this CPU can run. OpenBLAS knows processors by their
// model number and takes a new one for a Pentium 4: 0.3.21 runs SSE3 kernels on an Emerald Rapids,
// five times slower than its own AVX-512 ones. Where it fell back to those, it is told once to use
// the kernels for the CPU's features; OPENBLAS_CORETYPE, if set, stands.
// To be called before threads that use OpenBLAS are started.
void prepare_blas();

}  // namespace crumb::quant
