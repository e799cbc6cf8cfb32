"""Benchmarks through the whole binary, on the tiny model and invented questions."""
import csv
import io
import json
import os
import signal
import subprocess
import time
import unittest

from support import BINARY, CliTest, clean_environment, sample_text

SUBJECTS = ["glass_blowing", "kites"]
ITEMS = 40


def words(seed, n):
    return " ".join("abcdefghij"[(seed * 7 + i * i) % 10] * (1 + (seed + i) % 3) for i in range(n))


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def invented(task):
    """ITEMS lines of a task, and its few-shot lines if it has some."""
    lines = []
    for i in range(ITEMS):
        common = {"id": f"{task}/{i}", "question": words(i, 6) + "?", "answer": i % 2}
        lines.append({
            "piqa": lambda: {**common, "choices": [words(i + 1, 3), words(i + 2, 4)]},
            "boolq": lambda: {**common, "passage": words(i, 12), "choices": ["no", "yes"]},
            "winogrande": lambda: {**common, "contexts": [words(i, 5), words(i + 3, 5)], "continuation": words(i, 3)},
            "lambada_openai": lambda: {"id": common["id"], "context": words(i, 9), "target": words(i, 1)},
            "snli": lambda: {"id": common["id"], "premise": words(i, 7), "hypothesis": words(i, 3), "answer": i % 3},
            "mmlu": lambda: {**common, "subject": SUBJECTS[i % 2], "choices": [words(i + j, 2) for j in range(4)]},
            "bbq": lambda: {**common, "category": "Age", "condition": ["ambig", "disambig"][i // 2 % 2],
                            "polarity": ["neg", "nonneg"][i % 2], "context": words(i, 8),
                            "choices": [words(i + j, 2) for j in range(3)],
                            "choice_tags": ["old", "nonOld", "unknown"], "stereotyped_groups": ["old"]},
            "truthfulqa": lambda: {**common, "mc1": {"choices": [words(i + j, 3) for j in range(3)], "labels": [0, 1, 0]},
                                   "mc2": {"choices": [words(i + j, 3) for j in range(4)], "labels": [0, 1, 0, 1]}},
        }[task]())
    shots = [{"id": f"shot/{s}/{i}", "subject": s, "question": words(i, 4), "choices": list("wxyz"), "answer": i % 4}
             for s in SUBJECTS for i in range(5)] if task == "mmlu" else []
    return lines, shots


TASKS = ["piqa", "boolq", "winogrande", "lambada_openai", "snli", "mmlu", "bbq", "truthfulqa"]


class Eval(CliTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.data = cls.path("data")
        for task in TASKS:
            os.makedirs(os.path.join(cls.data, task))
            lines, shots = invented(task)
            for name, records in [("dev", lines), ("fewshot", shots)]:
                if records:
                    with open(os.path.join(cls.data, task, name + ".jsonl"), "w", encoding="utf-8") as file:
                        file.writelines(json.dumps(record) + "\n" for record in records)
        os.makedirs(os.path.join(cls.data, "wikitext2"))
        with open(os.path.join(cls.data, "wikitext2", "test_half_a.raw"), "w", encoding="utf-8") as file:
            file.write(sample_text())
        cls.any_threads = ["--data", cls.data, "-q", "--no-cache", "--window", "64"]
        cls.common = [*cls.any_threads, "-t", "1"]

    def task(self, name, *args, model=None):
        return self.json_of("eval", name, "-m", model or self.crumb, *self.common, "--json", *args)

    def test_a_task_has_the_fields_others_rely_on(self):
        report = self.task("piqa", "--reference", self.gguf)
        self.assertEqual(report["schema"], "crumb.eval.tasks/1")
        piqa = report["piqa"]
        self.assertEqual((piqa["n"], piqa["available"]), (ITEMS, ITEMS))
        for field in ["acc", "acc_norm", "stderr", "nll", "agreement", "kappa", "won", "lost", "delta", "delta_stderr",
                      "delta_ci95", "p", "delta_nll", "same_choice", "floors"]:
            self.assertIn(field, piqa)
        self.assertAlmostEqual(piqa["acc_norm"] - piqa["delta"], piqa["reference"])
        self.assertAlmostEqual(piqa["agreement"], 1 - (piqa["won"] + piqa["lost"]) / ITEMS)
        self.assertEqual(report["reference"]["weights"].split()[0], "F32")
        self.assertEqual(self.task("piqa", "--limit", "7")["piqa"]["n"], 7)

    def test_suite_names_what_has_no_data(self):
        report = self.json_of("eval", "suite", "-m", self.crumb, *self.common, "--json", "--limit", "4")
        for name in ["piqa", "boolq", "winogrande", "lambada_openai", "snli", "mmlu", "bbq", "truthfulqa_mc1",
                     "truthfulqa_mc2", "wikitext2"]:
            self.assertEqual(report[name]["n"], 4, name)
        self.assertTrue(any(line.startswith("hellaswag: no data") for line in report["not_scored"]))
        for name in ["bias_ambig", "bias_disambig", "acc_ambig"]:
            self.assertIn(name, report["bbq"])
        self.assertIn("acc_subjects", report["mmlu"])
        self.assertIn("ppl", report["lambada_openai"])
        self.assertIn("ppl", report["wikitext2"])
        self.expect_error(4, "eval", "hellaswag", "-m", self.crumb, *self.common)

    def test_data_of_the_user_in_its_documented_form(self):
        folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "eval", "user_data")
        args = ["eval", "suite", "-m", self.crumb, "--data", folder, "-q", "--no-cache", "--json", "--max-tokens", "5",
                "--tasks", "ceval,snli,cnn_dailymail,xsum,flores,followbench"]
        report = self.json_of(*args)
        for task, metric in [("ceval", "acc"), ("snli", "acc"), ("cnn_dailymail", "rougeL"), ("xsum", "rouge2"),
                             ("flores", "bleu"), ("followbench", "ssr")]:
            self.assertIn(metric, report[task], task)
            self.assertEqual(report[task]["n"], report[task]["available"])
        one = self.expect(0, *args, "--side-by-side", "1", "-t", "1").stdout
        self.assertEqual(self.expect(0, *args, "--side-by-side", "7", "-t", "2").stdout, one)

    def test_threads_and_cache_types(self):
        one = self.expect(0, "eval", "suite", "-m", self.crumb, *self.any_threads, "--json", "-t", "1", "--tasks", "piqa,bbq")
        two = self.expect(0, "eval", "suite", "-m", self.crumb, *self.any_threads, "--json", "-t", "2", "--tasks", "piqa,bbq")
        self.assertEqual(one.stdout, two.stdout)
        self.assertNotEqual(self.task("piqa", "--kv", "f32")["piqa"]["nll"], self.task("piqa")["piqa"]["nll"])

    def test_killed_at_any_point_gives_the_same_report(self):
        slow = self.path("slow.gguf")
        made = subprocess.run([os.environ["CRUMB_MAKE_TINY"], slow, "6", "256", "512"], check=False, timeout=120)
        self.assertEqual(made.returncode, 0)
        args = ["eval", "mmlu", "-m", slow, "--data", self.data, "--json", "-q", "-t", "1"]
        whole = self.expect(0, *args, "--no-cache").stdout
        cache = self.path("cache")
        codes = set()
        for attempt, number in enumerate([signal.SIGTERM, signal.SIGKILL, signal.SIGINT]):
            with subprocess.Popen([BINARY, *args, "--cache", cache], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                  env=clean_environment(self.folder)) as process:
                time.sleep(0.3 + 0.2 * attempt)
                process.send_signal(number)
                codes.add(process.wait(timeout=60))
        self.assertLessEqual(codes, {0, 143, -9, 130})
        self.assertEqual(self.expect(0, *args, "--cache", cache).stdout, whole)
        again = self.expect(0, *[a for a in args if a != "-q"], "--cache", cache)
        self.assertEqual(again.stdout, whole)
        self.assertIn(b"kept from before", again.stderr)

    def test_cache_is_in_the_users_cache_folder(self):
        args = ["eval", "piqa", "-m", self.crumb, "--data", self.data, "-q", "--limit", "3"]
        self.expect(0, *args, env={"XDG_CACHE_HOME": self.path("xdg")})
        self.assertEqual(len(os.listdir(self.path("xdg/crumb/eval"))), 1)
        self.expect(0, *args, env={"CRUMB_CACHE": self.path("own"), "CRUMB_DATA": self.data})
        self.assertEqual(len(os.listdir(self.path("own"))), 1)

    def reports(self):
        paths = []
        for name, model in [("full", self.gguf), ("int4", self.crumb)]:
            paths.append(self.path(name + ".json"))
            self.expect(0, "eval", "suite", "-m", model, *self.common, "--tasks", "piqa,bbq,wikitext2", "-o", paths[-1])
        return paths

    def test_compare_reports_and_models(self):
        full, int4 = self.reports()
        table = self.json_of("eval", "compare", full, int4, "--json")
        self.assertEqual(table["schema"], "crumb.eval.compare/1")
        self.assertEqual([m["label"] for m in table["models"]], ["tiny.gguf", "tiny.crumb"])
        direct = self.task("piqa", "--reference", self.gguf)["piqa"]
        piqa = table["models"][1]["tasks"]["piqa"]
        for field in ["delta", "delta_stderr", "delta_ci95", "won", "lost", "kappa", "delta_nll", "same_choice"]:
            self.assertEqual(piqa[field], direct[field], field)
        models = self.json_of("eval", "compare", self.gguf, self.crumb, *self.common, "--tasks", "piqa,bbq,wikitext2",
                              "--json")
        self.assertEqual(models, table)
        rows = list(csv.DictReader(io.StringIO(self.expect(0, "eval", "compare", full, int4, "--format", "csv").stdout.decode())))
        self.assertEqual(len(rows), 6)
        self.assertAlmostEqual(float(rows[3 + [r["task"] for r in rows[3:]].index("piqa")]["delta"]), direct["delta"])
        text = self.expect(0, "eval", "compare", full, int4, full).stdout.decode()
        self.assertIn("tiny.gguf (2)", text)
        self.assertIn("Rank correlation", text)

    def test_reports_of_other_items_are_not_paired(self):
        full, _ = self.reports()
        other = self.write("other.json", read(full).replace('"data":"', '"data":"0'))
        table = self.json_of("eval", "compare", full, other, "--json")
        self.assertNotIn("delta", table["models"][1]["tasks"]["piqa"])
        self.assertEqual(len(table["notices"]), 3)

    def test_damaged_files(self):
        full, _ = self.reports()
        whole = read(full)
        for text in ["", "{}", "[]", whole[:-20], whole.replace("crumb.eval.tasks", "other"), whole.replace('"n":40', '"n":"x"')]:
            self.expect_error(3, "eval", "compare", self.write("bad.json", text))
        bad = self.path("bad_data")
        os.makedirs(os.path.join(bad, "piqa"), exist_ok=True)
        for line in ["x", '{"id":"1"}', '{"id":"1","question":"q","choices":["a"],"answer":1}', ""]:
            with open(os.path.join(bad, "piqa", "dev.jsonl"), "w", encoding="utf-8") as file:
                file.write(line)
            self.expect_error(3, "eval", "piqa", "-m", self.crumb, "--data", bad, "-q", "--no-cache", "-t", "1")
        self.expect_error(2, "eval", "suite", "-m", self.crumb, *self.common, "--tasks", "piqa,nothing")
        self.expect_error(2, "eval", "piqa", "-m", self.crumb, *self.common, "--kl")

    def test_efficiency_and_divergence(self):
        report = self.task("wikitext2", "--efficiency", "--kl", "--reference", self.gguf, "--limit", "2")
        e = report["efficiency"]
        for field in ["prefill_tokens_per_s", "decode_tokens_per_s", "peak_rss_bytes", "kv_bytes_per_token"]:
            self.assertGreater(e[field], 0, field)
        self.assertTrue(e["energy"])
        if e["joules_per_token"] is None:
            self.assertIn("not measured", e["energy"])
        text = self.path("kl.txt")
        with open(text, "w", encoding="utf-8") as file:
            file.write(sample_text())
        kl = self.json_of("eval", "kl", "--base", self.gguf, "-m", self.crumb, "-f", text, "--window", "64", "--limit", "2",
                          "--json", "-q")
        self.assertEqual(report["kl"]["mean_kld"], kl["mean_kld"])
        self.assertAlmostEqual(report["wikitext2"]["ppl"] / kl["ppl"], 1, places=6)


if __name__ == "__main__":
    unittest.main()
