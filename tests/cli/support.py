"""What the tests of the whole binary share: where it is, the tiny model, how to run it."""
import json
import os
import shutil
import subprocess
import tempfile
import unittest

BINARY = os.environ["CRUMB_BINARY"]
MAKE_TINY = os.environ["CRUMB_MAKE_TINY"]
TIMEOUT = 120


def clean_environment(folder, **extra):
    """Nothing of the caller's settings, state in `folder`, no colour."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("CRUMB_") and not k.startswith("XDG_")}
    env.update(HOME=folder, XDG_STATE_HOME=os.path.join(folder, "state"), NO_COLOR="1")
    env.update({k: str(v) for k, v in extra.items()})
    return env


class CliTest(unittest.TestCase):
    """A folder with tiny.gguf and, made from it, tiny.crumb."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="crumb-cli-")
        cls.gguf = cls.path("tiny.gguf")
        cls.crumb = cls.path("tiny.crumb")
        subprocess.run([MAKE_TINY, cls.gguf, "2", "64", "1024"], check=True, timeout=TIMEOUT)
        made = cls.run_crumb("quantize", cls.gguf, "-o", cls.crumb, "--bits", "4", "--group", "32", "-q")
        if made.returncode != 0:
            raise RuntimeError("cannot quantize the tiny model: " + made.stderr.decode())

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder, ignore_errors=True)

    @classmethod
    def path(cls, name):
        return os.path.join(cls.folder, name)

    @classmethod
    def run_crumb(cls, *args, stdin=b"", env=None, **options):
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.PIPE)
        return subprocess.run([BINARY, *args], input=stdin, timeout=TIMEOUT,
                              env=clean_environment(cls.folder, **(env or {})), **options)

    def expect(self, code, *args, **options):
        """Runs and compares the exit code, showing stderr if it differs."""
        done = self.run_crumb(*args, **options)
        self.assertEqual(done.returncode, code, f"{args}: {(done.stderr or b'').decode(errors='replace')}")
        return done

    def expect_error(self, code, *args, **options):
        """Exactly one error line, no other output on stderr but hints."""
        done = self.expect(code, *args, **options)
        lines = done.stderr.decode(errors="replace").splitlines()
        errors = [line for line in lines if line.startswith("crumb: error: ")]
        self.assertEqual(len(errors), 1, f"{args}: {lines}")
        return errors[0]

    def json_of(self, *args, **options):
        return json.loads(self.expect(0, *args, **options).stdout)

    def write(self, name, data):
        path = self.path(name)
        with open(path, "wb") as file:
            file.write(data if isinstance(data, bytes) else data.encode())
        return path


def sample_text(words=4000):
    """Text of the tiny model's alphabet, the same every time."""
    state, out = 12345, []
    for _ in range(words):
        state = (state * 1103515245 + 12345) % 2**31
        out.append("abcdefghij"[state // 65536 % 10] * (1 + state // 7919 % 4))
    return " ".join(out)
