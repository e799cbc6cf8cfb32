#!/usr/bin/env python3
"""Writes tests/engine/resized_pixels.h: Pillow's resizing of small computed pictures.

    pip install pillow numpy
    tests/golden/make_resized_pixels.py > tests/engine/resized_pixels.h
"""
import numpy as np
from PIL import Image

FILTERS = (Image.BILINEAR, Image.BICUBIC, Image.LANCZOS)  # in the order of models::ImageFilter
SIZES = ((5, 3, 2, 2), (3, 2, 5, 4), (13, 9, 4, 3), (4, 4, 4, 2), (4, 4, 7, 4))


def some_pixels(width, height):  # as in tests/engine/picture_files.h
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    return (x * 255 // width + y * (31 + 40 * c) + c * 90).astype(np.uint8)


print("// Made by tests/golden/make_resized_pixels.py: some_pixels() resized by Pillow.")
print("#pragma once\n#include <cstdint>\n#include <vector>\n\nnamespace crumb::test {\n")
print("struct Resized {\n  int64_t from_width, from_height, width, height;\n  int filter;")
print("  std::vector<uint8_t> rgb;\n};\n// clang-format off\ninline const Resized kResized[] = {")
for from_width, from_height, width, height in SIZES:
    for index, kind in enumerate(FILTERS):
        out = Image.fromarray(some_pixels(from_width, from_height)).resize((width, height), kind)
        values = np.asarray(out).reshape(-1).tolist()
        print(f"    {{{from_width}, {from_height}, {width}, {height}, {index},\n     {{", end="")
        for i in range(0, len(values), 24):
            print(", ".join(map(str, values[i:i + 24])) + (",\n      " if i + 24 < len(values) else ""), end="")
        print("}},")
print("};\n// clang-format on\n\n}  // namespace crumb::test")
