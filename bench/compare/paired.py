#!/usr/bin/env python3
"""Decode and prefill speed of crumb against llama.cpp's llama-bench (or a fork's), interleaved in one run.

usage: paired.py --crumb build/release/crumb --ours a.crumb --ours b.crumb
                 --peer llama=/path/llama-bench:/path/b.gguf --peer 'ik=/path/llama-bench:/path/c.gguf:-fa 0'
                 [-p 512] [-n 128] [-t 1,2] [-d 0,1024] [--rounds 7] [--isa avx2] [-o result.json]

Every round runs every program once, one repetition each, in alternating order (A B C, C B A); the ratios are
taken inside a round, so that a machine that changes its speed between minutes changes both sides. Prints one
markdown table of medians (min..max). `--peer py=b.gguf` times the Python package llama-cpp-python.
README.md beside this file says how to read it.
"""
import argparse
import datetime
import importlib.util
import itertools
import json
import os
import platform
import shlex
import statistics
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from gguf_bits import gguf_bits  # noqa: E402

KINDS = {"tg": "decode", "pp": "prefill"}


def fail(text, code=2):
    print("paired.py: error: " + " ".join(text.split()), file=sys.stderr)
    sys.exit(code)


# --- The peer `py`: this script runs itself for it and prints rows as llama-bench does.

def python_peer(model, prompt, generate, threads, depths):
    try:
        import llama_cpp
    except Exception as error:
        fail(f"the Python package llama-cpp-python cannot be imported: {error}")
    longest = max(depths) + max(prompt, generate)
    llm = llama_cpp.Llama(model, n_ctx=longest + 8, n_threads=threads, n_threads_batch=threads, verbose=False)
    ids = [1 + i * 7919 % (llm.n_vocab() - 1) for i in range(longest)]

    def seconds(depth, batches):
        llm.reset()
        if depth:
            llm.eval(ids[:depth])
        llama_cpp.llama_synchronize(llm._ctx.ctx)
        start = time.perf_counter()
        for batch in batches:
            llm.eval(batch)
        llama_cpp.llama_synchronize(llm._ctx.ctx)
        return time.perf_counter() - start

    seconds(0, [ids[:8], ids[:1]])  # warm-up
    rows = []
    for depth in depths:
        for p, n, batches in ((prompt, 0, [ids[:prompt]]), (0, generate, [[i] for i in ids[:generate]])):
            if p + n:
                rows.append({"n_prompt": p, "n_gen": n, "n_depth": depth, "build_commit": llama_cpp.__version__,
                             "model_n_params": llm._model.n_params(), "avg_ts": (p + n) / seconds(depth, batches)})
    print(json.dumps(rows))


# --- The programs

def file_named(path, what):
    if not os.path.isfile(path):
        fail(f"no such file ({what}: {path})")
    return path


def executable(path, what):
    return path if os.access(file_named(path, what), os.X_OK) else fail(f"not executable ({what}: {path})")


def program(name, side, model, command, extra=""):
    return {"name": name, "side": side, "model": os.path.basename(model), "extra": extra, "path": model,
            "model_bytes": os.path.getsize(file_named(model, name)), "command": command, "linear_bpw": None,
            "head_bits": None, "bytes_per_token": None, "n_params": None, "isa": None, "build": None}


def peer(text):
    """NAME=LLAMA_BENCH:MODEL[:ARGUMENTS], or py=MODEL."""
    name, _, rest = text.partition("=")
    parts = rest.split(":", 2)
    if not name or not rest or name == "crumb" or (name != "py" and len(parts) < 2):
        fail(f"invalid value (--peer: expected NAME=LLAMA_BENCH:MODEL[:ARGUMENTS] or py=MODEL, found '{text}')")
    if name == "py":
        if not importlib.util.find_spec("llama_cpp"):
            fail(f"--peer py needs the Python package llama-cpp-python, and {sys.executable} has none")
        p = program(name, "peer", rest, [sys.executable, os.path.abspath(__file__), "--python-peer", rest])
    else:
        extra = parts[2] if len(parts) > 2 else ""
        p = program(name, "peer", parts[1], [executable(parts[0], name), "-m", parts[1]] + shlex.split(extra), extra)
    p.update(known_bits(p["path"]))
    return p


def known_bits(path):
    """Bits of a GGUF's block matrices and head; nothing where that cannot be read."""
    try:
        return gguf_bits(path)
    except (ValueError, KeyError, struct.error) as error:
        return print(f"paired.py: bits of {path} are not known: {error!r}", file=sys.stderr) or {}


