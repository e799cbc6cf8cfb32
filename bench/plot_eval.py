#!/usr/bin/env python3
"""Draws `crumb eval compare --json` (crumb.eval.compare/1) as PNG files.

usage: plot_eval.py [--kind bits|speed|proxy|perplexity|all] -o DIR FILE

bits   every task's main metric against linear bits per weight, with standard errors and the floor
speed  the same against tokens decoded a second (models evaluated with --efficiency)
proxy  every task's main metric, and the mean share of same choices, against mean KLD, with Spearman's correlation
perplexity  the same against the perplexity of the first text

A kind for which the file lacks the data is skipped, and said so. Needs matplotlib.
"""
import argparse
import copy
import json
import math
import os
import sys

try:
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import matplotlib.ticker
except ImportError:
    print("plot_eval.py: error: needs the Python package matplotlib (pip install matplotlib)", file=sys.stderr)
    sys.exit(2)

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555"]  # Okabe and Ito
NOT_SHARES = ("ppl", "nll")
BITS, BITS_LABEL = (2, 3, 4, 8, 16, 32), "linear bits a weight"
TEXTS = ("wikitext2", "c4")
AGREEMENT = "mean of same choice"


def fail(text):
    print(f"plot_eval.py: error: {text}", file=sys.stderr)
    sys.exit(2)


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
    except (OSError, ValueError) as error:
        fail(f"cannot read {path}: {error}")
    if not isinstance(data, dict) or data.get("schema") != "crumb.eval.compare/1":
        fail(f"{path} is not a crumb.eval.compare/1 file")
    return data


def points(data, task, x_of):
    """(x, value, stderr, model index) of the models that have both."""
    found = []
    for i, model in enumerate(data["models"]):
        x, score = x_of(model), model["tasks"].get(task["name"])
        if x is not None and score is not None and score["value"] is not None:
            scale = 1 if task["metric"] in NOT_SHARES else 100
            found.append((x, scale * score["value"], scale * (score["stderr"] or 0), i))
    return found


def panels(data, tasks, x_of, x_label, title_of, path, log_x=False):
    """A panel a task; returns whether anything was drawn."""
    drawn = [(task, points(data, task, x_of)) for task in tasks]
    drawn = [(task, found) for task, found in drawn if found]
    if not drawn:
        return False
    columns = min(3, len(drawn))
    rows = math.ceil(len(drawn) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4.2 * columns, 3.2 * rows + 0.5), squeeze=False)
    for axis in axes.flat[len(drawn):]:
        axis.set_visible(False)
    for axis, (task, found) in zip(axes.flat, drawn):
        for x, y, error, i in found:
            axis.errorbar(x, y, yerr=error, fmt="o", capsize=2, color=COLOURS[i % len(COLOURS)])
        if task["floor"] is not None:
            axis.axhline(100 * task["floor"], color="0.5", linestyle=":", linewidth=1)
            axis.annotate(f"floor: {task['floor_name']}", (0.02, 100 * task["floor"]), fontsize=7, color="0.4",
                          xycoords=("axes fraction", "data"), va="bottom")
        axis.set_title(title_of(task), fontsize=9)
        axis.set_ylabel(task["metric"] + ("" if task["metric"] in NOT_SHARES else " %"), fontsize=8)
        axis.set_xlabel(x_label, fontsize=8)
        axis.tick_params(labelsize=8)
        if log_x and min(x for x, *_ in found) > 0:
            axis.set_xscale("log")
            axis.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
            if x_label == BITS_LABEL:
                axis.set_xticks(BITS, [str(bits) for bits in BITS])
        values = [y for _, y, *_ in found]
        if min(values) > 0 and max(values) > 20 * min(values):
            axis.set_yscale("log")
    names = [f"{model['label']} ({model['weights']})" for model in data["models"]]
    marks = [plt.Line2D([], [], marker="o", linestyle="", color=COLOURS[i % len(COLOURS)]) for i in range(len(names))]
    figure.legend(marks, names, loc="lower center", ncols=max(1, min(2, len(names))), fontsize=8)
    figure.tight_layout(rect=(0, 0.06 + 0.03 * math.ceil(len(names) / 2) / rows, 1, 1))
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return True


def draw_bits(data, path):
    return panels(data, data["tasks"], lambda m: m["linear_bpw"], BITS_LABEL, lambda t: t["name"], path, True)


def draw_speed(data, path):
    return panels(data, data["tasks"], lambda m: m.get("decode_tokens_per_s"), "tokens decoded a second",
                  lambda t: t["name"], path)


def with_agreement(data):
    """The tasks that are no texts, and one more: the mean over tasks of the share of same choices."""
    for model in data["models"]:
        shares = [task["same_choice"] for task in model["tasks"].values() if task.get("same_choice") is not None]
        if shares:
            model["tasks"][AGREEMENT] = {"value": sum(shares) / len(shares), "stderr": None}
    return [{"name": AGREEMENT, "metric": "same choice", "floor": None, "floor_name": ""},
            *(task for task in data["tasks"] if task["name"] not in TEXTS)]


def draw_against(data, path, wanted):
    ranks = {(r["measure"], r["task"]): r["rho"] for r in data["spearman"]}
    measures = [m for m in wanted if any(key[0] == m for key in ranks)]
    if not measures:
        return False
    measure = measures[0]

    def x_of(model):
        if measure == "mean_kld":
            return model["mean_kld"]
        return model["tasks"].get(measure.split()[0], {}).get("value")

    def title(task):
        rho = ranks.get((measure, task["name"]))
        return task["name"] + (f": Spearman {rho:+.2f}" if rho is not None else "")

    data = copy.deepcopy(data)
    return panels(data, with_agreement(data), x_of, measure, title, path, True)


def draw_proxy(data, path):
    return draw_against(data, path, ["mean_kld"])


def draw_perplexity(data, path):
    return draw_against(data, path, [t + " ppl" for t in TEXTS])


KINDS = {"bits": draw_bits, "speed": draw_speed, "proxy": draw_proxy, "perplexity": draw_perplexity}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=[*KINDS, "all"], default="all")
    parser.add_argument("-o", "--output", required=True, metavar="DIR")
    parser.add_argument("file")
    given = parser.parse_args()
    data = read(given.file)
    os.makedirs(given.output, exist_ok=True)
    stem = os.path.splitext(os.path.basename(given.file))[0]
    drawn = 0
    for kind, draw in KINDS.items():
        if given.kind not in (kind, "all"):
            continue
        path = os.path.join(given.output, f"{stem}-{kind}.png")
        if draw(data, path):
            print(path)
            drawn += 1
        else:
            print(f"plot_eval.py: {kind}: the file lacks the data, skipped", file=sys.stderr)
    return 0 if drawn else 2


if __name__ == "__main__":
    sys.exit(main())
