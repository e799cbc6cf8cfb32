"""crumb train as a user meets it: a whole job, being stopped and killed, gates, recipes that are none."""
import json
import os
import signal
import subprocess
import tempfile
import time
import unittest

from support import BINARY, TIMEOUT, CliTest, clean_environment, sample_text


def read(path):
    with open(path, "rb") as file:
        return file.read()


class Train(CliTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.start = cls.path("start.crumb")
        made = cls.run_crumb("quantize", cls.gguf, "-o", cls.start, "-q", "--grid", "seq", "--bits", "2", "--group",
                             "row", "--rotate", "64", "--embed-bits", "4", "--embed-group", "row")
        if made.returncode != 0:
            raise RuntimeError(made.stderr.decode())
        cls.text = cls.path("text.txt")
        with open(cls.text, "w") as file:
            file.write(sample_text())

    def recipe(self, **changes):
        fields = {"teacher": self.gguf, "start": self.start, "text": [self.text], "batch": 2, "window": 32,
                  "kept_windows": 8, "steps": 12, "warmup": 2, "rate": 3e-3, "report_every": 4, "evaluate_every": 4}
        fields.update(changes)
        handle, path = tempfile.mkstemp(dir=self.folder, suffix=".json")
        with os.fdopen(handle, "w") as file:
            json.dump(fields, file)
        return path

    def out(self):
        return os.path.join(tempfile.mkdtemp(dir=self.folder), "out.crumb")

    def whole(self, recipe):
        path = self.out()
        self.expect(0, "train", "--recipe", recipe, "-o", path, "-q")
        return read(path)

    def test_whole_job(self):
        path = self.out()
        done = self.expect(0, "train", "--recipe", self.recipe(), "-o", path, "--json", "--gate", "100")
        lines = [json.loads(line) for line in done.stdout.decode().splitlines()]
        self.assertEqual([line["event"] for line in lines], ["plan"] + 4 * ["progress"] + ["result"])
        self.assertEqual([line["step"] for line in lines[1:-1]], [0, 4, 8, 12])
        self.assertLess(lines[-2]["kept_kl"], 0.9 * lines[1]["kept_kl"])
        self.assertGreater(lines[-2]["changed_codes"], 0)
        for name in ("loss", "kl", "top1", "tokens_per_second", "seconds_left", "gradient_norm"):
            self.assertIn(name, lines[2])
        self.assertEqual(lines[-1]["end"], "done")
        self.assertEqual(lines[-1]["file_bytes"], os.path.getsize(path))
        self.assertGreater(lines[-1]["peak_rss_bytes"], 0)
        # The engine's check is of the same text, with 8-bit activations.
        self.assertAlmostEqual(lines[-1]["check"]["mean_kld"], lines[-2]["kept_kl"], delta=0.3 * lines[1]["kept_kl"])
        for word in ("needs: about", "tokens/s", "eta", "kept back: KL", "codes changed", "check: KL"):
            self.assertIn(word, done.stderr.decode())
        self.assertEqual(os.listdir(os.path.dirname(path)), ["out.crumb"])
        self.expect(0, "inspect", "--verify", path)
        stages = self.json_of("inspect", "--json", path)["recipe"]["stages"]
        self.assertEqual(stages[-1]["stage"], "distill")
        self.assertEqual(stages[-1]["tokens"], 12 * 2 * 32)
        self.expect(0, "run", "-m", path, "-n", "4", "hi")

    def test_same_bytes_with_any_threads_and_micro_batches(self):
        data = self.whole(self.recipe())
        path = self.out()
        self.expect(0, "train", "--recipe", self.recipe(), "-o", path, "-q", "-t", "1")
        self.assertEqual(read(path), data)

    def test_masters_of_another_model(self):
        first = self.whole(self.recipe())
        middle = self.recipe(masters=self.start)  # every master in the middle of its cell
        path = self.out()
        self.expect(0, "train", "--recipe", middle, "-o", path, "-q")
        self.assertNotEqual(read(path), first)
        stage = self.json_of("inspect", "--json", path)["recipe"]["stages"][-1]
        self.assertEqual(stage["recipe"]["masters"], self.start)
        again = self.out()
        self.expect(0, "train", "--recipe", self.recipe(), "--masters", self.start, "-o", again, "-q")
        self.assertEqual(self.json_of("inspect", "--json", again)["recipe"]["stages"][-1]["recipe"]["inputs"],
                         stage["recipe"]["inputs"])
        self.expect(2, "train", "--recipe", middle, "-o", self.start, "--force")

    def test_dry_run_says_what_it_takes(self):
        recipe = self.recipe()
        done = self.expect(0, "train", "--recipe", recipe, "--dry-run", "--json", "--steps", "100")
        plan = json.loads(done.stdout)
        self.assertEqual(plan["schema"], "crumb.train/1")
        self.assertEqual(plan["steps"], 100)
        self.assertGreater(plan["memory_bytes"], 0)
        self.assertGreater(plan["seconds"], 99 * plan["step_seconds"])
        self.assertRegex(done.stderr.decode(), r"needs: about [\d.]+ [MG]B of memory, \d+:\d\d")
        error = self.expect_error(5, "train", "--recipe", recipe, "-o", self.out(), "--mem", "1M")
        self.assertIn("training needs about", error)

    def test_time_is_up_and_goes_on(self):
        recipe = self.recipe()
        data = self.whole(recipe)
        path = self.out()
        command = ["train", "--recipe", recipe, "-o", path, "--json", "-q"]
        ends = []
        for _ in range(30):
            ends.append(json.loads(self.expect(0, *command, "--seconds", "1e-6").stdout.splitlines()[-1]))
            if ends[-1]["end"] == "done":
                break
        self.assertEqual([end["step"] for end in ends], list(range(1, 13)))
        self.assertEqual(read(path), data)

    def test_text_of_the_teacher_while_it_learns(self):
        script = self.write("script.json", json.dumps({"prefixes": [[5, 9], [17]], "headers": [[4, 8]], "end": 2}))
        kept = self.write("kept.bin", b"".join(bytes((i, 0)) for i in range(16)) * 32)
        generated = {"generate": {"script": script, "rows": 5}, "text": [], "kept_back": kept, "steps": 8}
        recipe = self.recipe(**generated)
        path = self.out()
        done = self.expect(0, "train", "--recipe", recipe, "-o", path)
        self.assertIn("the teacher writes 2 of the 2 windows of every step, none of them twice", done.stderr.decode())
        stage = self.json_of("inspect", "--json", path)["recipe"]["stages"][-1]
        self.assertEqual(stage["recipe"]["generate"]["rows"], 5)
        data, again = read(path), self.out()
        for _ in range(8):
            self.expect(0, "train", "--recipe", recipe, "-o", again, "-q", "--seconds", "1e-6", "-t", "1")
        self.assertEqual(read(again), data)
        beside = self.recipe(**dict(generated, text=[self.text], generate={"script": script, "share": .5}))
        self.assertNotEqual(self.whole(beside), data)
        self.assertNotEqual(self.whole(self.recipe(**dict(generated, seed=2))), data)
        # Another script is another job.
        stopped = self.out()
        self.expect(0, "train", "--recipe", recipe, "-o", stopped, "-q", "--seconds", "1e-6")
        self.write("script.json", json.dumps({"prefixes": [[5, 9], [18]]}))
        self.assertIn("of another recipe", self.expect_error(2, "train", "--recipe", recipe, "-o", stopped, "-q"))

    def test_bad_generation(self):
        script = self.write("script.json", json.dumps({"prefixes": [[5]]}))
        good = {"script": script}
        usage = [({"share": 0}, "generate.share"), ({"rows": 0}, "generate.rows"), ({"rats": 1}, "'generate.rats'"),
                 ({"temperature": 0}, "generate.temperature"), ({"script": ""}, "generate.script"),
                 ({"min_p": 2}, "generate.min_p"),
                 ({"script": self.write("bad.json", "{}")}, "generation script"),
                 ({"script": self.write("long.json", json.dumps({"prefixes": [[5] * 33]}))}, "prefix longer")]
        for changes, word in usage:
            recipe = self.recipe(generate=dict(good, **changes))
            self.assertIn(word, self.expect_error(2, "train", "--recipe", recipe, "-o", self.out()), changes)
        alone = self.recipe(generate=dict(good, share=.4), text=[])
        self.assertIn("data, text", self.expect_error(2, "train", "--recipe", alone, "-o", self.out()))
        nowhere = self.recipe(generate={"script": self.path("nowhere")})
        self.assertIn("nowhere", self.expect_error(4, "train", "--recipe", nowhere, "-o", self.out()))

    def test_compact_state_starts_another_optimiser(self):
        recipe, piece = self.recipe(), self.path("compact")
        self.expect(0, "train", "--recipe", recipe, "-o", self.out(), "-q", "--seconds", "1e-6", "--compact", piece)
        path = self.out()
        done = self.expect(0, "train", "--recipe", recipe, "-o", path, "--from-compact", piece)
        self.assertIn("goes on at step 1 with a new optimiser", done.stderr.decode())
        stages = self.json_of("inspect", "--json", path)["recipe"]["stages"]
        self.assertEqual(stages[-1]["restarts"], 1)

    def test_killed_at_any_time_goes_on_to_the_same_bytes(self):
        recipe = self.recipe(steps=30, save_seconds=1e-6)
        begin = time.monotonic()
        data = self.whole(recipe)
        whole = time.monotonic() - begin
        killed = 0
        for share in (0.3, 0.5, 0.65, 0.8, 0.95):
            path = self.out()
            command = [BINARY, "train", "--recipe", recipe, "-o", path, "-q"]
            for pause in (share * whole, 0.6 * whole, None):
                job = subprocess.Popen(command, env=clean_environment(self.folder), stderr=subprocess.PIPE)
                try:
                    job.communicate(timeout=pause if pause is not None else TIMEOUT)
                    self.assertEqual(job.returncode, 0)
                    break
                except subprocess.TimeoutExpired:
                    job.kill()
                    job.communicate()
                    killed += 1
                if os.path.exists(path):  # killed between the result and the exit
                    break
            self.assertEqual(read(path), data)
        self.assertGreater(killed, 0)

    def test_signals_save_and_the_same_command_goes_on(self):
        recipe = self.recipe(steps=40, window=64, batch=4, save_seconds=1e6)
        data = self.whole(recipe)
        for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
            path = self.out()
            command = [BINARY, "train", "--recipe", recipe, "-o", path, "--json", "-q"]
            job = subprocess.Popen(command, env=clean_environment(self.folder), stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
            for line in job.stdout:
                if json.loads(line).get("step", 0) >= 8:
                    break
            job.send_signal(number)
            begin = time.monotonic()
            _, errors = job.communicate(timeout=TIMEOUT)
            self.assertEqual(job.returncode, code, errors)
            self.assertIn(b"the same command goes on", errors)
            self.assertLess(time.monotonic() - begin, TIMEOUT / 2)
            self.assertFalse(os.path.exists(path))
            self.assertTrue(os.path.exists(path + ".state.a"))
            self.expect(0, *command[1:])
            self.assertEqual(read(path), data)

    def test_two_processes_share_every_batch(self):
        mpiexec = os.environ.get("CRUMB_MPIEXEC")
        if not mpiexec:
            self.skipTest("built without CRUMB_MPI")
        recipe = self.recipe(batch=4)

        def run(*launcher):
            path = self.out()
            command = [*launcher, BINARY, "train", "--recipe", recipe, "-o", path, "--json", "-q", "-t", "1"]
            env = clean_environment(self.folder, OMPI_ALLOW_RUN_AS_ROOT=1, OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1)
            done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=TIMEOUT)
            self.assertEqual(done.returncode, 0, done.stderr)
            lines = [json.loads(line) for line in done.stdout.splitlines()]
            return read(path), [line["kept_kl"] for line in lines if "kept_kl" in line]

        _, one = run()
        two, kept = run(mpiexec, "--oversubscribe", "-n", "2")
        self.assertEqual(len(kept), len(one))
        for a, b in zip(one, kept):
            self.assertAlmostEqual(a, b, delta=1e-3 * a)
        self.assertEqual(run(mpiexec, "--oversubscribe", "-n", "2")[0], two)

    def test_gate(self):
        path = self.out()
        error = self.expect_error(7, "train", "--recipe", self.recipe(gate=1e-9), "-o", path, "-q")
        self.assertIn("quality gate", error)
        self.assertFalse(os.path.exists(path))
        self.expect(0, "inspect", "--verify", path + ".rejected")
        short = self.recipe(gate=1, kept_windows=0)
        self.assertIn("kept-back", self.expect_error(2, "train", "--recipe", short, "-o", path))

    def test_state_of_another_job(self):
        path = self.out()
        self.expect(0, "train", "--recipe", self.recipe(), "-o", path, "-q", "--seconds", "1e-6")
        for changes in ({"rate": 1e-3}, {"steps": 13}, {"text": [self.write("other.txt", sample_text(3000))]}):
            error = self.expect_error(2, "train", "--recipe", self.recipe(**changes), "-o", path, "-q")
            self.assertIn("training state of another recipe", error)
        self.expect(0, "train", "--recipe", self.recipe(save_seconds=5), "-o", path, "-q")

    def test_bad_recipes(self):
        path = self.out()
        usage = [({"rats": 1}, "unknown field 'rats'"), ({"steps": "many"}, "steps"), ({"steps": 0}, "steps"),
                 ({"loss": {"kind": "l2"}}, "unknown loss: l2"), ({"loss": 3}, "loss"), ({"text": []}, "data, text"),
                 ({"text": "a.txt"}, "text"), ({"rate": -1}, "rate"), ({"warmup": 12}, "warmup"),
                 ({"teacher": ""}, "teacher"), ({"start": ""}, "start"), ({"window": 1 << 20}, "window"),
                 ({"inputs": "0123"}, "inputs")]
        for changes, word in usage:
            self.assertIn(word, self.expect_error(2, "train", "--recipe", self.recipe(**changes), "-o", path), changes)
        for text in ("", "[1]", "{", "\xff", "3"):
            self.expect_error(2, "train", "--recipe", self.write("bad.json", text), "-o", path)
        for missing in ("teacher", "start", "text", "data", "kept_back"):
            value = self.path("nowhere")
            changes = {missing: [value] if missing in ("text", "data") else value}
            self.assertIn("nowhere", self.expect_error(4, "train", "--recipe", self.recipe(**changes), "-o", path))
        self.expect_error(4, "train", "--recipe", self.path("nowhere"), "-o", path)
        self.assertIn("not a token file", self.expect_error(
            3, "train", "--recipe", self.recipe(data=[self.write("odd", "abc")]), "-o", path))
        too_short = self.recipe(text=[self.write("short.txt", "a b")])
        self.expect_error(3, "train", "--recipe", too_short, "-o", path)
        huge = self.write("huge.bin", b"\xff\xff" * 64)
        self.assertIn("token id", self.expect_error(
            3, "train", "--recipe", self.recipe(text=[], data=[huge]), "-o", path, "-q"))
        self.expect_error(2, "train", "--recipe", self.recipe(start=self.crumb, noise={"share": 0.5}), "-o", path)
        self.expect_error(2, "train", "--recipe", self.recipe(), "-o", self.start)
        self.expect_error(2, "train", "--recipe", self.recipe())
        self.expect_error(2, "train", "-o", path)
        self.assertEqual(os.listdir(os.path.dirname(path)), [])


if __name__ == "__main__":
    unittest.main()
