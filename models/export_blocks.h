// Packed matrices as GGUF blocks of the same values, so that other programs run the same weights.
//
// A weight of a packed matrix is u * n: a unit u = scale / 2 and an integer n = 2 code - zero2. If
// all n of the grid are even, u is the scale and n is halved. A block type holds it exactly if it
// has a binary16 for u and a place for every n of the grid:
//   Q4_0 [-8, 7], Q5_0 [-16, 15], Q8_0 [-128, 127]   w = d n, blocks of 32
//   Q2_K  2-bit codes with one scale a row            w = (d 2) code - (dmin m), d = dmin = scale /
//   2
#pragma once
#include <cstdint>
#include <span>

#include "kernels/layout.h"
#include "models/gguf_blocks.h"

namespace crumb::models {

struct MatrixView;

// The smallest of the types above that holds every value of the matrix exactly; nullptr if there is
// none: a float or rotated matrix, a row that is not whole blocks, a grid with more values, or a
// scale whose half is no binary16.
const BlockType* exact_block_type(const MatrixView& matrix);

// Whether Q4_1 (w = d q + m) holds the matrix if every m may be rounded to binary16: codes of at
// most 4 bits, not rotated, rows of whole blocks.
bool fits_q4_1(const MatrixView& matrix);

// Row n of the matrix in blocks of `type`, which one of the functions above has named. `out` has
// K / type.values * type.bytes bytes.
void write_block_row(const MatrixView& matrix, int64_t n, const BlockType& type,
                     std::span<uint8_t> out);

}  // namespace crumb::models
