"""estimate says what run takes: peak resident memory within 5 %, and 2 MB for what a process varies by."""
import os
import resource
import subprocess
import unittest

from support import BINARY, CliTest, clean_environment, sample_text

MODEL = os.path.join(os.environ.get("CRUMB_SOURCE_DIR", ""), "models", "checkpoints",
                     "SmolLM2-135M-Instruct.Q4_1.gguf")


def peak_rss(command, env):
    """Largest resident size of one process, in bytes."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        done = subprocess.run(command, env=env, check=False)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        os.write(write, f"{done.returncode} {peak}".encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    code, peak = os.read(read, 100).split()
    os.close(read)
    return int(code), int(peak)


class Estimate(CliTest):
    def test_as_if_quantized(self):
        def said(*args):
            return self.json_of("estimate", self.gguf, "-t", "1", "--json", *args)
        preset, target = said("--preset", "int3"), said("--preset", "int3", "--target-bpw", "2.5")
        self.assertLess(target["file_bytes"], preset["file_bytes"])
        self.assertGreaterEqual(target["quantize_peak_bytes"], preset["quantize_peak_bytes"])
        self.assertGreater(preset["quantize_peak_bytes"], said("--bits", "3")["quantize_peak_bytes"])
        self.expect_error(2, "estimate", self.gguf, "--preset", "int3", "--bits", "3")
        self.expect_error(2, "estimate", self.gguf, "--target-bpw", "3")

    def check(self, model, context, kv, *options):
        said = self.json_of("estimate", model, "-c", str(context), "--kv", kv, "-t", "2", "--json")
        self.assertEqual(said["schema"], "crumb.estimate/1")
        parts = [said[name] for name in ["weights_bytes", "kv_bytes", "activation_bytes", "program_bytes"]]
        self.assertEqual(said["total_bytes"], sum(parts))
        # A prompt that leaves no position of the context unused but a few.
        text = self.write("prompt.txt", sample_text()[: 8 * context])
        count = len(self.json_of("tokenize", "-m", model, "--json", sample_text()[: 8 * context])["ids"])
        if count > context - 8:
            text = self.write("prompt.txt", sample_text()[: 8 * context * (context - 8) // count - 8])
        code, peak = peak_rss(
            [BINARY, "run", "-m", model, "-c", str(context), "--kv", kv, "-t", "2", "--raw", "--temp", "0",
             "-n", str(context), "--ignore-eos", "-q", "-f", text, *options], clean_environment(self.folder))
        self.assertEqual(code, 0)
        self.assertLess(abs(peak - said["total_bytes"]), 0.05 * peak + 2e6,
                        f"{context} tokens, {kv} {options}: said {said['total_bytes']}, took {peak}")

    @unittest.skipIf("asan" in BINARY or "tsan" in BINARY, "a sanitizer's own memory is not estimated")
    def test_tiny_model(self):
        for options in [(), ("--mmap",)]:
            self.check(self.crumb, 64, "i8", *options)
            self.check(self.crumb, 1000, "f16", *options)

    @unittest.skipIf("asan" in BINARY or "tsan" in BINARY, "a sanitizer's own memory is not estimated")
    @unittest.skipUnless(os.path.exists(MODEL), "no real model (models/fetch.sh)")
    def test_real_model(self):
        packed = self.path("smol.crumb")
        planned = self.json_of("estimate", MODEL, "--bits", "2", "--group", "row", "--grid", "seq",
                               "--embed-bits", "4", "--embed-group", "row", "-t", "2", "--json")
        code, peak = peak_rss(
            [BINARY, "quantize", MODEL, "-o", packed, "--bits", "2", "--group", "row", "--grid", "seq",
             "--embed-bits", "4", "--embed-group", "row", "-q"], clean_environment(self.folder))
        self.assertEqual(code, 0)
        # The header (vocabulary, template) is not part of the plan.
        self.assertLess(abs(os.path.getsize(packed) - planned["file_bytes"]), 0.05 * planned["file_bytes"])
        self.assertLess(abs(peak - planned["quantize_peak_bytes"]), 0.05 * peak + 2e6,
                        f"quantize: said {planned['quantize_peak_bytes']}, took {peak}")
        for options in [(), ("--mmap",)]:
            self.check(packed, 256, "i8", *options)
            self.check(packed, 1024, "f16", *options)

    def test_slots_share_the_weights(self):
        one = self.json_of("estimate", self.crumb, "--json")
        four = self.json_of("estimate", self.crumb, "--slots", "4", "--json")
        self.assertEqual(four["weights_bytes"], one["weights_bytes"])
        self.assertEqual(four["kv_bytes"], 4 * one["kv_bytes"])
        self.assertTrue(one["fits"])
        text = self.expect(0, "estimate", self.gguf, "--bits", "2", "--group", "32").stdout.decode()
        self.assertIn("the .crumb that quantize would write", text)

    def test_bad_requests(self):
        self.expect_error(2, "estimate", self.crumb, "-c", "99999999")
        self.expect_error(2, "estimate", self.crumb, "--group", "32")
        self.expect_error(4, "estimate", self.path("missing.crumb"))


if __name__ == "__main__":
    unittest.main()
