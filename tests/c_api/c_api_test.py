"""libcrumb from C: what the C program checks itself, and that its answer is the binary's."""
import os
import subprocess
import unittest

from support import TIMEOUT, CliTest, clean_environment


class CApi(CliTest):
    def test_from_c(self):
        bad = self.write("bad.crumb", b"\xff" * 200)
        done = subprocess.run([os.environ["CRUMB_C_API_TEST"], self.crumb, bad], capture_output=True, timeout=TIMEOUT,
                              env=clean_environment(self.folder), check=False)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        said = self.expect(0, "run", "abc", "-m", self.crumb, "--temp", "0", "-n", "12", "--ignore-eos", "-q")
        self.assertEqual(done.stdout.split(b"\0")[0].rstrip(b"\n"), said.stdout.split(b"\0")[0].rstrip(b"\n"))


if __name__ == "__main__":
    unittest.main()
