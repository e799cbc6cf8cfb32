#!/usr/bin/env python3
"""bench/plot.py on results made here. Exit 77: matplotlib is absent."""
import copy
import importlib.util
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

SCRIPT = os.path.join(os.environ["CRUMB_SOURCE_DIR"], "bench", "plot.py")
KINDS = ["bits", "roofline", "size", "context"]


def paired(sizes=(1,), depths=(0,), known=True):
    """A crumb.paired/2 result: crumb and a peer, one model a size."""
    programs, samples = [], []
    for size in sizes:
        for name, bpw in (("crumb", 2.25), ("llama", 4.5)):
            programs.append({"name": name, "side": "ours" if name == "crumb" else "peer", "model": f"m{size}-{name}",
                             "extra": "", "model_bytes": int(bpw * 2e7 * size), "linear_bpw": bpw if known else None,
                             "head_bits": 8.5 if known else None, "n_params": int(1e8 * size), "build": "abc",
                             "isa": "avx2" if name == "crumb" else None,
                             "bytes_per_token": int(bpw * 1e7 * size) if known else None})
            for threads in (1, 2):
                for depth in depths:
                    for i in range(3):
                        samples.append({"program": len(programs) - 1, "round": i, "turn": 0, "threads": threads,
                                        "depth": depth, "pp": 100.0, "roofline_pct": 50,
                                        "tg": threads * (900 + 10 * i) / bpw / size / (1 + depth / 4096),
                                        "mem_bw_gbps": 10.0 + i if name == "crumb" else None})
    return {"schema": "crumb.paired/2", "cpu": "a CPU", "programs": programs, "samples": samples}


def bench(depth=0):
    row = {"schema": "crumb.bench/1", "model_filename": "/x/a.crumb", "isa": "avx2", "cpu_info": "a CPU",
           "n_threads": 2, "n_depth": depth, "linear_bpw": 4.25, "head_bits": 4.0, "bytes_per_token": 60_000_000,
           "model_n_params": 130_000_000, "model_size": 70_000_000, "mem_bw_gbps": 20.0, "n_prompt": 0, "n_gen": 16,
           "samples_ts": [300.0 - depth / 100, 310.0 - depth / 100]}
    return [dict(row, n_prompt=64, n_gen=0, samples_ts=[3000.0]), row]


class Plot(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="crumb-plot-")
        self.addCleanup(shutil.rmtree, self.folder)

    def write(self, name, data):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as f:
            f.write(data if isinstance(data, str) else json.dumps(data))
        return path

    def plot(self, *args):
        self.out = os.path.join(self.folder, "out")
        return subprocess.run([sys.executable, SCRIPT, "-o", self.out, *args], capture_output=True, text=True,
                              timeout=240, env=dict(os.environ, MPLCONFIGDIR=self.folder))

    def drawn(self, *args):
        """{kind: (width, height)} of the pictures, and what was said."""
        done = self.plot(*args)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        sizes = {}
        for name in os.listdir(self.out):
            with open(os.path.join(self.out, name), "rb") as f:
                head = f.read(24)
            self.assertEqual(head[:8], b"\x89PNG\r\n\x1a\n")
            sizes[name.removesuffix(".png")] = struct.unpack(">II", head[16:24])
        return sizes, done.stdout

    def expect_error(self, text, *args):
        done = self.plot(*args)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertTrue(done.stderr.startswith("plot.py: error: "), done.stderr)
        self.assertIn(text, done.stderr)

    def test_every_kind(self):
        sizes, _ = self.drawn(self.write("r.json", paired((1, 4, 12), (0, 1024, 4096))))
        self.assertEqual(sorted(sizes), sorted(KINDS))
        for width, height in sizes.values():
            self.assertTrue(width > 700 and height > 400)

    def test_one_kind(self):
        sizes, shown = self.drawn("--kind", "bits", self.write("r.json", paired()))
        self.assertEqual(list(sizes), ["bits"])
        self.assertEqual(shown, os.path.join(self.out, "bits.png") + "\n")

    def test_missing_data_is_skipped_and_said(self):
        sizes, shown = self.drawn(self.write("r.json", paired(known=False)))
        self.assertEqual(sizes, {})
        self.assertEqual([line.split(":")[0] for line in shown.splitlines()], KINDS)
        self.assertTrue(all(": skipped, " in line for line in shown.splitlines()), shown)

    def test_programs_counting_a_model_differently_are_no_two_sizes(self):
        result = paired()
        result["programs"][0]["n_params"] += 12345
        self.assertIn("size: skipped", self.drawn(self.write("r.json", result))[1])

    def test_bench_rows_of_several_files(self):
        files = [self.write(f"{d}.json", bench(d)) for d in (0, 1024)]
        sizes, shown = self.drawn(*files)
        self.assertEqual(sorted(sizes), ["bits", "context", "roofline"])
        self.assertIn("size: skipped", shown)

    def test_machines_are_not_mixed(self):
        other = paired()
        other["cpu"] = "another CPU"
        self.expect_error("different machines", self.write("a.json", paired()), self.write("b.json", other))

    def test_bad_files(self):
        self.expect_error("cannot read", os.path.join(self.folder, "none.json"))
        broken = copy.deepcopy(paired())
        broken["samples"][0]["program"] = 99
        for data in ["{", "[]", "[1]", "7", {"schema": "crumb.paired/1"}, {"schema": "crumb.paired/2"}, broken]:
            self.expect_error("not a result that can be drawn", self.write("bad.json", data))
        self.expect_error("no decode speed", self.write("pp.json", bench()[:1]))
        self.expect_error("invalid choice", "--kind", "pie", self.write("r.json", paired()))

    def test_without_matplotlib(self):
        done = subprocess.run([sys.executable, "-S", "-E", SCRIPT, "-o", self.folder, "x.json"], capture_output=True,
                              text=True, timeout=60)
        self.assertEqual(done.returncode, 2)
        self.assertEqual(done.stderr.count("\n"), 1)
        self.assertIn("matplotlib", done.stderr)


if __name__ == "__main__":
    if not importlib.util.find_spec("matplotlib"):
        print("skipped: no Python package matplotlib")
        sys.exit(77)
    unittest.main()
