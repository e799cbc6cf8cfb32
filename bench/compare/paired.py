#!/usr/bin/env python3
"""Decode and prefill speed of crumb against llama.cpp's llama-bench, interleaved in one run.

usage: paired.py --crumb build/release/crumb --model a.crumb --llama-bench PATH --gguf b.gguf
                 [-p 512] [-n 128] [-t 2] [--rounds 7] [-o result.json]

Each round runs both programs once, in alternating order, one repetition each; ratios are taken inside a
round, so that a machine that changes its speed between minutes changes both. Prints medians and spread.
"""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"paired.py: {command[0]} ended with {done.returncode}: {done.stderr[-400:]}")
    return json.loads(done.stdout)


def rates(rows):
    """{"pp512": tokens/s, "tg128": tokens/s} of llama-bench's JSON rows (crumb uses the same fields)."""
    rows = rows["rows"] if isinstance(rows, dict) else rows
    return {("pp%d" % r["n_prompt"] if r["n_prompt"] else "tg%d" % r["n_gen"]): r["avg_ts"] for r in rows}


def cpu_name():
    try:
        with open("/proc/cpuinfo") as f:
            return next(line.split(":")[1].strip() for line in f if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--crumb", required=True)
    p.add_argument("--model", required=True)
    p.add_argument("--llama-bench", required=True)
    p.add_argument("--gguf", required=True)
    p.add_argument("-p", type=int, default=512)
    p.add_argument("-n", type=int, default=128)
    p.add_argument("-t", type=int, default=2)
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("-o", default="")
    a = p.parse_args()
    sizes = ["-p", str(a.p), "-n", str(a.n), "-t", str(a.t), "-r", "1", "-o", "json"]
    ours = [a.crumb, "bench", "-m", a.model] + sizes
    theirs = [a.llama_bench, "-m", a.gguf] + sizes
    run(ours), run(theirs)  # both files into the page cache
    samples = {}
    for i in range(a.rounds):
        pair = {}
        for name, command in (("crumb", ours), ("peer", theirs))[:: 1 if i % 2 == 0 else -1]:
            pair[name] = rates(run(command))
        for test, rate in pair["crumb"].items():
            s = samples.setdefault(test, {"crumb": [], "peer": [], "ratio": []})
            s["crumb"].append(rate)
            s["peer"].append(pair["peer"][test])
            s["ratio"].append(rate / pair["peer"][test])
        print(f"round {i + 1}/{a.rounds}", file=sys.stderr)
    bytes_of = os.path.getsize
    result = {"schema": "crumb.paired/1", "cpu": cpu_name(), "threads": a.t, "rounds": a.rounds,
              "crumb_model": os.path.basename(a.model), "crumb_bytes": bytes_of(a.model),
              "peer_model": os.path.basename(a.gguf), "peer_bytes": bytes_of(a.gguf), "tests": samples}
    print(f"{result['cpu']}, {a.t} threads, {a.rounds} rounds")
    print("| test | crumb tok/s (min..max) | peer tok/s (min..max) | ratio (min..max) |")
    print("| --- | --- | --- | --- |")
    for test, s in samples.items():
        cells = [f"{statistics.median(v):.{d}f} ({min(v):.{d}f}..{max(v):.{d}f})"
                 for v, d in ((s["crumb"], 1), (s["peer"], 1), (s["ratio"], 2))]
        print(f"| {test} | " + " | ".join(cells) + " |")
    if a.o:
        with open(a.o, "w") as f:
            json.dump(result, f, indent=1)
            f.write("\n")


if __name__ == "__main__":
    main()
