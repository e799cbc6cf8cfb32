"""Help, usage errors, environment: everything before a model runs."""
import json
import os
import shutil
import subprocess
import unittest

from support import BINARY, CliTest, clean_environment

VERBS = ["chat", "run", "serve", "bench", "quantize", "train", "eval", "search", "inspect", "tokenize", "convert", "topo", "doctor", "config", "completion", "version"]

USAGE_ERRORS = [
    [],
    ["frobnicate"],
    ["run", "--no-such-option"],
    ["run", "hi", "--temp", "warm"],
    ["run", "hi", "--temp", "nan"],
    ["run", "hi", "--temp", "inf"],
    ["run", "hi", "--temp", "1e999"],
    ["run", "hi", "--temp", "-1"],
    ["run", "hi", "--temp", ""],
    ["run", "hi", "-n", "12abc"],
    ["run", "hi", "-n", "0x10"],
    ["run", "hi", "-n", "99999999999999999999"],
    ["run", "hi", "-s", "-1"],
    ["run", "hi", "-n", "1", "-n", "2"],
    ["run", "hi", "--kv", "f64"],
    ["run", "hi", "--stop", ""],
    ["run", "hi", "-f", "file"],
    ["run", "hi", "--raw", "-sys", "be brief"],
    ["run", "hi", "-t", "0"],
    ["serve", "--port", "-1"],
    ["serve", "--queue", "many"],
    ["serve", "-np", "0"],
    ["bench", "-p", "1-"],
    ["bench", "-p", "0-8*2"],
    ["bench", "-p", "0", "-n", "0"],
    ["bench", "-pg", "5"],
    ["bench", "-o", "xml"],
    ["quantize"],
    ["quantize", "a.gguf"],
    ["quantize", "a.gguf", "-o", "b.crumb", "--bits", "5"],
    ["quantize", "a.gguf", "-o", "b.crumb", "--group", "48"],
    ["quantize", "a.gguf", "-o", "b.crumb", "--rotate", "63"],
    ["train"],
    ["train", "-o", "b.crumb"],
    ["train", "--recipe", "a.json"],
    ["train", "--recipe", "a.json", "-o", "b.crumb", "--steps", "0"],
    ["eval"],
    ["eval", "iq"],
    ["eval", "compare"],
    ["eval", "compare", "a.json", "--format", "xml"],
    ["eval", "ppl", "-m", "x"],
    ["eval", "kl", "-m", "x", "-f", "y"],
    ["inspect"],
    ["tokenize", "hi", "--decode", "1"],
    ["topo", "-t", "100000"],
    ["completion"],
    ["version", "extra"],
]


class Arguments(CliTest):
    def test_every_verb_explains_itself(self):
        for args in [[], *([verb] for verb in VERBS), ["eval", "ppl"], ["eval", "kl"], ["eval", "logits"],
                     ["eval", "suite"], ["eval", "compare"], ["eval", "piqa"]]:
            done = self.expect(0, *args, "--help")
            self.assertIn(b"crumb", done.stdout)
            self.assertEqual(done.stderr, b"", args)
        listing = self.expect(0, "--help").stdout.decode()
        for verb in VERBS:
            self.assertIn(f"\n  {verb} ", listing)

    def test_usage_errors(self):
        for args in USAGE_ERRORS:
            self.expect_error(2, *args)
            self.assertEqual(self.run_crumb(*args).stdout, b"", args)

    def test_range_is_named(self):
        line = self.expect_error(2, "run", "hi", "--top-p", "1.5", "-m", self.crumb)
        self.assertIn("--top-p", line)
        self.assertIn("from 0 to 1", line)
        self.assertIn("1.5", line)

    def test_json_mode_has_an_error_object(self):
        done = self.expect(2, "run", "hi", "-n", "x", "--json")
        error = json.loads(done.stdout)["error"]
        self.assertEqual(error["code"], "usage")
        self.assertIn("-n", error["message"])

    def test_no_model(self):
        # A copy far from the source folder, whose models/default it would find.
        binary = shutil.copy(BINARY, self.path("crumb-alone"))
        done = subprocess.run([binary, "run", "hi", "-n", "1"], capture_output=True, timeout=60, check=False,
                              env=clean_environment(self.folder))
        self.assertEqual(done.returncode, 2)
        self.assertIn(b"hint: ", done.stderr)

    def test_missing_file(self):
        self.expect_error(4, "run", "hi", "-m", self.path("absent.crumb"))
        self.expect_error(4, "inspect", self.path("absent.gguf"))
        self.expect_error(4, "run", "-f", self.path("absent.txt"), "-m", self.crumb)

    def test_environment(self):
        self.assertIn("CRUMB_THREADS", self.expect_error(2, "topo", env={"CRUMB_THREADS": "many"}))
        self.assertEqual(self.json_of("topo", "--json", env={"CRUMB_THREADS": 1})["threads"], 1)
        shown = self.expect(0, "version", "-v", env={"CRUMB_ISA": "scalar", "CRUMB_TREADS": 2}).stdout.decode()
        self.assertIn("CRUMB_ISA=scalar", shown)
        self.assertIn("CRUMB_TREADS=2 (unknown to crumb)", shown)
        answer = self.json_of("run", "hi", "-n", "2", "--json",
                              env={"CRUMB_MODEL": self.crumb, "CRUMB_ISA": "scalar", "CRUMB_THREADS": 1})
        self.assertEqual((answer["isa"], answer["threads"]), ("scalar", 1))
        refused = self.run_crumb("run", "hi", "-m", self.crumb, env={"CRUMB_ISA": "z80"})
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn(b"z80", refused.stderr)

    def test_machine_outputs(self):
        topo = self.json_of("topo", "--json")
        self.assertEqual(topo["schema"], "crumb.topo/1")
        self.assertGreaterEqual(topo["threads"], 1)
        version = self.json_of("version", "--json")
        self.assertRegex(version["version"], r"^\d+\.\d+\.\d+$")

    def test_doctor(self):
        doctor = self.json_of("doctor", "--json")
        self.assertTrue(doctor["good"], doctor)
        names = [finding["what"] for finding in doctor["findings"]]
        self.assertIn("kernels scalar", names)
        self.assertIn("memory", names)
        self.assertEqual(os.stat(os.path.join(self.folder, "state/crumb")).st_mode & 0o777, 0o700)


if __name__ == "__main__":
    unittest.main()
