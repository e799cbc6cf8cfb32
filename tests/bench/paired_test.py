#!/usr/bin/env python3
"""bench/compare/paired.py with programs made up here, whose speeds are known and who log when they were run."""
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

SCRIPT = os.path.join(os.environ["CRUMB_SOURCE_DIR"], "bench", "compare", "paired.py")

# Prints rows as llama-bench does. Its speeds: SPEED x (1 + calls so far) x threads, halved at a depth, prefill ten
# times decode. As crumb (first argument `bench`) it adds the fields of `crumb bench`.
PROGRAM = """#!{python}
import json, os, sys
a = sys.argv[1:]
ours = a[0] == "bench"
def given(name, otherwise="0"):
    return a[a.index(name) + 1] if name in a else otherwise
assert given("-r") == "1" and given("-o") == "json"
model = os.path.basename(given("-m"))
with open({log!r}, "a+") as f:
    f.seek(0)
    calls = sum(line.split()[0] == model for line in f)
    f.write(" ".join([model, given("-t"), given("-d"), given("-fa", "auto"),
                      os.environ.get("CRUMB_ISA", "none")]) + "\\n")
rows = []
for depth in map(int, given("-d").split(",")):
    for p, n in ((int(given("-p")), 0), (0, int(given("-n")))):
        if p + n:
            speed = {speed} * (1 + calls) * int(given("-t")) * (10 if p else 1) / (2 if depth else 1)
            rows.append(dict(n_prompt=p, n_gen=n, n_depth=depth, avg_ts=speed, build_commit="abc", model_n_params=1000))
            if ours:
                rows[-1].update(isa=os.environ.get("CRUMB_ISA", "best"), linear_bpw=4.25, head_bits=8.5,
                                bytes_per_token=500, mem_bw_gbps=12.5, roofline_pct=None if p else 60.0)
{rows_hook}
print(json.dumps(rows))
"""


