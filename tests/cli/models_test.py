"""quantize, inspect, eval, bench and tokenize on the tiny model, and what they do with bad files."""
import json
import os
import random
import resource
import signal
import subprocess
import unittest

from support import BINARY, CliTest, clean_environment, sample_text

BENCH_FIELDS = """schema build_commit build_number cpu_info gpu_info backends model_filename model_type
  model_size model_n_params n_batch n_ubatch n_threads type_k type_v use_mmap embeddings n_prompt n_gen
  n_depth test_time avg_ns stddev_ns avg_ts stddev_ts samples_ns samples_ts isa bpw linear_bpw head_bits
  mem_bw_gbps roofline_pct pinned_pus governor cgroup_cpus loadavg stable rss_peak_bytes itl_ns
  logits_hash median_ts min_ts spread""".split()


def file_size_limit(limit):
    def set_limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    return set_limit


class Models(CliTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.text = cls.path("text.txt")
        with open(cls.text, "w", encoding="utf-8") as file:
            file.write(sample_text())

    def test_report_and_inspect_agree(self):
        with open(self.path("tiny.report.json"), encoding="utf-8") as file:
            report = json.load(file)
        self.assertEqual(report["schema"], "crumb.quantize/1")
        seen = self.json_of("inspect", self.crumb, "--json", "--verify")
        self.assertEqual(seen["schema"], "crumb.inspect/1")
        self.assertTrue(seen["verified"])
        for field in ["file_bytes", "linear_bpw", "head_bits", "total_bpw", "recipe"]:
            self.assertEqual(seen[field], report[field], field)
        plain = [{k: t[k] for k in ["name", "shape", "bits", "group", "grid", "bytes"]} for t in report["tensors"]]
        self.assertEqual([{k: t[k] for k in plain[0]} for t in seen["tensors"]], plain)
        self.assertEqual(seen["file_bytes"], os.path.getsize(self.crumb))
        self.assertEqual(seen["config"]["layers"], 2)

    def test_convert_and_back(self):
        """A GGUF file and a folder of a packed model say what it says, and nothing is replaced unasked."""
        perplexity = []
        ppl = ["eval", "ppl", "--window", "64", "-f", self.text, "--json", "-q", "--kv", "f32", "-m"]
        for name in ["made.gguf", "made"]:
            made = self.path(name)
            self.expect(0, "convert", self.crumb, "-o", made)
            perplexity.append(self.json_of(*ppl, made)["ppl"])
            self.expect_error(2, "convert", self.crumb, "-o", made)
            self.expect(0, "convert", self.crumb, "-o", made, "--force", "--type", "f16")
            ids = [self.expect(0, "tokenize", "-m", file, "a model").stdout
                   for file in [self.crumb, made]]
            self.assertEqual(ids[0], ids[1])
        self.assertEqual(perplexity[0], perplexity[1])
        bare = os.path.join(self.path("made"), "tokenizer.json")
        self.assertEqual(self.expect(0, "tokenize", "-m", bare, "a model").stdout, ids[0])
        self.expect_error(2, "convert", self.crumb)
        self.expect_error(2, "convert", self.crumb, "-o", self.crumb, "--to", "gguf", "--force")

    def test_convert_packed(self):
        """Blocks of a GGUF file hold the packed weights: read back, it is the same model."""
        plain, made = self.path("plain.crumb"), self.path("plain.gguf")
        self.expect(0, "quantize", self.gguf, "-o", plain, "--bits", "4", "--group", "32", "--grid", "lsq",
                    "--rotate", "0", "--embed-bits", "8", "--embed-group", "row", "-q")
        run = self.expect(0, "convert", plain, "-o", made, "--type", "packed")
        self.assertIn(b"14 Q4_0, 1 Q8_0, exact", run.stderr)
        self.assertLess(os.path.getsize(made), os.path.getsize(plain) * 1.3)
        ppl = ["eval", "ppl", "--window", "64", "-f", self.text, "--json", "-q", "-m"]
        floats = self.path("floats.gguf")
        self.expect(0, "convert", plain, "-o", floats)
        self.assertEqual(self.json_of(*ppl, made)["ppl"], self.json_of(*ppl, floats)["ppl"])
        self.expect_error(2, "convert", self.gguf, "-o", self.path("x.gguf"), "--type", "packed")
        self.expect_error(2, "convert", plain, "-o", self.path("x"), "--to", "hf", "--type", "q4_1")

    def test_inspect_gguf_and_render(self):
        seen = self.json_of("inspect", self.gguf, "--json")
        self.assertEqual(seen["total_bpw"], 32)
        rendered = self.expect(0, "inspect", self.crumb, "--render").stdout.decode()
        self.assertIn("Name three colours.", rendered)
        table = self.expect(0, "inspect", self.crumb, "--tensors").stdout.decode()
        self.assertIn("| model.layers.1.mlp.down_proj", table)

    def test_dry_run_writes_nothing(self):
        before = sorted(os.listdir(self.folder))
        plan = self.json_of("quantize", self.gguf, "--dry-run", "--json", "--bits", "2", "--group", "32")
        self.assertEqual({t["bits"] for t in plan["tensors"] if ".mlp." in t["name"]}, {2})
        self.assertEqual(sorted(os.listdir(self.folder)), before)

    def test_every_kind_of_checkpoint_runs(self):
        for i, options in enumerate([["--bits", "2", "--group", "row"], ["--bits", "3", "--group", "32"],
                                     ["--bits", "8", "--group", "64", "--grid", "lsq"],
                                     ["--bits", "4", "--group", "32", "--grid", "asym", "--search", "absmax"],
                                     ["--bits", "4", "--group", "row", "--rotate", "32"],
                                     ["--bits", "4", "--group", "32", "--embed-bits", "8"]]):
            out = self.path(f"kind{i}.crumb")
            shown = self.expect(0, "quantize", self.gguf, "-o", out, *options)
            self.assertIn(b"losses are against it", shown.stderr)
            self.expect(0, "inspect", out, "--verify")
            self.assertTrue(self.json_of("run", "hi", "-m", out, "-n", "4", "--json", "--ignore-eos")["ids"])

    def test_bits_matter(self):
        kld = {}
        for bits in ["8", "2"]:
            out = self.path(f"bits{bits}.crumb")
            self.expect(0, "quantize", self.gguf, "-o", out, "--bits", bits, "--group", "32", "--embed-bits", "8", "-q")
            kld[bits] = self.json_of("eval", "kl", "--base", self.gguf, "-m", out, "-f", self.text, "--window", "64",
                                     "--limit", "4", "--json", "-q")["mean_kld"]
        self.assertLess(kld["8"], kld["2"] / 10)

    def test_same_bytes_whatever_the_threads(self):
        images = []
        for threads in ["1", "2"]:
            out = self.path("threads" + threads + ".crumb")
            self.expect(0, "quantize", self.gguf, "-o", out, "-t", threads, "-q", "--rotate", "32")
            with open(out, "rb") as file:
                images.append(file.read())
        self.assertEqual(images[0], images[1])

    def test_output_is_never_the_source(self):
        with open(self.gguf, "rb") as file:
            before = file.read()
        link, twin = self.path("link.gguf"), self.path("twin.gguf")
        os.symlink(self.gguf, link)
        os.link(self.gguf, twin)
        for out in [self.gguf, link, twin]:
            self.assertIn("same file", self.expect_error(2, "quantize", self.gguf, "-o", out, "--force"))
        self.expect_error(2, "quantize", self.gguf, "-o", self.path("o.crumb"), "--report", twin, "--force")
        with open(self.gguf, "rb") as file:
            self.assertEqual(file.read(), before)

    def test_existing_output_needs_force(self):
        out = self.write("precious.crumb", "precious")
        self.assertIn("exists", self.expect_error(2, "quantize", self.gguf, "-o", out))
        with open(out, "rb") as file:
            self.assertEqual(file.read(), b"precious")
        self.expect(0, "quantize", self.gguf, "-o", out, "--force", "-q")
        self.expect(0, "inspect", out, "--verify")

    def test_no_room_for_the_output(self):
        out = self.path("noroom.crumb")
        self.expect_error(4, "quantize", self.gguf, "-o", out, "-q", preexec_fn=file_size_limit(8192))
        self.assertEqual([name for name in os.listdir(self.folder) if name.startswith("noroom")], [])
        self.expect_error(4, "quantize", self.gguf, "-o", "/dev/full/x.crumb", "-q")

    def test_truncated_files(self):
        for source in [self.gguf, self.crumb]:
            with open(source, "rb") as file:
                image = file.read()
            rng = random.Random(1)
            for size in [0, 1, 7, 8, 100, len(image) // 2, len(image) - 1] + [rng.randrange(len(image)) for _ in range(8)]:
                cut = self.write("cut", image[:size])
                self.expect_error(3, "run", "hi", "-m", cut, "-q")
                self.expect_error(3, "inspect", cut)

    def test_verify_names_the_damaged_tensor(self):
        with open(self.crumb, "rb") as file:
            image = bytearray(file.read())
        image[-1000] ^= 16
        bad = self.write("flipped.crumb", bytes(image))
        self.assertIn("model.", self.expect_error(3, "inspect", bad, "--verify"))

    def test_eval(self):
        ppl = self.json_of("eval", "ppl", "-m", self.crumb, "-f", self.text, "--window", "64", "--limit", "3", "--json", "-q")
        self.assertEqual(ppl["windows"], 3)
        self.assertGreater(ppl["ppl"], 1)
        every = self.json_of("eval", "ppl", "-m", self.crumb, "-f", self.text, "--window", "64", "--limit", "3", "--json",
                             "-q", "--all-positions")
        self.assertEqual((ppl["tokens"], every["tokens"]), (3 * 31, 3 * 63))
        same = self.json_of("eval", "kl", "--base", self.gguf, "-m", self.gguf, "-f", self.text, "--window", "64",
                            "--limit", "2", "--kv", "f32", "--json", "-q")
        self.assertEqual((same["mean_kld"], same["top1"], same["ppl_ratio"]), (0, 1, 1))
        self.expect_error(2, "eval", "ppl", "-m", self.crumb, "-f", self.write("short.txt", "a b"), "-q")

    def test_eval_logits(self):
        lines = self.write("ids.jsonl", '{"id": "a", "ids": [3, 4, 5]}\n{"id": "b", "ids": [60]}\n')
        out = self.path("logits.jsonl")
        self.expect(0, "eval", "logits", "-m", self.crumb, "--input", lines, "--top", "5", "-o", out, "-q")
        with open(out, encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        self.assertEqual([row["id"] for row in rows], ["a", "b"])
        self.assertEqual([len(top) for top in rows[0]["top_ids"]], [5, 5, 5])
        self.expect_error(3, "eval", "logits", "-m", self.crumb, "--input", self.write("bad.jsonl", '{"id": 1}\n'),
                          "-o", out, "-q")

    def test_signals_end_a_job(self):
        text = self.write("long.txt", sample_text(400000))
        for number, code in [(signal.SIGINT, 130), (signal.SIGTERM, 143)]:
            job = subprocess.Popen([BINARY, "eval", "ppl", "-m", self.crumb, "-f", text, "--window", "256"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_environment(self.folder))
            self.assertIn(b"window 256", job.stderr.readline())
            job.send_signal(number)
            out, _ = job.communicate(timeout=60)
            self.assertEqual((job.returncode, out), (code, b""))

    def test_bench(self):
        rows = self.json_of("bench", "-m", self.crumb, "-p", "8,16-32*2", "-n", "4", "-pg", "8,4", "-d", "0,16", "-r", "2",
                            "-o", "json", "-q")
        self.assertEqual([row["test"] for row in rows],
                         [name + depth for depth in ["", "@d16"] for name in ["pp8", "pp16", "pp32", "tg4", "pp8+tg4"]])
        for row in rows:
            self.assertEqual([field for field in BENCH_FIELDS if field not in row], [])
            self.assertEqual(len(row["samples_ts"]), 2)
            self.assertTrue(all(speed > 0 for speed in row["samples_ts"]))
            self.assertGreater(row["mem_bw_gbps"], 0.1)
        self.assertEqual(rows[0]["schema"], "crumb.bench/1")
        self.assertGreater(rows[3]["roofline_pct"], 0)
        # The same tokens in one step or in four: the last logits have the same bits.
        self.assertEqual(rows[2]["logits_hash"],
                         self.json_of("bench", "-m", self.crumb, "-p", "32", "-n", "0", "-b", "7", "-r", "1", "-t", "1",
                                      "-o", "json", "-q")[0]["logits_hash"])

    def test_bench_latency_table(self):
        table = self.json_of("bench", "--latency-table", "-m", self.crumb, "-r", "2", "-q")
        self.assertEqual((table["schema"], table["widths"]), ("crumb.latency/1", [2, 3, 4, 8]))
        self.assertEqual(len(table["costs"]), 14)
        self.assertTrue(all(ns > 0 for row in table["costs"].values() for ns in row))
        self.assertAlmostEqual(table["budget"], sum(row[2] for row in table["costs"].values()), delta=1)
        model = table["model"]
        self.assertGreater(model["predicted_ns"], model["rest_ns"])
        self.assertAlmostEqual(model["ratio"], model["predicted_ns"] / model["measured_ns"], places=6)

    def test_bench_formats(self):
        args = ["bench", "-m", self.crumb, "-p", "8", "-n", "4", "-r", "1", "-q"]
        table = self.expect(0, *args).stdout.decode()
        self.assertRegex(table, r"\| pp8 +\|")
        self.assertIn("memory read", table)
        csv = self.expect(0, *args, "-o", "csv").stdout.decode().splitlines()
        self.assertEqual(len(csv), 3)
        self.assertTrue(csv[0].startswith("schema,build_commit"))

    def test_tokenize(self):
        ids = self.json_of("tokenize", "hello  wörld", "-m", self.crumb, "--json")["ids"]
        text = self.expect(0, "tokenize", "-m", self.gguf, "--decode", ",".join(map(str, ids))).stdout.decode()
        self.assertEqual(text, "hello  wörld\n")
        special = self.json_of("tokenize", "<|im_end|>", "-m", self.crumb, "--json")["ids"]
        plain = self.json_of("tokenize", "<|im_end|>", "-m", self.crumb, "--json", "--no-special")["ids"]
        self.assertEqual(len(special), 1)
        self.assertGreater(len(plain), 1)

    def test_tokenize_lines(self):
        lines = self.write("strings.jsonl", '{"id": 7, "text": "ab"}\n{"id": "x", "category": "c", "text": ""}\n')
        out = self.path("ids.out")
        self.expect(0, "tokenize", "-m", self.crumb, "--input", lines, "-o", out)
        with open(out, encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        self.assertEqual([row["id"] for row in rows], [7, "x"])
        self.assertEqual(rows[1]["ids"], [])
        error = self.expect_error(3, "tokenize", "-m", self.crumb, "--input", self.write("bad2.jsonl", '{"id": 7}\n'))
        self.assertIn("line 1", error)


if __name__ == "__main__":
    unittest.main()
