"""Widths by rules as a user meets them: --allocate, search emq, and what inspect shows of a plan."""
import json
import os
import random
import tempfile
import unittest

from support import CliTest

FORM = ["--method", "nearest", "--grid", "asym", "--group", "32", "--rotate", "0", "--calib-length", "80", "--calib-windows", "2"]


class Allocation(CliTest):
    def out(self, name):
        return os.path.join(tempfile.mkdtemp(dir=self.folder), name)

    def tensors(self, path):
        told = self.json_of("inspect", "--json", path)
        return {t["name"]: t["bits"] for t in told["tensors"] if t["name"].startswith("model.layers.") and t["grid"] != "none"}, told

    def test_every_rule_meets_the_target(self):
        for rule in ["ompq", "ompq-reversed", "random", "smallest", "weight-error"]:
            path = self.out("m.crumb")
            self.expect(0, "quantize", self.gguf, "-o", path, *FORM, "--allocate", rule, "--widths", "3,4", "--target-bpw", "4.2")
            bits, told = self.tensors(path)
            self.assertEqual(set(bits.values()), {3, 4}, rule)
            self.assertLessEqual(told["linear_bpw"], 4.2)
            self.assertEqual(told["recipe"]["allocation"]["method"], rule)
            shown = self.expect(0, "inspect", path).stdout.decode()
            self.assertRegex(shown, r"q_proj +[34]{2}  mean")
            # The recipe makes the same file.
            again, report = self.out("again.crumb"), path.replace(".crumb", ".report.json")
            self.expect(0, "quantize", self.gguf, "-o", again, "-q", "--recipe", report)
            with open(path, "rb") as a, open(again, "rb") as b:
                self.assertEqual(a.read(), b.read())

    def test_a_size_is_met_with_the_recipe_in_it(self):
        path = self.out("m.crumb")
        self.expect(0, "quantize", self.gguf, "-o", path, *FORM, "-q", "--allocate", "ompq", "--widths", "3,8", "--target-size", "100000")
        self.assertLessEqual(os.path.getsize(path), 100000)

    def test_bad_arguments(self):
        quantize = ["quantize", self.gguf, "-o", self.out("m.crumb"), "--allocate"]
        for args in [["ompq"], ["emq", "--target-bpw", "4"], ["random", "--target-bpw", "4", "--widths", "4,3"],
                     ["random", "--target-bpw", "4", "--widths", "4"], ["random", "--target-bpw", "4", "--widths", "4,5"],
                     ["random", "--target-bpw", "2.1"]]:
            self.expect_error(2, *quantize, *args)

    def plans(self, count):
        path = self.out("base.crumb")
        self.expect(0, "quantize", self.gguf, "-o", path, "-q", *FORM, "--bits", "4")
        names = list(self.tensors(path)[0])
        rng = random.Random(1)
        plans = []
        for seed in range(count):
            bits = "".join(rng.choice("234") for _ in names)
            plans.append({"seed": seed, "bits": bits, "kl": sum(4.0 ** -int(b) for b in bits)})
        file = self.out("plans.json")
        with open(file, "w") as out:
            json.dump({"matrices": names, "plans": plans}, out)
        return file

    def test_emq(self):
        plans, proxy = self.plans(24), self.out("proxy.json")
        search = ["search", "emq", self.gguf, "--bench", plans, "--population", "10", "--iterations", "30", "-q"]
        found = self.json_of(*search, "-o", proxy, "--json")
        self.assertEqual(found["schema"], "crumb.emq/1")
        self.assertTrue(found["proxy"]["formula"].startswith("mean("))
        self.assertIn("relative weight error", found["hand_made"])
        self.assertEqual(self.json_of(*search, "--json", "-t", "1"), found)
        path = self.out("m.crumb")
        self.expect(0, "quantize", self.gguf, "-o", path, "-q", *FORM, "--allocate", "emq", "--proxy", proxy, "--target-bpw", "4.5")
        told = self.tensors(path)[1]
        self.assertLessEqual(told["linear_bpw"], 4.5)
        self.assertEqual(told["recipe"]["allocation"]["proxy"]["formula"], found["proxy"]["formula"])
        self.expect_error(2, "search", "emq", self.gguf, "--bench", plans, "--widths", "3,4")
        self.expect_error(2, "search", "emq", self.gguf, "--bench", proxy)
        self.expect_error(2, "quantize", self.gguf, "-o", self.out("n.crumb"), "--allocate", "emq", "--proxy", plans, "--target-bpw", "4")


if __name__ == "__main__":
    unittest.main()
