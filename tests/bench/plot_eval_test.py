#!/usr/bin/env python3
"""bench/plot_eval.py on a comparison made here. Exit 77: matplotlib is absent."""
import copy
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import unittest

SCRIPT = os.path.join(os.environ["CRUMB_SOURCE_DIR"], "bench", "plot_eval.py")


def comparison():
    models = []
    for bits, acc, ppl in [(32.0, 0.5, 20.0), (4.2, 0.48, 22.0), (2.0, 0.4, 30.0)]:
        models.append({"label": f"m{bits}", "weights": f"INT{bits:.0f}", "file_bytes": 1, "linear_bpw": bits,
                       "head_bits": 4.0, "total_bpw": bits, "mean_kld": ppl / 20 - 1, "decode_tokens_per_s": 1000 / bits,
                       "tasks": {"piqa": {"n": 10, "value": acc, "stderr": 0.02},
                                 "wikitext2": {"n": 3, "value": ppl, "stderr": None}}})
    return {"schema": "crumb.eval.compare/1",
            "tasks": [{"name": "piqa", "metric": "acc", "floor": 0.5, "floor_name": "random"},
                      {"name": "wikitext2", "metric": "ppl", "floor": None, "floor_name": ""}],
            "models": models, "spearman": [{"measure": "mean_kld", "task": "piqa", "models": 3, "rho": -1.0}], "notices": []}


class PlotEval(unittest.TestCase):
    def draw(self, data, *args):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "c.json")
            with open(path, "w", encoding="utf-8") as file:
                file.write(data if isinstance(data, str) else json.dumps(data))
            done = subprocess.run([sys.executable, SCRIPT, *args, "-o", folder, path], capture_output=True, check=False)
            sizes = {name: os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder) if name != "c.json"}
            for name in sizes:
                with open(os.path.join(folder, name), "rb") as file:
                    self.assertEqual(file.read(4), b"\x89PNG")
            return done, sizes

    def test_every_kind(self):
        done, sizes = self.draw(comparison())
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(set(sizes), {"c-bits.png", "c-speed.png", "c-proxy.png"})
        self.assertGreater(min(sizes.values()), 5000)

    def test_perplexity_beside_divergence(self):
        data = comparison()
        data["spearman"].append({"measure": "wikitext2 ppl", "task": "piqa", "models": 3, "rho": -1.0})
        for model in data["models"][1:]:
            model["tasks"]["piqa"]["same_choice"] = 0.9
        done, sizes = self.draw(data, "--kind", "perplexity")
        self.assertEqual((done.returncode, set(sizes)), (0, {"c-perplexity.png"}), done.stderr)

    def test_what_lacks_data_is_skipped_and_said(self):
        data = copy.deepcopy(comparison())
        data["spearman"] = []
        for model in data["models"]:
            del model["decode_tokens_per_s"]
        done, sizes = self.draw(data)
        self.assertEqual(set(sizes), {"c-bits.png"})
        self.assertIn(b"speed: the file lacks the data", done.stderr)
        done, sizes = self.draw(data, "--kind", "speed")
        self.assertEqual((done.returncode, sizes), (2, {}))

    def test_other_files(self):
        for text in ["", "[]", "{}", json.dumps({"schema": "crumb.eval.tasks/1"})]:
            done, sizes = self.draw(text)
            self.assertEqual((done.returncode, sizes), (2, {}))
            self.assertEqual(done.stderr.count(b"error"), 1)


if __name__ == "__main__":
    if importlib.util.find_spec("matplotlib") is None:
        print("matplotlib is absent: skipped")
        sys.exit(77)
    unittest.main()