def run(program, sizes, isa=""):
    """The rows a program prints for these sizes: ({"p", "n", "t", "d"})."""
    command = program["command"] + ["-p", str(sizes["p"]), "-n", str(sizes["n"]), "-t", str(sizes["t"])]
    if sizes["d"] != [0]:  # not every fork's llama-bench knows -d
        command += ["-d", ",".join(map(str, sizes["d"]))]
    env = dict(os.environ, **({"CRUMB_ISA": isa} if isa and program["side"] == "ours" else {}))
    try:
        done = subprocess.run(command + ["-r", "1", "-o", "json"], capture_output=True, text=True, env=env)
    except OSError as error:
        fail(f"cannot run {command[0]}: {error.strerror}", 1)
    who = f"{program['name']} ({command[0]}, {program['model']})"
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        fail(f"{who} ended with {done.returncode}: {last}", 1)
    try:
        rows = json.loads(done.stdout)
        for row in rows:
            row["key"] = ("pp" if row["n_prompt"] else "tg", row.get("n_depth", 0))
            row["avg_ts"] = float(row["avg_ts"])
    except (ValueError, TypeError, KeyError) as error:
        fail(f"{who} did not print rows of JSON as llama-bench does: {error!r}", 1)
    found = {row["key"]: row for row in rows}
    for key in [(kind, d) for d in sizes["d"] for kind, n in (("pp", sizes["p"]), ("tg", sizes["n"])) if n]:
        if found.get(key, {}).get("avg_ts", 0) <= 0:
            fail(f"{who} printed no speed of {KINDS[key[0]]} at depth {key[1]}", 1)
    return found


def warm_up(program, isa):
    """Brings the file into the page cache, shows errors before the long run, and fills what the rows tell."""
    row = run(program, {"p": 0, "n": 1, "t": 1, "d": [0]}, isa)["tg", 0]
    program["build"] = row.get("build_commit")
    program["n_params"] = row.get("model_n_params")
    if program["side"] == "ours":
        program.update({k: row.get(k) for k in ("linear_bpw", "head_bits", "bytes_per_token", "isa")})


# --- The measurement

def measure(programs, a):
    """One sample for each program, round, number of threads and depth."""
    samples = []
    for i in range(a.rounds):
        order = list(range(len(programs)))[:: 1 if i % 2 == 0 else -1]
        for threads in a.t:
            for turn, which in enumerate(order):
                rows = run(programs[which], {"p": a.p, "n": a.n, "t": threads, "d": a.d}, a.isa)
                for depth in a.d:
                    pp, tg = rows.get(("pp", depth), {}), rows.get(("tg", depth), {})
                    samples.append({"program": which, "round": i, "turn": turn, "threads": threads, "depth": depth,
                                    "pp": pp.get("avg_ts"), "tg": tg.get("avg_ts"),
                                    "mem_bw_gbps": (tg or pp).get("mem_bw_gbps"),
                                    "roofline_pct": tg.get("roofline_pct")})
        print(f"round {i + 1}/{a.rounds}", file=sys.stderr)
    return samples


def series(samples, program, threads, depth, field):
    """A program's values by round."""
    return [s[field] for s in samples if (s["program"], s["threads"], s["depth"]) == (program, threads, depth)
            and s[field] is not None]


def ratios_of(programs, samples, a):
    """Each of ours to each peer, round by round."""
    out = []
    side = {s: [i for i, p in enumerate(programs) if p["side"] == s] for s in ("ours", "peer")}
    for ours, theirs, threads, depth in itertools.product(side["ours"], side["peer"], a.t, a.d):
        row = {"ours": ours, "peer": theirs, "threads": threads, "depth": depth}
        for kind in KINDS:
            pairs = zip(*(series(samples, i, threads, depth, kind) for i in (ours, theirs)))
            row[kind] = [x / y for x, y in pairs]
        out.append(row)
    return out


# --- The report

def middle(values, digits):
    return f"{statistics.median(values):.{digits}f}" if values else "-"


def spread(values, digits):
    return middle(values, digits) + (f" ({min(values):.{digits}f}..{max(values):.{digits}f})" if values else "")


