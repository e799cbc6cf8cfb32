#!/usr/bin/env python3
"""Makes gguf_blocks.bin: random GGUF blocks of every type and what the `gguf` package decodes them to.

Records, little-endian: u32 type, u32 bytes, u32 values, the bytes, the values as float32.
Usage: make_gguf_blocks.py gguf_blocks.bin   (needs gguf and numpy; written with gguf 0.19.0)
"""
import struct
import sys

import gguf
import numpy as np

# Offsets of the binary16 numbers in a block: random bits there would often be NaN.
HALF_OFFSETS = {
    "F16": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "F32": [], "BF16": [],
    "IQ4_NL": [0],
}
# Zero, smallest and largest subnormal, smallest normal, one, largest, and their negatives.
EXTREME = [0x0000, 0x0001, 0x03FF, 0x0400, 0x3C00, 0x7BFF, 0x8000, 0x8001, 0x83FF, 0x8400, 0xBC00, 0xFBFF]


def main():
    rng = np.random.default_rng(7)
    out = bytearray()
    for name, halves in HALF_OFFSETS.items():
        kind = gguf.GGMLQuantizationType[name]
        values, size = gguf.GGML_QUANT_SIZES[kind]
        count = {256: 5, 32: 14, 1: 64}[values]
        blocks = rng.integers(0, 256, (count, size), dtype=np.uint8)
        if name == "F32":
            blocks = rng.standard_normal(count).astype("<f4").view(np.uint8).reshape(count, 4)
        if name == "BF16":
            blocks[:, 1] &= 0xBF  # never the exponent of NaN
        for i in range(count):
            for j, offset in enumerate(halves):
                half = int(rng.integers(0, 0x7C00)) | int(rng.integers(0, 2)) << 15
                if i < len(EXTREME):
                    half = EXTREME[(i + 5 * j) % len(EXTREME)]
                blocks[i, offset:offset + 2] = [half & 255, half >> 8]
        data = np.ascontiguousarray(blocks).reshape(1, -1)
        if name == "F32":
            decoded = data.view("<f4")
        elif name == "F16":
            decoded = data.view("<f2").astype("<f4")
        else:
            decoded = gguf.quants.dequantize(data, kind)
        decoded = np.ascontiguousarray(decoded, dtype="<f4").reshape(-1)
        assert decoded.size == count * values and np.isfinite(decoded).all()
        out += struct.pack("<III", int(kind), blocks.size, decoded.size) + data.tobytes() + decoded.tobytes()
    with open(sys.argv[1], "wb") as file:
        file.write(out)


main()
