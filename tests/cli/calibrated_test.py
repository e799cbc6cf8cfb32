"""Calibrated quantize as a user meets it: recipes, the quality gate, limits, and being killed at any call."""
import collections
import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest

from fault_test import TRACED, read, strace_refusal
from support import BINARY, MAKE_TINY, TIMEOUT, CliTest, clean_environment

QUICK = ["--method", "ldlq", "--embed-method", "ldlq", "--embed-bits", "4", "--calib-windows", "3",
         "--calib-length", "32"]


class Calibrated(CliTest):
    def out(self, name):
        return os.path.join(tempfile.mkdtemp(dir=self.folder), name)

    def make(self, path, *args):
        self.expect(0, "quantize", self.gguf, "-o", path, "-q", *args)
        return read(path)

    def test_presets(self):
        bits = {"int8": 8, "int4": 4, "int4-fast": 4, "int3": 3, "int2-ptq": 2}
        for preset, expected in bits.items():
            path = self.out("m.crumb")
            self.make(path, "--preset", preset, "--calib-windows", "3", "--calib-length", "32", "--gate", "100")
            told = json.loads(self.expect(0, "inspect", "--json", path).stdout)
            self.assertEqual(told["tensors"][2]["bits"], expected, preset)
            self.expect(0, "run", "-m", path, "-n", "4", "hi")

    def test_recipe_reproduces_the_file(self):
        first, second, third = self.out("a.crumb"), self.out("b.crumb"), self.out("c.crumb")
        data = self.make(first, *QUICK, "--order", "act", "--greedy", "1")
        recipe = self.path("recipe.json")
        with open(recipe, "wb") as file:
            file.write(self.expect(0, "inspect", "--json", first).stdout)
        self.assertEqual(self.make(second, "--recipe", recipe, "-t", "1"), data)
        report = first.replace(".crumb", ".report.json")
        self.assertEqual(self.make(third, "--recipe", report), data)
        self.assertIn("no further options", self.expect_error(
            2, "quantize", self.gguf, "-o", self.out("d.crumb"), "--recipe", recipe, "--bits", "4"))
        with open(recipe, "w") as file:
            file.write("{}")
        self.assertIn(recipe, self.expect_error(3, "quantize", self.gguf, "-o", self.out("e.crumb"), "--recipe", recipe))

    def test_recipe_with_a_text_of_its_own(self):
        text, other = self.path("text.txt"), self.path("other.txt")
        for path, word in [(text, "alpha beta "), (other, "beta gamma ")]:
            with open(path, "w") as file:
                file.write(word * 400)
        first, second = self.out("a.crumb"), self.out("b.crumb")
        data = self.make(first, *QUICK, "--calib", text)
        report = first.replace(".crumb", ".report.json")
        command = ["quantize", self.gguf, "-o", second, "-q", "--recipe", report]
        self.assertIn("text.txt", self.expect_error(2, *command))
        self.assertIn("another calibration text", self.expect_error(2, *command, "--calib", other))
        moved = self.path("renamed.txt")
        shutil.copy(text, moved)
        self.expect(0, *command, "--calib", moved)
        self.assertEqual(read(second), data)

    def test_cached_statistics(self):
        cache = self.path("statistics")
        options = [*QUICK, "--calib-inputs", "full"]
        data = self.make(self.out("a.crumb"), *options)
        self.assertEqual(self.make(self.out("b.crumb"), *options, "--calib-cache", cache), data)
        kept = {name: os.stat(os.path.join(cache, name)).st_mtime_ns for name in os.listdir(cache)}
        self.assertEqual(len(kept), 2)  # one a block
        self.assertEqual(self.make(self.out("c.crumb"), *options, "--calib-cache", cache, "-t", "1"), data)
        narrow = [*options, "--bits", "2"]
        self.assertEqual(self.make(self.out("d.crumb"), *narrow, "--calib-cache", cache),
                         self.make(self.out("e.crumb"), *narrow))
        self.assertEqual({name: os.stat(os.path.join(cache, name)).st_mtime_ns for name in os.listdir(cache)}, kept)
        self.make(self.out("f.crumb"), *options, "--calib-cache", cache, "--calib-seed", "2")
        self.assertEqual(len(os.listdir(cache)), 4)
        for args in ([*QUICK], ["--bits", "4"]):
            self.assertIn("--calib-inputs full", self.expect_error(
                2, "quantize", self.gguf, "-o", self.out("g.crumb"), *args, "--calib-cache", cache))
        with open(os.path.join(cache, next(iter(kept))), "r+b") as file:
            file.seek(64)
            file.write(b"damaged")
        self.expect_error(3, "quantize", self.gguf, "-o", self.out("h.crumb"), *options, "--calib-cache", cache)

    def test_gate(self):
        path = self.out("m.crumb")
        error = self.expect_error(7, "quantize", self.gguf, "-o", path, "-q", *QUICK, "--bits", "2", "--gate", "0")
        self.assertIn("quality gate", error)
        self.assertFalse(os.path.exists(path))
        self.expect(0, "inspect", "--verify", path + ".rejected")
        with open(path.replace(".crumb", ".report.json")) as file:
            check = json.load(file)["check"]
        self.assertGreater(check["mean_kld"], 0)
        self.assertEqual(check["gate"], 0)
        self.make(path, *QUICK, "--bits", "2", "--gate", "100", "--force")

    def test_memory_ceiling(self):
        path = self.out("m.crumb")
        error = self.expect_error(5, "quantize", self.gguf, "-o", path, "-q", *QUICK, "--mem", "100K")
        self.assertRegex(error, r"needs about [\d.]+ [MG]B")
        self.assertEqual(os.listdir(os.path.dirname(path)), [])
        self.make(path, *QUICK, "--mem", "2G")

    def test_memory_of_an_allocation(self):
        options = ["--method", "ldlq", "--calib-windows", "4", "--calib-length", "512", "-t", "1"]
        command = ["quantize", self.gguf, *options, "--dry-run"]

        def needed(*args):
            said = self.expect(0, *command, *args).stderr.decode()
            return float(re.search(r"needs: about ([\d.]+) MB", said).group(1))

        # The hidden states of every block and their gradients are held for it.
        self.assertGreater(needed("--target-bpw", "3.5"), needed())
        limit = str(int(1e6 * (needed() + needed("--target-bpw", "3.5")) / 2))
        path = self.out("m.crumb")
        self.expect_error(5, "quantize", self.gguf, "-o", path, "-q", *options, "--target-bpw", "3.5",
                          "--mem", limit)
        self.assertEqual(os.listdir(os.path.dirname(path)), [])

    @unittest.skipIf("asan" in BINARY or "tsan" in BINARY, "a sanitizer's own memory is not estimated")
    def test_memory_of_rounding_in_sequence(self):
        text, path = self.path("long.txt"), self.out("m.crumb")
        with open(text, "w") as file:
            file.write("".join(f"{i * i} of {i * 7919 % 1013}, then. " for i in range(16000)))
        options = ["quantize", self.gguf, "-o", path, "--calib", text, "--calib-windows", "250", "--calib-length",
                   "256", "--method", "ldlq", "--calib-inputs", "sequential", "--shift", ".5", "--shift-residual",
                   ".5", "--check-windows", "0", "-t", "2"]
        said = self.expect(0, *options, "--dry-run").stderr.decode()
        needed = 1e6 * float(re.search(r"needs: about ([\d.]+) MB", said).group(1))
        # What is freed goes back: blocks of a few MB, as here, are otherwise kept by the allocator as it pleases.
        self.expect(0, *options, "-q", env={"MALLOC_MMAP_THRESHOLD_": "65536"})
        with open(path.replace(".crumb", ".report.json")) as file:
            report = json.load(file)
        self.assertEqual(report["recipe"]["calibration"]["windows"], 250)
        self.assertLess(abs(report["peak_rss_bytes"] / needed - 1), 0.08, f"{report['peak_rss_bytes']} of {needed}")

    def test_wide_rows_of_the_embedding(self):
        path, again = self.out("m.crumb"), self.out("n.crumb")
        data = self.make(path, *QUICK, "--embed-wide", "32")
        told = json.loads(self.expect(0, "inspect", "--json", path).stdout)
        (embedding,) = [t for t in told["tensors"] if t["name"] == "model.embed_tokens"]
        self.assertEqual(embedding["bands"][0], [1, 8])
        self.assertEqual(embedding["bands"][1][1], 4)
        self.expect(0, "run", "-m", path, "-n", "4", "hi")
        self.assertEqual(self.make(again, "--recipe", path.replace(".crumb", ".report.json")), data)
        narrow, wide = (json.loads(self.expect(0, "eval", "kl", "--base", self.gguf, "-m", file, "-f", __file__,
                                               "--window", "64", "--limit", "8", "--json").stdout)["mean_kld"]
                        for file in (self.made_narrow(), path))
        self.assertLess(wide, narrow)
        self.assertIn("multiple of 32", self.expect_error(
            2, "quantize", self.gguf, "-o", self.out("o.crumb"), *QUICK, "--embed-wide", "100"))

    def made_narrow(self):
        path = self.out("narrow.crumb")
        self.make(path, *QUICK)
        return path

    def test_damping(self):
        path = self.out("m.crumb")
        self.make(path, *QUICK, "--damping", "0.1")
        told = json.loads(self.expect(0, "inspect", "--json", path).stdout)
        self.assertEqual([stage["damping"] for stage in told["recipe"]["stages"]], [0.1, 0.1])
        self.expect_error(2, "quantize", self.gguf, "-o", self.out("n.crumb"), *QUICK, "--damping", "0.5")
        self.assertIn("no further options", self.expect_error(
            2, "quantize", self.gguf, "-o", self.out("d.crumb"), "--recipe", path.replace(".crumb", ".report.json"),
            "--damping", "0.1"))

    def test_not_a_number(self):
        """Exit 6, naming the tensor, and nothing is left but the journal of finished blocks."""
        cases = [("model.layers.1.mlp.up_proj", "nan", "model.layers.1.mlp.up_proj"),
                 ("model.layers.1.post_attention_layernorm.weight", "1e30", "block 1, mlp_in")]
        for tensor, factor, named in cases:
            source = self.path("broken.gguf")
            subprocess.run([MAKE_TINY, source, "2", "64", "1024", tensor, factor], check=True, timeout=TIMEOUT)
            path = self.out("m.crumb")
            self.assertIn(named, self.expect_error(6, "quantize", source, "-o", path, "-q", *QUICK))
            self.assertEqual(os.listdir(os.path.dirname(path)), ["m.crumb.journal"])

    def test_interrupted_goes_on(self):
        self.killed_anywhere(QUICK, step=7)

    def test_interrupted_reconstruction_goes_on(self):
        self.killed_anywhere(["--bits", "3", "--calib-windows", "10", "--calib-length", "16", "--reconstruct",
                              "flexround", "--epochs", "2"], step=11)

    def test_interrupted_allocation_goes_on(self):
        self.killed_anywhere([*QUICK, "--target-bpw", "3.5", "--allocate-windows", "2"], step=11)

    def killed_anywhere(self, options, step):
        """The first and last two calls of a kind that writes files, and every `step`-th in between."""
        path = self.out("m.crumb")
        data = self.make(self.out("whole.crumb"), *options)
        refusal = strace_refusal(self.folder)
        if refusal:
            self.skipTest(refusal)
        command = [BINARY, "quantize", self.gguf, "-o", path, "-q", "--force", *options]
        log = self.path("trace")

        def traced(*injection, threads):
            done = subprocess.run(["strace", "-f", "-o", log, "-e", "trace=" + TRACED, *injection, *command,
                                   "-t", str(threads)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  timeout=TIMEOUT, env=clean_environment(self.folder, ASAN_OPTIONS="detect_leaks=0"))
            return done.returncode

        self.assertEqual(traced(threads=1), 0)
        counts = collections.Counter(re.findall(r"^\d+ +(\w+)\(", read(log).decode(errors="replace"), re.M))
        self.assertGreaterEqual(sum(counts[name] for name in ("rename", "renameat", "renameat2")), 4)
        wrong = []
        for call, total in counts.items():
            # Every file is written like every other.
            for number in sorted({1, 2, total - 1, total} | set(range(3, total, step)) - {0}):
                if number < 1:
                    continue
                shutil.rmtree(os.path.dirname(path))
                os.mkdir(os.path.dirname(path))
                code = traced("-e", f"inject={call}:signal=KILL:when={number}", threads=1)
                again = self.run_crumb(*command[1:], "-t", "2")
                left = sorted(name for name in os.listdir(os.path.dirname(path)) if ".tmp-" not in name)
                if code == 0 or again.returncode != 0 or read(path) != data or left != ["m.crumb", "m.report.json"]:
                    wrong.append((call, number, code, again.stderr, left))
        self.assertEqual(wrong, [])


if __name__ == "__main__":
    unittest.main()
