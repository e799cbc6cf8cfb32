#!/usr/bin/env python3
"""Draws results of bench/compare/paired.py -o (crumb.paired/2) and `crumb bench -o json` as PNG files.

usage: plot.py [--kind bits|roofline|size|context|all] -o DIR FILE...

bits      decode speed against linear bits per weight
roofline  decode speed against bytes read per token, with the measured bandwidth
size      time per token against file size and parameters, of models of one format
context   time per token against tokens in the cache, with a straight line fitted

A kind for which the files lack the data is skipped, and said so. Needs matplotlib.
"""
import argparse
import json
import os
import statistics
import sys

try:
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
except ImportError:
    print("plot.py: error: needs the Python package matplotlib (pip install matplotlib)", file=sys.stderr)
    sys.exit(2)

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555"]  # Okabe and Ito
MARKERS, LINES = "os^Dvp", ["-", "--", ":", "-."]


def fail(text):
    print(f"plot.py: error: {text}", file=sys.stderr)
    sys.exit(2)


# --- Reading: a point is one program, model, thread count and depth with the speeds measured of it.

def points_of_paired(data):
    points = {}
    for s in data["samples"]:
        p = data["programs"][s["program"]]
        point = points.setdefault((s["program"], s["threads"], s["depth"]), {
            "program": p["name"], "extra": p["extra"], "isa": p["isa"], "model": p["model"], "cpu": data["cpu"],
            "threads": s["threads"], "depth": s["depth"], "bpw": p["linear_bpw"], "head": p["head_bits"],
            "per_token": p["bytes_per_token"], "params": p["n_params"], "bytes": p["model_bytes"], "tg": [], "bw": []})
        point["tg"] += [s["tg"]] if s["tg"] else []
        point["bw"] += [s["mem_bw_gbps"]] if s["mem_bw_gbps"] else []
    return list(points.values())


def points_of_bench(rows):
    return [{"program": "crumb", "extra": "", "isa": r["isa"], "model": os.path.basename(r["model_filename"]),
             "cpu": r["cpu_info"], "threads": r["n_threads"], "depth": r["n_depth"], "bpw": r["linear_bpw"],
             "head": r["head_bits"], "per_token": r["bytes_per_token"], "params": r["model_n_params"],
             "bytes": r["model_size"], "tg": r["samples_ts"], "bw": [r["mem_bw_gbps"]]}
            for r in rows if r["n_gen"] and not r["n_prompt"]]


def read(path):
    try:
        with open(path, encoding="utf-8") as f:
            data = json.load(f)
        if isinstance(data, dict) and data.get("schema") == "crumb.paired/2":
            return points_of_paired(data)
        if isinstance(data, list) and data and all(row.get("schema") == "crumb.bench/1" for row in data):
            return points_of_bench(data)
    except OSError as error:
        fail(f"cannot read ({path}: {error.strerror})")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        fail(f"not a result that can be drawn ({path}: {error!r})")
    fail(f"not a result that can be drawn ({path}: expected crumb.paired/2 or rows of crumb.bench/1)")


def points_of(paths):
    points = [p for path in paths for p in read(path) if p["tg"]]
    if not points:
        fail("no decode speed in these files (measure with -n)")
    machines = sorted({p["cpu"] for p in points})
    if len(machines) > 1:
        fail(f"results of different machines ({'; '.join(machines)}): draw one machine at a time")
    sets = {p["isa"] for p in points if p["isa"]}
    for p in points:
        p["who"] = " ".join([p["program"]] + ([p["extra"]] if p["extra"] else [])
                            + ([p["isa"]] if p["isa"] and len(sets) > 1 else []))
        p["rate"] = statistics.median(p["tg"])
    return points


# --- Drawing

