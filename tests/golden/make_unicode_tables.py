#!/usr/bin/env python3
"""Writes tokenizer/jinja_unicode_tables.h: what str.upper, lower, title, islower, isupper and
isprintable of Python (the oracle of the templates) know of Unicode. Run from the repository root with
Python 3.11 (Unicode 14)."""
import unicodedata

CODE_POINTS = [i for i in range(0x110000) if not 0xD800 <= i < 0xE000]


def strided(pairs):
    """(code point, delta) -> rows first, last, stride, delta."""
    rows = []
    for point, delta in pairs:
        if rows and rows[-1][3] == delta:
            first, last, stride, _ = rows[-1]
            gap = point - last
            if (first == last and gap in (1, 2)) or (first != last and gap == stride):
                rows[-1] = (first, point, gap, delta)
                continue
        rows.append((point, point, 1, delta))
    return rows


def simple(function):
    pairs = [(i, ord(function(chr(i))) - i) for i in CODE_POINTS if len(function(chr(i))) == 1]
    return strided([(i, delta) for i, delta in pairs if delta != 0])


def special(points, function):
    rows = []
    for i in points:
        text = [ord(c) for c in function(chr(i))]
        rows.append((i, *(text + [0, 0, 0])[:3]))
    return rows


def members(predicate):
    return strided([(i, 0) for i in CODE_POINTS if predicate(chr(i))])


def runs(predicate):
    rows = []
    for i in range(0x110000):
        if predicate(chr(i)):
            if rows and rows[-1][1] == i - 1:
                rows[-1] = (rows[-1][0], i)
            else:
                rows.append((i, i))
    return rows


def emit(out, name, comment, rows, width):
    out.append(f"// {comment}")
    out.append(f"inline constexpr int32_t {name}[][{width}] = {{")
    line = "   "
    for row in rows:
        cell = " {" + ",".join(str(x) for x in row) + "},"
        if len(line) + len(cell) > 100:
            out.append(line)
            line = "   "
        line += cell
    out.append(line)
    out.append("};")


def main():
    out = [
        "// What Python's str methods know of Unicode " + unicodedata.unidata_version
        + "; written by tests/golden/make_unicode_tables.py.",
        "#pragma once",
        "#include <cstdint>",
        "",
        "namespace crumb::tokenizer::jinja {",
        "",
        "// clang-format off",
    ]
    emit(out, "kUpper", "First, last, stride, distance to the upper case.", simple(str.upper), 4)
    emit(out, "kLower", "First, last, stride, distance to the lower case.", simple(str.lower), 4)
    emit(out, "kLowerCased", "First, last, stride, 0: islower().", members(str.islower), 4)
    emit(out, "kUpperCased", "First, last, stride, 0: isupper() or istitle().",
         members(lambda c: c.isupper() or c.istitle()), 4)
    emit(out, "kSpecialUpper", "Code point, then up to three of its upper case.",
         special([i for i in CODE_POINTS if len(chr(i).upper()) > 1], str.upper), 4)
    emit(out, "kSpecialTitle", "Code point, then its title case where that is not the upper case.",
         special([i for i in CODE_POINTS if chr(i).title() != chr(i).upper()], str.title), 4)
    emit(out, "kNotPrintable", "First, last: what repr() escapes.",
         runs(lambda c: not c.isprintable()), 2)
    out += ["// clang-format on", "", "}  // namespace crumb::tokenizer::jinja", ""]
    with open("tokenizer/jinja_unicode_tables.h", "w", encoding="utf-8") as file:
        file.write("\n".join(out))


main()
