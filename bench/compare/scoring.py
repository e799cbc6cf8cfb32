#!/usr/bin/env python3
"""Log-likelihood scoring of `crumb eval` against llama.cpp's prompt processing, interleaved in one run.

usage: scoring.py --crumb build/release/crumb --model int4.crumb --peer llama-bench:q4_0.gguf[:ARGUMENTS]
                  [--tasks arc_easy,hellaswag,mmlu] [--data DIR] [--limit 100] [-t 2] [-p 512] [--rounds 5] [-o FILE]

Every round runs llama-bench once (-p, no generation) and every task once without kept answers, in alternating
order. A task's tokens/s are those that went through the transformer: what was read once for several choices or
questions counts once, the head and the sums over the vocabulary are inside. Ratios are taken inside a round; the
table has medians (min..max). Both sides use their own default settings.
"""
import argparse
import json
import os
import re
import shlex
import statistics
import subprocess
import sys

COST = re.compile(r"^(\w+): \d+ of \d+ items asked, (\d+) tokens run, (\d+) found in the cache, (\d+) tokens/s$", re.M)


def fail(text):
    print("scoring.py: error: " + " ".join(text.split()), file=sys.stderr)
    sys.exit(2)


def output(command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        fail(f"cannot run {command[0]}: {error}")
    if done.returncode != 0:
        fail(f"{command[0]} ended with {done.returncode}: {done.stderr[-500:]}")
    return done


def peer_speed(given):
    parts = given.peer.split(":", 2)
    if len(parts) < 2:
        fail(f"invalid value (--peer: expected LLAMA_BENCH:MODEL[:ARGUMENTS], found '{given.peer}')")
    extra = shlex.split(parts[2]) if len(parts) > 2 else []
    rows = json.loads(output([parts[0], "-m", parts[1], *extra, "-p", str(given.prompt), "-n", "0", "-r", "1", "-t",
                              str(given.threads), "-o", "json"]).stdout)
    return rows[0]["avg_ts"]


def task_speed(given, task):
    command = [given.crumb, "eval", task, "-m", given.model, "--limit", str(given.limit), "--no-cache", "-t",
               str(given.threads), *(["--data", given.data] if given.data else [])]
    found = COST.search(output(command).stderr)
    if not found:
        fail(f"`{' '.join(command)}` did not tell its cost")
    return {"speed": float(found[4]), "run": int(found[2]), "reused": int(found[3])}


def span(values, digits):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}..{max(values):.{digits}f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crumb", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--peer", required=True)
    parser.add_argument("--tasks", default="arc_easy,hellaswag,mmlu")
    parser.add_argument("--data", default="")
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("-p", "--prompt", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-o", "--output")
    given = parser.parse_args()
    tasks = given.tasks.split(",")
    rounds = []
    for number in range(given.rounds):
        one = {}
        for name in (["peer", *tasks] if number % 2 == 0 else [*reversed(tasks), "peer"]):
            one[name] = peer_speed(given) if name == "peer" else task_speed(given, name)
        rounds.append(one)
        print(f"round {number + 1} of {given.rounds}", file=sys.stderr)
    print(f"{os.path.basename(given.model)} against {given.peer.split(':')[1]}, {given.threads} threads, "
          f"{given.rounds} rounds\n")
    print(f"| task | tokens run, found | tokens/s | pp{given.prompt} of the peer | ratio |")
    print("| --- | --- | --- | --- | --- |")
    peer = [one["peer"] for one in rounds]
    for task in tasks:
        own = [one[task] for one in rounds]
        ratios = [one["speed"] / p for one, p in zip(own, peer)]
        print(f"| {task} ({given.limit}) | {own[0]['run']}, {own[0]['reused']} | {span([o['speed'] for o in own], 0)} | "
              f"{span(peer, 0)} | {span(ratios, 2)} |")
    if given.output:
        with open(given.output, "w", encoding="utf-8") as file:
            json.dump({"schema": "crumb.scoring/1", "model": os.path.basename(given.model),
                       "peer": os.path.basename(given.peer.split(":")[1]), "threads": given.threads,
                       "prompt": given.prompt, "limit": given.limit, "rounds": rounds}, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
