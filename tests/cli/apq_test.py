"""The joint search as a user meets it: latencies, search apq, the plan carried out, and what a pruned file can be used for."""
import json
import os
import subprocess
import tempfile
import unittest

from support import MAKE_TINY, TIMEOUT, CliTest, sample_text

FORM = ["--method", "nearest", "--grid", "asym", "--group", "32", "--rotate", "0"]


class Apq(CliTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.source = cls.path("six.gguf")
        subprocess.run([MAKE_TINY, cls.source, "6", "64", "1024"], check=True, timeout=TIMEOUT)
        packed = cls.path("six.crumb")
        cls.run_crumb("quantize", cls.source, "-o", packed, "-q", *FORM, "--bits", "4")
        made = cls.run_crumb("bench", "--latency-table", "--pruned", "-m", packed, "-t", "1", "-r", "1", "-q")
        # What a tiny model's matrices take is noise: times by their bytes, so that limits mean the same everywhere.
        table = json.loads(made.stdout)
        for shape in table["shapes"]:
            shape["ns"] = [shape["rows"] * shape["cols"] * bits / 100 for bits in (2, 3, 4, 8)]
        sizes = {t["name"]: t["shape"] for t in json.loads(cls.run_crumb("inspect", "--json", packed).stdout)["tensors"]}
        table["costs"] = {name: [sizes[name][0] * sizes[name][1] * bits / 100 for bits in (2, 3, 4, 8)] for name in table["costs"]}
        table["budget"] = sum(ns[2] for ns in table["costs"].values())
        table["model"].update(rest_ns=100, head_ns=10, layer_ns=10, attention_ns=5)
        cls.latency = cls.path("latency.json")
        with open(cls.latency, "w") as file:
            json.dump(table, file)
        with open(cls.path("text.txt"), "w") as file:
            file.write(sample_text())

    def out(self, name):
        return os.path.join(tempfile.mkdtemp(dir=self.folder), name)

    def search(self, *more):
        return ["search", "apq", self.source, "--latency", self.latency, "--samples", "12", "--rounded", "16", "--held-out", "5", "--generations", "5",
                "--population", "8", "--verify", "2", "--rounds", "1", "--windows", "1", "--length", "32", "--importance-windows", "1", "--group", "32",
                "--calib", self.path("text.txt"), "-q", *more]

    def test_plan_from_search_to_file(self):
        plan = self.out("plan.json")
        found = self.json_of(*self.search("--limits", "0.7,0.95", "-o", plan, "--json"))
        self.assertEqual(found["schema"], "crumb.apq/1")
        tight, loose = found["limits"]
        self.assertLessEqual(loose["joint"]["kl"], tight["joint"]["kl"])
        self.assertLessEqual(tight["joint"]["ns"], tight["ns"])
        self.assertTrue(tight["sequential"])
        # From its journal, on one thread: the same but for the seconds.
        again = self.json_of(*self.search("--limits", "0.7,0.95", "-o", plan, "--json", "-t", "1"))
        for report in (found, again):
            del report["seconds"]
        self.assertEqual(again, found)

        path = self.out("m.crumb")
        apply = ["quantize", self.source, "-q", *FORM, "--allocate", "apq", "--plan", plan]
        self.expect_error(3, *apply, "-o", path)  # which limit?
        self.expect(0, *apply, "--plan-limit", "0.7", "-o", path)
        told = self.json_of("inspect", "--json", path)
        self.assertEqual(told["recipe"]["allocation"], {"method": "apq", "limit": 0.7})
        bits = {t["name"]: t["bits"] for t in told["tensors"]}
        for name, width in tight["joint"]["plan"]["bits"].items():
            self.assertEqual(bits[name], width)
        self.assertEqual(len(told["config"]["pruned"]["kept"]), told["config"]["layers"])
        self.assertIn("layers left", self.expect(0, "inspect", path).stdout.decode())
        # The recipe makes the same file, the engine runs it, the source is what it is measured against.
        again = self.out("again.crumb")
        self.expect(0, "quantize", self.source, "-o", again, "-q", "--recipe", path.replace(".crumb", ".report.json"))
        with open(path, "rb") as a, open(again, "rb") as b:
            self.assertEqual(a.read(), b.read())
        kl = self.json_of("eval", "kl", "--base", self.source, "-m", path, "-f", self.path("text.txt"), "--window", "64", "--limit", "1", "--json", "-q")
        self.assertGreater(kl["mean_kld"], 0)
        # Other formats have no words for it; nor can it be pruned again.
        sizes = {tuple(layer[1:]) for layer in told["config"]["pruned"]["kept"]}
        if len(sizes) > 1:
            self.assertIn("pruned", self.expect_error(3, "convert", path, "-o", self.out("m.gguf"), "-q"))
        self.expect_error(2, "search", "apq", path, "--latency", self.latency)

    def test_a_pruned_file_is_calibrated_and_rounded_again(self):
        plan, path, again = self.out("plan.json"), self.out("m.crumb"), self.out("again.crumb")
        self.expect(0, *self.search("--limits", "0.7", "-o", plan))
        ldlq = ["--method", "ldlq", "--group", "32", "--calib", self.path("text.txt"), "--calib-length", "64", "--calib-windows", "4", "-q"]
        self.expect(0, "quantize", self.source, "-o", path, *ldlq, "--allocate", "apq", "--plan", plan)
        self.expect(0, "quantize", path, "-o", again, *ldlq, "--bits", "8")
        kept = [self.json_of("inspect", "--json", file)["config"]["pruned"]["kept"] for file in (path, again)]
        self.assertEqual(kept[0], kept[1])

    def test_speed_as_a_target(self):
        with open(self.latency) as file:
            table = json.load(file)
        four = table["model"]["rest_ns"] + table["budget"]
        quantize = ["quantize", self.source, "-q", *FORM, "--widths", "3,4,8", "--calib", self.path("text.txt"), "--calib-length", "80"]
        path = self.out("m.crumb")
        # A little slower than all at 4 bits leaves room for some at 8.
        self.expect(0, *quantize, "-o", path, "--allocate", "smallest", "--target-tps", str(0.97e9 / four), "--latency", self.latency)
        told = self.json_of("inspect", "--json", path)
        spent = sum(table["costs"][t["name"]][[2, 3, 4, 8].index(int(t["bits"]))] for t in told["tensors"] if t["name"] in table["costs"])
        self.assertLessEqual(spent + table["model"]["rest_ns"], four / 0.97)
        self.expect_error(2, *quantize, "-o", self.out("n.crumb"), "--allocate", "smallest", "--target-tps", "1e9", "--latency", self.latency)
        self.expect_error(2, *quantize, "-o", self.out("n.crumb"), "--target-tps", "100", "--latency", self.latency)
        self.expect_error(2, *quantize, "-o", self.out("n.crumb"), "--allocate", "smallest", "--target-tps", "100")

    def test_bad_arguments_and_files(self):
        missing = os.path.join(self.folder, "no", "such", "plan.json")
        self.expect_error(4, *self.search("-o", missing))
        self.assertFalse(os.path.exists(os.path.dirname(missing)))
        self.expect_error(4, "search", "emq", self.source, "--bench", self.latency, "-o", missing)
        self.expect_error(2, "search", "apq", self.source)
        self.expect_error(2, "search", "other", self.source)
        self.expect_error(2, *self.search("--widths", "3,8"))
        self.expect_error(2, *self.search("--limits", "x"))
        self.expect_error(2, *self.search("--limits", "0.06"))  # cannot be met
        self.expect_error(2, "search", "apq", self.source, "--latency", self.path("text.txt"))
        self.expect_error(2, "search", "apq", self.gguf, "--latency", self.write("empty.json", "{}"))
        self.expect_error(2, "search", "apq", self.gguf, "--latency", self.write("empty.json", '{"schema":1}'))
        quantize = ["quantize", self.source, "-o", self.out("m.crumb"), "--allocate", "apq"]
        self.expect_error(2, *quantize)
        self.expect_error(3, *quantize, "--plan", self.write("plan", "[]"))
        self.expect_error(3, *quantize, "--plan", self.write("plan", '{"limits":[{"limit":0.7}]}'))
        for joint in ("3", '{"plan":3}', '{"plan":{"pruning":1,"bits":{}}}'):
            self.expect_error(3, *quantize, "--plan", self.write("plan", '{"limits":[{"limit":0.7,"joint":%s}]}' % joint))
        self.expect_error(2, *quantize, "--plan", "plan", "--bits", "4")


if __name__ == "__main__":
    unittest.main()
