"""/openapi.json against the server, by schemathesis (if it is installed beside this Python): what the document allows
is taken, what it forbids is refused, and answers are what it says."""
import os
import shutil
import subprocess
import sys
import unittest

from serve_support import ServeTest, Server
from support import MAKE_TINY

TOOL = shutil.which("schemathesis", path=os.path.dirname(sys.executable))


@unittest.skipIf(TOOL is None, "the package schemathesis is not installed")
class OpenApi(ServeTest):
    options = ("-q",)

    @classmethod
    def setUpClass(cls):
        super(ServeTest, cls).setUpClass()
        subprocess.run([MAKE_TINY, cls.gguf, "2", "64", "16384"], check=True, timeout=60)  # long texts fit
        cls.server = Server(cls.folder, "-m", cls.gguf, *cls.options)

    def test_the_document_is_true(self):
        examples = os.environ.get("CRUMB_SCHEMATHESIS_EXAMPLES", "30")
        done = subprocess.run([TOOL, "run", f"http://127.0.0.1:{self.server.port}/openapi.json", "--max-examples", examples,
                               "--seed", "1", "--request-timeout", "30", "--no-color"], cwd=self.folder, timeout=280,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        self.assertEqual(done.returncode, 0, done.stdout.decode(errors="replace")[-6000:])


if __name__ == "__main__":
    unittest.main()
