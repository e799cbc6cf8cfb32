#!/usr/bin/env python3
"""Results of run.py in short: a line a method with 4, 3 and 2 bits side by side, then presets and llama.cpp's types.

    compact.py results.json [more.json ..]
"""
import sys

from run import load

WIDTHS = (4, 3, 2)
METHODS = [
    ("RTN, g64 asym", "rtn{}-g64-asym-plain"), ("GPTQ, g64 asym", "gptq{}-g64"),
    ("GPTQ, weighted scales", "gptq{}-g64-weighted"), ("AWQ, g64 asym", "awq{}-g64"),
    ("SINQ, g64 asym", "sinq{}-g64"), ("A-SINQ, g64 asym", "asinq{}-g64"), ("rotated RTN, g64 seq", "rtn{}-g64-seq"),
    ("Hadamard + LDLQ, g64 seq", "ldlq{}-g64"), ("RTN, row asym", "rtn{}-row-asym-plain"),
    ("RTN, weighted scales", "rtn{}-row-asym-weighted"),
    ("GPTQ, row asym", "gptq{}-row-asym"), ("FlexRound, row asym", "flexround{}-row-asym-plain"),
    ("LRQ, row asym", "lrq{}-row-asym-plain"), ("FlexRound, weighted start", "flexround{}-row-asym"),
    ("LRQ, weighted start", "lrq{}-row-asym"),
    ("rotated RTN, row seq", "rtn{}-row"), ("Hadamard + LDLQ, row seq", "ldlq{}-row"),
    ("the same, inputs of the source", "ldlq{}-row-full"), ("QuIP as published, the same inputs", "quip{}"),
    ("Block-AP after LDLQ, row seq", "ldlq{}-row-block-ap"),
    ("the same, half of the loss made up for", "ldlq{}-row-block-ap-half"), ("BAQ, bands, row seq", "baq{}")]
HEAD = ["method", "linear bpw", "KLD", "of its control", "top-1 %", "ppl ratio", "s", "peak MB"]
OTHERS = ["preset or llama.cpp type", "linear bpw", "head bits", "KLD", "± s.e.", "top-1 %", "ppl ratio", "s", "peak MB"]


def line(cells):
    return "| " + " | ".join(cells) + " |"


def header(names):
    return [line(names), "|" + " --- |" * len(names)]


def ratio(value):
    return f"{value:.3f}" if value < 10 else f"{value:.0f}"


def method_line(title, runs, last):
    def each(text):
        return " / ".join("-" if run is None else text(run) for run in runs)

    def to_control(run):
        control = last.get(run["control"])
        return f"{run['mean_kld'] / control['mean_kld']:.2f}" if control else "-"

    has_control = any(run and run["control"] for run in runs)
    return line([title, each(lambda r: f"{r['linear_bpw']:.2f}"), each(lambda r: f"{r['mean_kld']:.3f}"),
                 each(to_control) if has_control else "", each(lambda r: f"{100 * r['top1']:.1f}"),
                 each(lambda r: ratio(r["ppl_ratio"])), each(lambda r: f"{r['seconds']:.0f}"),
                 f"{max(r['peak_rss_bytes'] for r in runs if r) / 1e6:.0f}"])


def other_line(run):
    return line([run["name"], f"{run['linear_bpw']:.3f}", f"{run['head_bits']:.2f}", f"{run['mean_kld']:.4f}",
                 f"{run['stderr_kld']:.4f}", f"{100 * run['top1']:.1f}", ratio(run["ppl_ratio"]), f"{run['seconds']:.0f}",
                 f"{run['peak_rss_bytes'] / 1e6:.0f}"])


def main():
    models = {}
    for path in sys.argv[1:]:
        for run in load(path)["runs"]:
            models.setdefault(run["circumstances"]["model"], {})[run["name"]] = run
    for model, last in models.items():
        lines = []
        for title, name in METHODS:
            runs = [last.get(name.format(bits)) for bits in WIDTHS]
            if any(runs):
                lines.append(method_line(title, runs, last))
        windows = sorted({run["circumstances"]["windows"] for run in last.values()})
        print(f"{model}, {' or '.join(map(str, windows))} windows, 4 / 3 / 2 bits\n")
        if lines:
            print("\n".join(header(HEAD) + lines) + "\n")
        others = [run for name, run in last.items() if name.startswith(("preset-", "llama-"))]
        if others:
            print("\n".join(header(OTHERS) + [other_line(run) for run in others]) + "\n")


if __name__ == "__main__":
    main()