def axes(points, columns=1):
    figure, grid = plt.subplots(1, columns, figsize=(7.5 if columns == 1 else 11, 5), dpi=130, squeeze=False)
    names = sorted({p["who"] for p in points}, key=lambda n: (not n.startswith("crumb"), n))
    for i, name in enumerate(names):
        for p in points:
            if p["who"] == name:
                p["colour"] = COLOURS[i % len(COLOURS)]
    for axis in grid[0]:
        axis.grid(True, color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, grid[0]


def finish(figure, axis, points, folder, name, title):
    """Legend beside the last panel: programs by colour, threads by marker, then the labelled lines. Title, machine."""
    handles = [(Patch(color=colour), who) for who, colour in sorted({(p["who"], p["colour"]) for p in points})]
    handles += [(Line2D([], [], color="#444444", marker=MARKERS[i % len(MARKERS)], linestyle=""), threads_text(n))
                for i, n in enumerate(counts(points))]
    handles += [(h, label) for h, label in zip(*axis.get_legend_handles_labels())]
    axis.legend(*zip(*handles), frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
    figure.suptitle(title, fontsize=11)
    figure.text(0.01, -0.03, f"{points[0]['cpu']}; medians, bars: min..max", fontsize=7, color="#666666")
    path = os.path.join(folder, name + ".png")
    try:
        figure.savefig(path, bbox_inches="tight")
    except OSError as error:
        fail(f"cannot write ({path}: {error.strerror})")
    plt.close(figure)
    print(path)


def powers_of_ten(axis):
    """Both axes logarithmic, with plain numbers at 1, 2 and 5."""
    axis.set(xscale="log", yscale="log")
    axis.margins(0.12)
    for a in (axis.xaxis, axis.yaxis):
        a.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
        a.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:g}"))
        a.set_minor_formatter(matplotlib.ticker.NullFormatter())


def shallow(points):
    """The points of the smallest depth: the figures that are not about depth show nothing else."""
    low = min(p["depth"] for p in points)
    return [p for p in points if p["depth"] == low], f" at depth {low}" if low else ""


def counts(points):
    return sorted({p["threads"] for p in points})


def threads_text(n):
    return f"{n} thread" + ("s" if n > 1 else "")


def mark(axis, p, x, y, spread, threads):
    """One point with its spread."""
    axis.errorbar([x], [y], yerr=[[y - min(spread)], [max(spread) - y]], color=p["colour"], markersize=5.5,
                  fmt=MARKERS[threads.index(p["threads"]) % len(MARKERS)], capsize=2.5, elinewidth=1)


def name_points(axis, named):
    """A name (x, y, text, colour) beside each point: left of points far to the right, moved up or down until it
    covers no other name and stays inside."""
    axis.figure.canvas.draw()
    box, taken = axis.get_window_extent(), []
    line = 8.5 * axis.figure.dpi / 72
    for x, y, text, colour in sorted(named, key=lambda n: n[1]):
        px, py = axis.transData.transform((x, y))
        side = -1 if px > box.x0 + 0.65 * box.width else 1
        ends = sorted((px, px + side * 0.6 * line * len(text)))
        tries = [py + sign * i * line / 4 for i in range(200) for sign in (1, -1)]
        at = next((t for t in tries if box.y0 + line / 2 < t < box.y1
                   and not any(abs(t - o) < line and ends[0] < b and a < ends[1] for a, b, o in taken)), py)
        taken.append((*ends, at))
        axis.annotate(text, (x, y), xytext=(side * 8, at - py), textcoords="offset pixels", va="center",
                      ha="left" if side > 0 else "right", fontsize=6.5, color=colour)


def named_once(points, x, y, text):
    """What name_points() takes: one name for each program and model, at its most threads."""
    last = {(p["who"], p["model"]): p for p in sorted(points, key=lambda p: p["threads"])}
    return [(x(p), y(p), text(p), p["colour"]) for p in last.values()]


def bits(points, folder):
    points, depth = shallow([p for p in points if p["bpw"]] or [{"depth": 0, "bpw": None}])
    if not points[0]["bpw"]:
        return "no linear bits per weight"
    figure, (axis,) = axes(points)
    threads = counts(points)
    for p in points:
        mark(axis, p, p["bpw"], p["rate"], p["tg"], threads)
    axis.set(xlabel="linear bits per weight (scales included)", ylabel="decode, tokens/s")
    axis.set_ylim(0, 1.08 * max(max(p["tg"]) for p in points))
    axis.set_xlim(0, 1.1 * max(p["bpw"] for p in points))
    name_points(axis, named_once(points, lambda p: p["bpw"], lambda p: p["rate"],
                                 lambda p: f"{p['model']}, {p['head']:.1f}-bit head"))
    return finish(figure, axis, points, folder, "bits", "Decode speed and bits per weight" + depth)


def roofline(points, folder):
    known = [p for p in points if p["per_token"]]
    if not any(p["bw"] for p in known):
        return "no bytes per token with a measured bandwidth"
    points, depth = shallow(known)
    figure, (axis,) = axes(points)
    sizes, threads = [p["per_token"] / 1e6 for p in points], counts(points)
    x = np.geomspace(min(sizes) / 1.5, max(sizes) * 1.8, 50)
    for n in threads:
        bw = [b for p in points if p["threads"] == n for b in p["bw"]]
        if bw:
            middle = statistics.median(bw)
            axis.fill_between(x, min(bw) * 1e3 / x, max(bw) * 1e3 / x, color="#bbbbbb", alpha=0.35, linewidth=0)
            axis.plot(x, middle * 1e3 / x, LINES[threads.index(n) % 4], color="#444444", linewidth=1.2,
                      label=f"read bandwidth {middle:.1f} GB/s, {threads_text(n)}")
    for p, size in zip(points, sizes):
        mark(axis, p, size, p["rate"], p["tg"], threads)
    powers_of_ten(axis)
    axis.set(xlabel="weights read per token, MB", ylabel="decode, tokens/s", xlim=(x[0], x[-1]))
    name_points(axis, named_once(points, lambda p: p["per_token"] / 1e6, lambda p: p["rate"], lambda p: p["model"]))
    return finish(figure, axis, points, folder, "roofline", "Memory roofline of decoding" + depth)


def time_of(p):
    """Milliseconds per token: the median, and all samples."""
    return 1e3 / p["rate"], [1e3 / rate for rate in p["tg"]]


def size(points, folder):
    """Lines join models of one program, thread count and (rounded) format."""
    points, depth = shallow([p for p in points if p["params"]] or [{"depth": 0, "params": None}])
    params = [p["params"] or 0 for p in points]
    if max(params) < 1.1 * min(params) or not max(params):  # programs count one model a little differently
        return "fewer than two model sizes"
    figure, panels = axes(points, 2)
    threads, groups = counts(points), {}
    for p in points:
        groups.setdefault((p["who"], p["threads"], p["bpw"] and round(2 * p["bpw"])), []).append(p)
    for axis, (field, unit) in zip(panels, (("bytes", 1e6), ("params", 1e6))):
        for group in groups.values():
            group.sort(key=lambda p: p[field])
            axis.plot([p[field] / unit for p in group], [time_of(p)[0] for p in group],
                      LINES[threads.index(group[0]["threads"]) % 4], color=group[0]["colour"], linewidth=1)
            for p in group:
                mark(axis, p, p[field] / unit, *time_of(p), threads)
        powers_of_ten(axis)
        axis.set(ylabel="time per token, ms", xlabel="model file, MB" if field == "bytes" else "parameters, millions")
        largest = [g[-1] for g in groups.values()]
        name_points(axis, named_once(largest, lambda p: p[field] / unit, lambda p: time_of(p)[0],
                                     lambda p: f"{p['bpw']:.2f} bpw" if p["bpw"] else p["model"]))
    return finish(figure, panels[1], points, folder, "size", "Time per token and model size" + depth)


def context(points, folder):
    groups = {}
    for p in points:
        groups.setdefault((p["who"], p["model"], p["threads"]), []).append(p)
    groups = {k: sorted(g, key=lambda p: p["depth"]) for k, g in groups.items() if len({p["depth"] for p in g}) > 1}
    if not groups:
        return "fewer than two depths of one program"
    points = [p for g in groups.values() for p in g]
    figure, (axis,) = axes(points)
    threads, models = counts(points), sorted({k[1] for k in groups})
    for (who, model, n), group in groups.items():
        x = np.array([p["depth"] for p in group], dtype=float)
        slope, start = np.polyfit(x, [time_of(p)[0] for p in group], 1)
        for p in group:
            mark(axis, p, p["depth"], *time_of(p), threads)
        style = LINES[models.index(model) % 4]
        axis.plot(x, start + slope * x, style, color=group[0]["colour"], linewidth=1,
                  label=f"{who} {model}, {threads_text(n)}: {start:.2f} ms {slope * 1e3:+.2f} ms per 1000 tokens")
    axis.set(xlabel="tokens in the cache before the first generated one", ylabel="time per token, ms")
    axis.set_ylim(0, None)
    return finish(figure, axis, points, folder, "context", "Time per token and context")


KINDS = {"bits": bits, "roofline": roofline, "size": size, "context": context}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.error = fail
    p.add_argument("--kind", choices=[*KINDS, "all"], default="all")
    p.add_argument("-o", required=True, metavar="DIR")
    p.add_argument("files", nargs="+", metavar="FILE")
    a = p.parse_args()
    points = points_of(a.files)
    try:
        os.makedirs(a.o, exist_ok=True)
    except OSError as error:
        fail(f"cannot write ({a.o}: {error.strerror})")
    for kind in KINDS if a.kind == "all" else [a.kind]:
        missing = KINDS[kind](points, a.o)
        if missing:
            print(f"{kind}: skipped, {missing}")


if __name__ == "__main__":
    main()
