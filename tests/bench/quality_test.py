"""bench/quality/run.py and compact.py over a made-up crumb: several models, rows side by side, going on, queues,
ending in time."""
import json
import os
import stat
import subprocess
import sys
import tempfile
import time
import unittest

RUN = os.path.join(os.environ["CRUMB_SOURCE_DIR"], "bench", "quality", "run.py")
CRUMB = """#!{python}
import json, sys, time
verb, args = sys.argv[1], sys.argv[2:]
log = open({log!r}, "a")
log.write(" ".join(sys.argv[1:]) + "\\n")
if verb == "version":
    print(json.dumps({{"commit": "abc", "cpu_features": "x"}}))
elif verb == "quantize":
    if "--bits 9" in " ".join(args):
        sys.exit("no such bits")
    if "--slow" in args:
        time.sleep(30)
    open(args[args.index("-o") + 1], "w").write("model")
    print(json.dumps({{"linear_bpw": 4, "head_bits": 8, "total_bpw": 5, "file_bytes": 9, "seconds": 1, "peak_rss_bytes": 5e6,
                      "reconstruction": [{{"kept": kept, "loss_start": 2, "loss_end": end, "tokens_per_second": 100 * end}}
                                         for kept, end in (("learned", 1), ("start", 2), ("learned", 1))]}}))
else:
    keys = "stderr_kld kld_p99 top1 ppl ppl_base ppl_ratio tokens".split()
    print(json.dumps({{"mean_kld": 0.25 if "a.gguf" in " ".join(args) else 0.5, **{{key: 1 for key in keys}}}}))
"""
ROWS = [{"name": "control", "args": "--bits 4"}, {"name": "better", "args": "--bits 4 --x", "control": "control"}]


class Quality(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.log = self.write("log", "")
        self.crumb = self.write("crumb", CRUMB.format(python=sys.executable, log=self.log))
        os.chmod(self.crumb, os.stat(self.crumb).st_mode | stat.S_IXUSR)
        for name in ("a.gguf", "b.gguf", "text", "calib"):
            self.write(name, name)
        self.results = os.path.join(self.folder, "results.json")

    def write(self, name, content):
        path = os.path.join(self.folder, name)
        with open(path, "w") as file:
            file.write(content)
        return path

    def run_rows(self, rows, *args, calib="calib"):
        path = self.write("rows.json", json.dumps({"configurations": rows}))
        models = [os.path.join(self.folder, name) for name in ("a.gguf", "b.gguf")]
        return subprocess.run(
            [sys.executable, RUN, "--crumb", self.crumb, "--model", models[0], "--windows", "16", "--model", models[1],
             "--windows", "8", "--text", os.path.join(self.folder, "text"), "--calib", os.path.join(self.folder, calib),
             "-o", self.results, "--configurations", path, *args],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120, text=True)

    def runs(self):
        with open(self.results) as file:
            return json.load(file)["runs"]

    def calls(self, verb):
        with open(self.log) as file:
            return sum(line.startswith(verb) for line in file)

    def test_models_and_going_on(self):
        done = self.run_rows(ROWS, "--jobs", "3", "--threads", "1")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(sorted((r["name"], r["circumstances"]["windows"], r["mean_kld"]) for r in self.runs()),
                         [("better", 8, 0.5), ("better", 16, 0.25), ("control", 8, 0.5), ("control", 16, 0.25)])
        self.assertEqual(self.runs()[0]["reconstruction"], {"blocks": 3, "improved": 2, "loss_ratio": 2 / 3,
                                                            "tokens_per_second": 100})
        self.assertGreater(self.runs()[0]["cpu_seconds"], 0)
        self.assertEqual(done.stdout.count("1.00 x control"), 2)
        self.assertLess(done.stdout.index("| control"), done.stdout.index("| better"))
        self.run_rows(ROWS)
        self.assertEqual(self.calls("quantize"), 4)
        self.run_rows(ROWS + [{"name": "new", "args": ""}])
        self.assertEqual(self.calls("quantize"), 6)

    def test_compact(self):
        self.run_rows([{"name": "rtn4-row", "args": ""}, {"name": "ldlq4-row", "args": "--x", "control": "rtn4-row"},
                       {"name": "preset-int4", "args": "--preset int4"}])
        shown = subprocess.run([sys.executable, os.path.join(os.path.dirname(RUN), "compact.py"), self.results],
                               stdout=subprocess.PIPE, check=True, text=True).stdout
        self.assertIn("a.gguf, 16 windows", shown)
        self.assertIn("| Hadamard + LDLQ, row seq | 4.00 / - / - | 0.250 / - / - | 1.00 / - / - |", shown)
        self.assertIn("| preset-int4 | 4.000 | 8.00 |", shown)

    def test_failures_and_time(self):
        done = self.run_rows([{"name": "bad", "args": "--bits 9"}, *ROWS])
        self.assertEqual(done.returncode, 1)
        self.assertIn("no such bits", done.stderr)
        self.assertEqual(len(self.runs()), 4)
        start = time.monotonic()
        done = self.run_rows([{"name": "slow", "args": "--slow"}], "--seconds", "2", "--jobs", "2")
        self.assertEqual(done.returncode, 1)
        self.assertLess(time.monotonic() - start, 20)
        self.assertEqual(len(self.runs()), 4)

    def test_queue(self):
        queue = self.write("queue", "# model name seconds\nb better\na con* 9999\n* better 1\n")
        done = self.run_rows(ROWS, "--queue", queue, "--seconds", "60", "--calib-windows", "32", "--calib-windows", "8")
        self.assertEqual(done.returncode, 1)
        self.assertIn("1 of 3 runs failed or found no time: a control", done.stderr)
        self.assertEqual([(r["name"], r["circumstances"]["windows"], r["circumstances"]["calibration_windows"])
                          for r in self.runs()], [("better", 8, 8), ("better", 16, 32)])
        self.write("queue", "a control soon later\n")
        self.assertIn("expected MODEL NAME [SECONDS]", self.run_rows(ROWS, "--queue", queue).stderr)

    def test_peers_are_made_in_turn(self):
        make = f"#!/bin/sh\necho $0 $* >> {self.log}\nfor a; do case $a in *.gguf) last=$a;; esac; done\n: > $last\n"
        for name in ("llama-quantize", "llama-imatrix"):
            os.chmod(self.write(name, make), 0o755)
        done = self.run_rows([{"name": "peer", "peer": "Q4_0"}], "--peers", os.path.join(self.folder, "peers"),
                             "--peers-bin", self.folder)
        with open(self.log) as file:
            made = file.read()
        self.assertEqual(made.count("llama-imatrix -m"), 2)
        self.assertEqual(made.count(".F32.gguf " + os.path.join(self.folder, "peers")), 2)
        self.assertEqual(done.returncode, 1)
        self.assertIn("a peer: cannot mmap an empty file", done.stderr)

    def test_peers_end_in_time(self):
        ended = os.path.join(self.folder, "ended")
        os.chmod(self.write("llama-quantize", f"#!/bin/sh\nsleep 4\n: > {ended}\n"), 0o755)
        done = self.run_rows([{"name": "peer", "peer": "Q4_0"}], "--peers", os.path.join(self.folder, "peers"),
                             "--peers-bin", self.folder, "--seconds", "1.5")
        self.assertIn("2 of 2 runs failed or found no time", done.stderr)
        time.sleep(4)
        self.assertFalse(os.path.exists(ended))

    def test_same_text_is_refused(self):
        self.write("calib", "text")
        done = self.run_rows(ROWS)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("same file", done.stderr)


if __name__ == "__main__":
    unittest.main()
