#!/usr/bin/env python3
"""`crumb serve` against llama.cpp's llama-server: four streams at a time, and the first token behind a cached prefix.

usage: serving.py --crumb build/release/crumb --ours int4.crumb --server /path/llama-server --peer q4_0.gguf
                  [-t 2] [--streams 4] [-n 128] [--rounds 5] [-o result.json]

Both serve over HTTP on this machine, one at a time; every round starts each of them afresh, in turn first (A B, B A),
and ratios are taken inside a round. Prompts are token ids, greedy, without an end: the same work for both. Without
--server only ours is measured. The bits of the two files are printed beside: a ratio says nothing without them.
"""
import argparse
import concurrent.futures
import datetime
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, ".."))
sys.path.insert(0, os.path.join(HERE, "..", "serve"))
from gguf_bits import gguf_bits  # noqa: E402
from load import machine  # noqa: E402

PREFIX, TAIL = 1000, 10


def fail(text):
    print("serving.py: error: " + " ".join(text.split()), file=sys.stderr)
    sys.exit(2)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Peer:
    """A server that runs while this is open."""

    def __init__(self, command, port):
        self.port = port
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)

    def __enter__(self):
        end = time.monotonic() + 120
        while time.monotonic() < end:
            if self.process.poll() is not None:
                fail(f"a server ended with {self.process.returncode} ({self.process.args[0]})")
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return self
            except OSError:
                pass
            time.sleep(0.05)
        fail(f"a server is not ready after two minutes ({self.process.args[0]})")

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def ask(self, ids, tokens, cache, stream=False):
        """(seconds until the first piece, seconds in all, tokens written)"""
        body = {"prompt": ids, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "cache_prompt": cache,
                "stream": stream}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        start = time.perf_counter()
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            fail(f"{answer.status}: {answer.read()[:300]!r}")
        first, written = None, tokens
        if stream:
            while line := answer.readline():
                if line.startswith(b"data: {") and first is None:
                    first = time.perf_counter() - start
        else:
            written = json.loads(answer.read())["usage"]["completion_tokens"]
        connection.close()
        return first, time.perf_counter() - start, written


def prompt(seed, length, vocab=40000):
    return [100 + (seed * 7919 + k * (31 + seed % 17)) % vocab for k in range(length)]


def measure(server, streams, tokens, repeats):
    server.ask(prompt(999, 32), 8, False)
    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(streams) as pool:
        done = list(pool.map(lambda i: server.ask(prompt(i, 32), tokens, False), range(streams)))
    together = sum(d[2] for d in done) / (time.perf_counter() - start)
    one = server.ask(prompt(77, 32), tokens, False)
    alone = one[2] / one[1]
    short = [server.ask(prompt(100 + i, TAIL), 2, False, True)[0] for i in range(repeats)]
    prefix = prompt(5, PREFIX)
    server.ask(prefix + prompt(6, TAIL), 2, True)
    cached = [server.ask(prefix + prompt(200 + i, TAIL), 2, True, True)[0] for i in range(repeats)]
    return {"together_tok_s": together, "alone_tok_s": alone, "first_token_short_s": statistics.median(short),
            "first_token_cached_s": statistics.median(cached),
            "cached_to_short": statistics.median(cached) / statistics.median(short)}


def our_bits(binary, path):
    shown = json.loads(subprocess.run([binary, "inspect", path, "--json"], check=True, capture_output=True).stdout)
    return {k: shown[k] for k in ("linear_bpw", "head_bits", "total_bpw") if k in shown}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--crumb", required=True)
    parser.add_argument("--ours", required=True, help="a .crumb file")
    parser.add_argument("--server", help="llama-server")
    parser.add_argument("--peer", help="a GGUF file of the same model and bits")
    parser.add_argument("--arguments", default="", help="further ones of llama-server, by blanks")
    parser.add_argument("-t", "--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("-n", "--predict", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=15, help="of a first token")
    parser.add_argument("-o", "--output")
    given = parser.parse_args()
    if bool(given.server) != bool(given.peer):
        fail("--server and --peer belong together")
    context = 2048

    def start(kind):
        port = free_port()
        if kind == "crumb":
            command = [given.crumb, "serve", "-m", given.ours, "--port", str(port), "-np", str(given.streams),
                       "-c", str(context), "-t", str(given.threads), "-q"]
        else:
            command = [given.server, "-m", given.peer, "--port", str(port), "-np", str(given.streams),
                       "-c", str(context * given.streams), "-t", str(given.threads), *given.arguments.split()]
        return Peer(command, port)

    kinds = ["crumb"] + (["llama"] if given.server else [])
    rounds = []
    for r in range(given.rounds):
        row = {}
        for kind in kinds if r % 2 == 0 else kinds[::-1]:
            with start(kind) as server:
                row[kind] = measure(server, given.streams, given.predict, given.repeats)
        rounds.append(row)
        print(f"round {r + 1}: " + json.dumps({k: {n: round(v, 4) for n, v in m.items()} for k, m in row.items()}),
              flush=True)
    result = {"schema": "crumb.serving/1", "date": datetime.date.today().isoformat(), "machine": machine(),
              "threads": given.threads, "streams": given.streams, "tokens": given.predict,
              "ours": {"file": os.path.basename(given.ours), **our_bits(given.crumb, given.ours)}, "rounds": rounds}
    if given.server:
        bits = gguf_bits(given.peer)
        result["peer"] = {"file": os.path.basename(given.peer), "bits": bits, "arguments": given.arguments}
        ratios = [r["crumb"]["together_tok_s"] / r["llama"]["together_tok_s"] for r in rounds]
        result["together_ratio"] = {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}
        print(f"{given.streams} streams, ours / llama-server: {statistics.median(ratios):.2f} "
              f"({min(ratios):.2f}..{max(ratios):.2f}); bits: ours {result['ours']}, peer {bits}")
    cached = [r["crumb"]["cached_to_short"] for r in rounds]
    result["cached_to_short"] = statistics.median(cached)
    print(f"first token behind {PREFIX} cached tokens / of a {TAIL}-token prompt: {statistics.median(cached):.2f} "
          f"({min(cached):.2f}..{max(cached):.2f})")
    if given.output:
        with open(given.output, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