def table(result):
    programs, samples = result["programs"], result["samples"]
    peers = [i for i, p in enumerate(programs) if p["side"] == "peer"]
    names = [programs[i]["name"] for i in peers]
    called = {i: programs[i]["name"] if names.count(programs[i]["name"]) == 1 else
              f"{programs[i]['name']} {programs[i]['model']}" for i in peers}
    head = ["program", "model", "threads", "depth", "linear bpw", "head bits", "ISA", "file MB",
            f"decode tg{result['n_gen']} tok/s", f"prefill pp{result['n_prompt']} tok/s"]
    head += [f"{KINDS[k]} / {called[i]}" for i in peers for k in KINDS] + ["read GB/s", "roofline %"]
    lines = [head, ["---"] * len(head)]
    for (i, p), threads, depth in itertools.product(enumerate(programs), result["threads"], result["depths"]):
        def of(field):
            return series(samples, i, threads, depth, field)
        ratio = {r["peer"]: r for r in result["ratios"] if (r["ours"], r["threads"], r["depth"]) == (i, threads, depth)}
        bits = [middle([p[k]] if p[k] else [], d) for k, d in (("linear_bpw", 2), ("head_bits", 1))]
        lines.append([f"{p['name']} {p['extra']}".strip(), p["model"], str(threads), str(depth)] + bits
                     + [p["isa"] or "-", f"{p['model_bytes'] / 1e6:.1f}", spread(of("tg"), 1), spread(of("pp"), 1)]
                     + [spread(ratio.get(j, {}).get(k, []), 2) for j in peers for k in KINDS]
                     + [middle(of("mem_bw_gbps"), 1), middle(of("roofline_pct"), 0)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cpu_name():
    try:
        with open("/proc/cpuinfo") as f:
            return next(line.split(":")[1].strip() for line in f if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def numbers(low):
    def parse(text):
        values = [int(v) for v in text.split(",")]
        if min(values) < low or len(set(values)) != len(values):
            raise ValueError
        return values
    parse.__name__ = "list of whole numbers"
    return parse


def arguments():
    p = argparse.ArgumentParser(usage=__doc__.split("usage: ")[1].split("\n\n")[0])
    p.error = fail
    p.add_argument("--crumb", required=True)
    p.add_argument("--ours", action="append", required=True)
    p.add_argument("--peer", action="append", required=True)
    p.add_argument("-p", type=int, default=512)
    p.add_argument("-n", type=int, default=128)
    p.add_argument("-t", type=numbers(1), default=[2])
    p.add_argument("-d", type=numbers(0), default=[0])
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--isa", default="")
    p.add_argument("-o", default="")
    a = p.parse_args()
    if min(a.p, a.n) < 0 or max(a.p, a.n) == 0 or a.rounds < 1:
        fail(f"invalid value (-p, -n, --rounds: expected something to measure, found {a.p}, {a.n}, {a.rounds})")
    if a.o and not os.access(os.path.dirname(os.path.abspath(a.o)), os.W_OK):
        fail(f"cannot write ({a.o})")
    return a


def main():
    a = arguments()
    crumb = executable(a.crumb, "--crumb")
    programs = [program("crumb", "ours", m, [crumb, "bench", "-m", m]) for m in a.ours] + [peer(t) for t in a.peer]
    named = [f"{p['name']} {p['model']}" for p in programs]
    if twice := [name for name in named if named.count(name) > 1]:
        fail(f"given twice ({twice[0]}): programs need different names or files")
    for p in programs:
        warm_up(p, a.isa)
    date = datetime.datetime.now(datetime.timezone.utc).isoformat("T", "seconds")
    result = {"schema": "crumb.paired/2", "date": date, "cpu": cpu_name(), "isa": a.isa, "rounds": a.rounds,
              "n_prompt": a.p, "n_gen": a.n, "threads": a.t, "depths": a.d,
              "programs": programs, "samples": measure(programs, a)}
    result["ratios"] = ratios_of(programs, result["samples"], a)
    print(f"{result['cpu']}, {a.rounds} rounds, {result['date']}\n\n{table(result)}")
    if a.o:
        for p in programs:  # the paths of a machine are of no use elsewhere
            del p["command"], p["path"]
        with open(a.o, "w") as f:
            json.dump(result, f, indent=1)
            f.write("\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--python-peer"]:
        w = argparse.ArgumentParser()
        for option, kind in (("-p", int), ("-n", int), ("-t", int), ("-d", numbers(0)), ("-r", int), ("-o", str)):
            w.add_argument(option, type=kind, default=[0])
        given = w.parse_args(sys.argv[3:])
        python_peer(sys.argv[2], given.p, given.n, given.t, given.d)
    else:
        main()
