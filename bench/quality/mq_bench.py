#!/usr/bin/env python3
"""mq_bench.py --model MODEL.gguf --text EVALUATION.txt -o OUT.json: a benchmark of mixed precision (EMQ's MQ-Bench).

Seeded plans that give every matrix of the blocks a width of its own, half of them of {3, 4, 8} bits, half of {2, 3, 4},
the shares of the widths drawn anew for each plan (Dirichlet, 1.5), rounded to nearest in asymmetric groups of 64, and
the divergence of each from the source (`crumb eval kl`). A plan is a string, one digit a matrix in the order of the
model. Goes on where it was stopped; `--jobs N` at a time, on processors of their own (`--cores 0,2,4`).
"""
import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

SCHEMA = "crumb.mq-bench/1"
POOLS = [(3, 4, 8), (2, 3, 4)]


def plan(seed, matrices):
    """Widths of all matrices, the same for a seed on every machine."""
    rng = random.Random(seed)
    pool = POOLS[seed % 2]
    shares = [rng.gammavariate(1.5, 1) for _ in pool]
    return "".join(str(rng.choices(pool, shares)[0]) for _ in range(matrices))


def call(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"mq_bench: {' '.join(command[:5])} .. failed ({done.returncode}): {done.stderr.strip()[-300:]}")
    return done.stdout


def recipe_of(given, folder):
    """The recipe of a plan without widths of its own, and the matrices' names."""
    out = os.path.join(folder, "base.crumb")
    call([given.crumb, "quantize", given.model, "-o", out, "--method", "nearest", "--grid", "asym", "--group", "64", "--rotate", "0", "--bits", "4",
          "--embed-bits", "8", "--report", out + ".json", "-q"])
    with open(out + ".json") as file:
        report = json.load(file)
    recipe = report["recipe"]
    recipe = json.loads(recipe) if isinstance(recipe, str) else recipe
    os.remove(out)
    return recipe, [t["name"] for t in report["tensors"] if t["bits"] == 4 and t["name"].startswith("model.layers.")]


def measure(given, folder, recipe, names, seed, core):
    widths = plan(seed, len(names))
    base = os.path.join(folder, str(seed))
    with open(base + ".recipe", "w") as file:
        json.dump({**recipe, "bits": {n: int(b) for n, b in zip(names, widths)}}, file)
    begin = time.time()
    pin = [] if core is None else ["taskset", "-c", f"{core}-{core + given.threads - 1}"]
    call([*pin, given.crumb, "quantize", given.model, "-o", base + ".crumb", "--recipe", base + ".recipe", "-t", str(given.threads),
         "--report", base + ".json", "-q"])
    kl = json.loads(call([*pin, given.crumb, "eval", "kl", "--base", given.model, "-m", base + ".crumb", "-f", given.text, "--limit",
                         str(given.windows), "-t", str(given.threads), "--json", "-q"]))
    result = {"seed": seed, "bits": widths, "kl": kl["mean_kld"], "bytes": os.path.getsize(base + ".crumb"),
              "seconds": round(time.time() - begin, 2)}
    for end in (".crumb", ".recipe", ".json"):
        os.remove(base + end)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crumb", default=os.path.join(os.path.dirname(__file__), "../../build/release/crumb"))
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--plans", type=int, default=200)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--cores", default="")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no further plan after this time")
    parser.add_argument("-o", "--output", required=True)
    given = parser.parse_args()
    with open(given.text, "rb") as file:
        text_hash = hashlib.sha256(file.read()).hexdigest()[:16]
    table = {"schema": SCHEMA, "model": os.path.basename(given.model), "text": os.path.basename(given.text), "text_hash": text_hash,
             "windows": given.windows, "rounding": "nearest, asym, groups of 64, scale of the largest weight", "plans": []}
    if os.path.exists(given.output):
        with open(given.output) as file:
            kept = json.load(file)
        if any(kept[key] != table[key] for key in table if key != "plans"):
            sys.exit(f"mq_bench: {given.output} is of another model or text")
        table["plans"] = kept["plans"]
    done = {p["seed"] for p in table["plans"]}
    lock = threading.Lock()
    cores = [int(c) for c in given.cores.split(",")] if given.cores else [None] * given.jobs
    begin = time.time()
    with tempfile.TemporaryDirectory() as folder:
        recipe, names = recipe_of(given, folder)
        table["matrices"] = names

        def one(seed):
            if seed in done or time.time() - begin > given.seconds:
                return
            core = cores.pop()
            try:
                result = measure(given, folder, recipe, names, seed, core)
            finally:
                cores.append(core)
            with lock:
                table["plans"] = sorted([*table["plans"], result], key=lambda p: p["seed"])
                with open(given.output + ".tmp", "w") as file:
                    json.dump(table, file)
                os.replace(given.output + ".tmp", given.output)
            n, spent = len(table["plans"]) - len(done), time.time() - begin
            left = spent / n * (given.plans - len(table["plans"]))
            print(f"mq_bench: {len(table['plans'])}/{given.plans}, about {left:.0f} s left", file=sys.stderr)
        with ThreadPoolExecutor(len(cores)) as pool:
            list(pool.map(one, range(given.plans)))


if __name__ == "__main__":
    main()
