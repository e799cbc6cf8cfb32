"""The checkpoint that ships: whole, of the bits it claims, found without being named, and able to answer."""
import os
import pathlib
import unittest

from support import CliTest

MODEL = pathlib.Path(os.environ["CRUMB_SOURCE_DIR"]) / "models/default/SmolLM2-135M-Instruct.int2.crumb"


class Default(CliTest):
    def test_bits_and_checksums(self):
        seen = self.json_of("inspect", str(MODEL), "--json", "--verify")
        self.assertTrue(seen["verified"])
        self.assertLessEqual(seen["linear_bpw"], 2.06)
        self.assertLessEqual(seen["head_bits"], 4.1)
        self.assertLess(seen["file_bytes"], 42 * 2**20)
        self.assertEqual([stage["stage"] for stage in seen["recipe"]["stages"]][-1], "distill")

    def test_it_answers_without_being_named(self):
        for question, word in (("How many days are there in a week?", b"7 days"), ("What is the capital of France?", b"Paris")):
            answer = self.expect(0, "run", "--temp", "0", "-n", "16", "-c", "128", "-q", question).stdout
            self.assertIn(word, answer)


if __name__ == "__main__":
    unittest.main()
