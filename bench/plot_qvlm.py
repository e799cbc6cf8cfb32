#!/usr/bin/env python3
"""plot_qvlm.py CLIPS.json -o PLOT.png: what `crumb search qvlm --pairs` found.

Left: entropy of every linear's input along the model, blocks of the partition shaded. Right: the dependency of
neighbours against the entropy between them. Needs matplotlib.
"""
import argparse
import json
import sys


def blocks(partition):
    """(first, last) of the blocks of two or more."""
    found, at = [], 0
    for length in partition:
        if length > 1:
            found.append((at, at + length - 1))
        at += length
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips")
    parser.add_argument("-o", "--output", required=True)
    given = parser.parse_args()
    with open(given.clips, encoding="utf-8") as file:
        found = json.load(file)
    if "pairs" not in found:
        sys.exit(f"plot_qvlm: no pairs in {given.clips}: crumb search qvlm --pairs measures them")
    try:
        import matplotlib
    except ImportError:
        sys.exit("plot_qvlm: needs matplotlib (pip install matplotlib)")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    figure, (along, against) = plt.subplots(1, 2, figsize=(13, 4), width_ratios=(2, 1))
    for first, last in blocks(found["partition"]):
        along.axvspan(first - 0.4, last + 0.4, color="0.9")
    along.plot([site["entropy"] for site in found["sites"]], ".-", linewidth=0.7)
    along.set(xlabel="linear", ylabel="entropy of its input", title="blocks of the partition")
    kinds = sorted({site["name"].split(".", 1)[1] for site in found["sites"]})
    for kind in kinds:
        pairs = [p for p in found["pairs"] if found["sites"][p["site"]]["name"].endswith("." + kind)]
        against.scatter([p["entropy"] for p in pairs], [p["dependency"] for p in pairs], s=9, label=kind + " and the next")
    against.set(xlabel="entropy between them", ylabel="dependency",
                title=f"R2 {found['r2']['entropy']:.3f}; with the error {found['r2']['error']:.3f}")
    against.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(given.output, dpi=110)


if __name__ == "__main__":
    main()
