#!/usr/bin/env python3
"""plot_plan.py MODEL.crumb .. -o PLAN.png: bits of every matrix, layer by layer, as crumb inspect --json tells them.

One panel a file: rows are the kinds of matrices, columns the layers. Needs matplotlib.
"""
import argparse
import json
import os
import subprocess
import sys


def plan_of(inspected):
    """{kind: [bits by layer]} of the blocks' matrices, in the order of the model."""
    kinds = {}
    for tensor in inspected["tensors"]:
        if tensor["name"].startswith("model.layers.") and tensor["grid"] != "none":
            kinds.setdefault(tensor["name"].rsplit(".", 1)[1], []).append(tensor["bits"])
    return kinds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--crumb", default=os.path.join(os.path.dirname(__file__), "../build/release/crumb"))
    parser.add_argument("-o", "--output", required=True)
    given = parser.parse_args()
    try:
        import matplotlib
    except ImportError:
        sys.exit("plot_plan: needs matplotlib (pip install matplotlib)")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(len(given.models), 1, figsize=(10, 2.2 * len(given.models)), squeeze=False)
    for axis, path in zip(axes[:, 0], given.models):
        found = json.loads(subprocess.run([given.crumb, "inspect", path, "--json"], capture_output=True, check=True).stdout)
        kinds = plan_of(found)
        image = axis.imshow(list(kinds.values()), vmin=2, vmax=8, cmap="viridis", aspect="auto")
        axis.set_yticks(range(len(kinds)), list(kinds))
        axis.set(title=f"{os.path.basename(path)}: {found['linear_bpw']:.3f} bits a weight", xlabel="layer")
        figure.colorbar(image, ax=axis, label="bits")
    figure.tight_layout()
    figure.savefig(given.output, dpi=110)


if __name__ == "__main__":
    main()