class Paired(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="crumb-paired-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.crumb = self.make("crumb", 100)
        self.llama = self.make("llama-bench", 50)
        self.a, self.b, self.c, self.d = (self.model(n) for n in ["a.crumb", "b.crumb", "c.gguf", "d.gguf"])

    def path(self, name):
        return os.path.join(self.folder, name)

    def make(self, name, speed, rows_hook=""):
        path = self.path(name)
        with open(path, "w", encoding="utf-8") as f:
            f.write(PROGRAM.format(python=sys.executable, log=self.path("log"), speed=speed, rows_hook=rows_hook))
        os.chmod(path, 0o755)
        return path

    def model(self, name):
        with open(self.path(name), "wb") as f:
            f.write(bytes(2_000_000))
        return self.path(name)

    def paired(self, *args, env=None):
        return subprocess.run([sys.executable, SCRIPT, *args], capture_output=True, text=True, timeout=120,
                              env=dict(os.environ, **(env or {})))

    def measure(self, *args):
        out = self.path("result.json")
        done = self.paired("--crumb", self.crumb, "-o", out, *args)
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(out, encoding="utf-8") as f:
            return json.load(f), done.stdout

    def two_and_two(self, *args):
        return self.measure("--ours", self.a, "--ours", self.b, "--peer", f"llama={self.llama}:{self.c}",
                            "--peer", f"ik={self.llama}:{self.d}:-fa 0", "-p", "64", "-n", "16", *args)

    def log(self):
        with open(self.path("log"), encoding="utf-8") as f:
            return [line.split() for line in f]

    def expect_error(self, code, text, *args, env=None):
        done = self.paired(*args, env=env)
        self.assertEqual(done.returncode, code, done.stderr)
        lines = [line for line in done.stderr.splitlines() if not line.startswith("round ")]
        bits = [line for line in lines if "bits of" in line]  # the made-up models are no GGUF
        self.assertEqual(len(lines) - len(bits), 1, done.stderr)
        self.assertTrue(lines[-1].startswith("paired.py: error: "), done.stderr)
        self.assertIn(text, lines[-1])
        self.assertEqual(done.stdout, "")

    def test_programs_alternate(self):
        self.two_and_two("--rounds", "3")
        order = [line[0] for line in self.log()]
        forth = ["a.crumb", "b.crumb", "c.gguf", "d.gguf"]
        self.assertEqual(order, forth + forth + forth[::-1] + forth)  # the first four: warm-up

    def test_arguments_reach_the_programs(self):
        self.two_and_two("--rounds", "1", "-t", "1,3", "-d", "0,256", "--isa", "avx2")
        runs = self.log()[4:]
        self.assertEqual([line[1] for line in runs], ["1"] * 4 + ["3"] * 4)
        self.assertEqual({line[2] for line in runs}, {"0,256"})
        self.assertEqual({(line[0], line[3], line[4]) for line in runs},
                         {("a.crumb", "auto", "avx2"), ("b.crumb", "auto", "avx2"),
                          ("c.gguf", "auto", "none"), ("d.gguf", "0", "none")})

    def test_ratios_are_taken_inside_a_round(self):
        # Both sides run faster from call to call; inside a round the ratio stays.
        result, _ = self.two_and_two("--rounds", "3", "-t", "2", "-d", "0,256")
        self.assertEqual(len(result["ratios"]), 2 * 2 * 2)
        for row in result["ratios"]:
            self.assertEqual(row["tg"], [2.0] * 3)
            self.assertEqual(row["pp"], [2.0] * 3)
        for depth, speeds in ((0, [400, 600, 800]), (256, [200, 300, 400])):
            seen = [s["tg"] for s in result["samples"] if s["program"] == 0 and s["depth"] == depth]
            self.assertEqual(seen, speeds)

    def test_result_file(self):
        result, _ = self.two_and_two("--rounds", "2")
        self.assertEqual(result["schema"], "crumb.paired/2")
        self.assertTrue(result["cpu"])
        self.assertRegex(result["date"], r"^20\d\d-\d\d-\d\dT")
        self.assertEqual([p["name"] for p in result["programs"]], ["crumb", "crumb", "llama", "ik"])
        self.assertEqual(result["programs"][0]["linear_bpw"], 4.25)
        self.assertEqual(result["programs"][2]["n_params"], 1000)
        self.assertEqual(len(result["samples"]), 2 * 4)
        self.assertEqual({s["turn"] for s in result["samples"]}, {0, 1, 2, 3})
        self.assertNotIn(self.folder, json.dumps(result))

    def test_table(self):
        _, shown = self.two_and_two("--rounds", "3")
        rows = [[c.strip() for c in line.strip("|").split("|")] for line in shown.splitlines() if line.startswith("|")]
        self.assertEqual(len(rows), 2 + 4)
        self.assertEqual({len(row) for row in rows}, {len(rows[0])})
        ours, peer = dict(zip(rows[0], rows[2])), dict(zip(rows[0], rows[5]))
        self.assertEqual(ours, {
            "program": "crumb", "model": "a.crumb", "threads": "2", "depth": "0", "linear bpw": "4.25",
            "head bits": "8.5", "ISA": "best", "file MB": "2.0", "decode tg16 tok/s": "600.0 (400.0..800.0)",
            "prefill pp64 tok/s": "6000.0 (4000.0..8000.0)", "decode / llama": "2.00 (2.00..2.00)",
            "prefill / llama": "2.00 (2.00..2.00)", "decode / ik": "2.00 (2.00..2.00)",
            "prefill / ik": "2.00 (2.00..2.00)", "read GB/s": "12.5", "roofline %": "60"})
        self.assertEqual(peer["program"], "ik -fa 0")
        for name in ("linear bpw", "head bits", "ISA", "decode / llama", "read GB/s"):
            self.assertEqual(peer[name], "-")

    def test_decode_alone(self):
        result, shown = self.two_and_two("--rounds", "1", "-p", "0")
        self.assertEqual({s["pp"] for s in result["samples"]}, {None})
        self.assertEqual({tuple(r["pp"]) for r in result["ratios"]}, {()})
        self.assertIn("| - |", shown)

    @unittest.skipUnless(importlib.util.find_spec("gguf"), "no Python package gguf")
    def test_bits_of_a_gguf(self):
        import gguf
        import numpy as np
        writer = gguf.GGUFWriter(self.path("real.gguf"), "llama")
        quantized = {"blk.0.ffn_up.weight": "Q4_0", "blk.0.attn_q.weight": "Q8_0", "token_embd.weight": "Q8_0"}
        for name, kind in quantized.items():
            kind = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(name, gguf.quants.quantize(np.ones((4, 64), dtype=np.float32), kind), raw_dtype=kind)
        writer.add_tensor("blk.0.attn_norm.weight", np.ones(64, dtype=np.float32))
        writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file(), writer.close()
        result, shown = self.measure("--ours", self.a, "--peer", f"llama={self.llama}:{self.path('real.gguf')}",
                                     "--rounds", "1")
        peer = result["programs"][1]
        self.assertEqual((peer["linear_bpw"], peer["head_bits"]), ((4.5 + 8.5) / 2, 8.5))
        self.assertEqual(peer["bytes_per_token"], 256 * (4.5 + 8.5 + 8.5) / 8)
        self.assertIn("| 6.50 | 8.5 |", shown)

    def test_wrong_arguments(self):
        ours, good = ["--crumb", self.crumb, "--ours", self.a], ["--peer", f"llama={self.llama}:{self.c}"]
        self.expect_error(2, "required", *ours)
        self.expect_error(2, "expected NAME=LLAMA_BENCH:MODEL", *ours, "--peer", "llama")
        self.expect_error(2, "expected NAME=LLAMA_BENCH:MODEL", *ours, "--peer", f"llama={self.llama}")
        self.expect_error(2, "nowhere.gguf", *ours, "--peer", f"llama={self.llama}:nowhere.gguf")
        self.expect_error(2, "not executable", *ours, "--peer", f"llama={self.c}:{self.c}")
        self.expect_error(2, "given twice", *ours, *good, *good)
        self.expect_error(2, "whole numbers", *ours, *good, "-t", "0")
        self.expect_error(2, "something to measure", *ours, *good, "-p", "0", "-n", "0")
        self.expect_error(2, "cannot write", *ours, *good, "-o", self.path("none/x.json"))
        self.assertFalse(os.path.exists(self.path("log")))

    def test_programs_that_fail(self):
        for hook, text in [("sys.exit('out of luck')", "ended with 1: out of luck"),
                           ("rows = 'no rows'", "did not print rows"),
                           ("print('noise')", "did not print rows"),
                           ("rows = []", "printed no speed of decode")]:
            bad = self.make("bad", 1, hook)
            self.expect_error(1, text, "--crumb", self.crumb, "--ours", self.a, "--peer", f"llama={bad}:{self.c}")

    def test_python_peer(self):
        py = ["--crumb", self.crumb, "--ours", self.a, "--peer", f"py={self.c}", "--rounds", "1", "-d", "0,8",
              "-p", "4", "-n", "2"]
        if not importlib.util.find_spec("llama_cpp"):
            self.expect_error(2, "llama-cpp-python", *py)
        os.makedirs(self.path("llama_cpp"))
        with open(self.path("llama_cpp/__init__.py"), "w", encoding="utf-8") as f:
            f.write(FAKE_PACKAGE)
        done = self.paired(*py, "-o", self.path("py.json"), env={"PYTHONPATH": self.folder})
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(self.path("py.json"), encoding="utf-8") as f:
            result = json.load(f)
        self.assertEqual(result["programs"][1]["build"], "9.9")
        for s in result["samples"]:
            if s["program"] == 1:  # 10 ms an evaluation: four tokens at once, two tokens one by one
                self.assertTrue(100 < s["pp"] <= 400 and 30 < s["tg"] <= 100, s)


FAKE_PACKAGE = """
import time
from types import SimpleNamespace
__version__ = "9.9"
def llama_synchronize(context):
    pass
class Llama:
    def __init__(self, model, n_ctx, n_threads, n_threads_batch, verbose):
        assert n_threads == n_threads_batch
        self.room, self.n_tokens = n_ctx, 0
        self._ctx, self._model = SimpleNamespace(ctx=None), SimpleNamespace(n_params=lambda: 1000)
    def n_vocab(self):
        return 50
    def reset(self):
        self.n_tokens = 0
    def eval(self, ids):
        self.n_tokens += len(ids)
        assert self.n_tokens <= self.room and all(0 < i < 50 for i in ids)
        time.sleep(0.01)
"""

if __name__ == "__main__":
    unittest.main()
