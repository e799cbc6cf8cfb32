"""quantize is killed before, or refused, each of its calls that touch a file: the former file or the whole new one.

strace stops the program at the entry of its n-th call of a kind, for every n that a run without faults makes, and
there kills it (the call is not made) or lets the call fail. What is on disk afterwards is the state before that call.
"""
import collections
import concurrent.futures
import errno
import os
import re
import shutil
import signal
import subprocess
import tempfile
import unittest

from support import BINARY, TIMEOUT, CliTest, clean_environment

# "?" lets strace run where the architecture lacks a call (rename on arm64).
CALLS = ["write", "pwrite64", "fdatasync", "fsync", "?rename", "?renameat", "renameat2", "ftruncate", "fallocate"]
TRACED = ",".join(CALLS)
WORKERS = min(4, os.cpu_count() or 1)
FORMER_REPORT = b'{"former": "report"}\n'
RENAMES = ("rename", "renameat", "renameat2")

Fault = collections.namedtuple("Fault", "call number action renamed stream")


def read(path):
    with open(path, "rb") as file:
        return file.read()


def strace_refusal(folder):
    """Why strace cannot be used here, or an empty string."""
    if not shutil.which("strace"):
        return "strace is not installed"
    log = os.path.join(folder, "probe")
    probe = subprocess.run(["strace", "-f", "-o", log, "-e", "trace=" + TRACED, "-e", "inject=fsync:error=EIO:when=1",
                            BINARY, "version"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=TIMEOUT)
    if probe.returncode == 0:
        return ""
    return "strace cannot trace here: " + probe.stderr.decode(errors="replace").strip()[:200]


class Faults(CliTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        refusal = strace_refusal(cls.folder)
        if refusal:
            super().tearDownClass()
            raise unittest.SkipTest(refusal)
        cls.former = read(cls.crumb)  # 4 bits; the new file has 8
        fresh = tempfile.mkdtemp(dir=cls.folder)
        plain = cls.run_crumb(*cls.command(fresh))
        if plain.returncode != 0:
            raise RuntimeError("cannot quantize: " + plain.stderr.decode())
        cls.complete = read(os.path.join(fresh, "out.crumb"))
        if cls.complete == cls.former:
            raise RuntimeError("the former and the new file must differ")
        cls.calls = cls.calls_of_a_run()

    @classmethod
    def command(cls, folder):
        return ["quantize", cls.gguf, "-o", os.path.join(folder, "out.crumb"), "--bits", "8", "--group", "32",
                "--force", "-t", "1"]

    @classmethod
    def traced(cls, folder, *injection):
        """Runs the command under strace in a folder with the former files: its result and the lines of the trace."""
        for name, data in [("out.crumb", cls.former), ("out.report.json", FORMER_REPORT)]:
            with open(os.path.join(folder, name), "wb") as file:
                file.write(data)
        log = folder + ".trace"
        # A leak checker cannot run in a traced process.
        leaks = ":".join(filter(None, [os.environ.get("ASAN_OPTIONS"), "detect_leaks=0"]))
        done = subprocess.run(["strace", "-f", "-o", log, "-e", "trace=" + TRACED, *injection, BINARY,
                               *cls.command(folder)],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=TIMEOUT,
                              env=clean_environment(cls.folder, ASAN_OPTIONS=leaks))
        return done, read(log).decode(errors="replace").splitlines()

    @classmethod
    def calls_of_a_run(cls):
        """(name, number among its kind, files renamed before it, whether it goes to a standard stream) of each call."""
        done, lines = cls.traced(tempfile.mkdtemp(dir=cls.folder))
        if done.returncode != 0:
            raise RuntimeError("cannot quantize under strace: " + done.stderr.decode())
        counts, calls, renamed = collections.Counter(), [], 0
        for line in lines:
            match = re.match(r"\d+ +(\w+)\((\d*)", line)
            if not match:
                continue
            name = match.group(1)
            counts[name] += 1
            calls.append((name, counts[name], renamed, name == "write" and match.group(2) in ("1", "2")))
            renamed += name in RENAMES
        return calls

    def faults(self, action):
        return [Fault(name, number, action, renamed, stream) for name, number, renamed, stream in self.calls]

    def check_checkpoint(self, path):
        """The former or the new file, byte for byte, and it verifies; says which."""
        data = read(path)
        self.assertIn(data, (self.former, self.complete), "neither the former file nor the new one")
        self.expect(0, "inspect", "--verify", path)
        return data == self.complete

    def check_report(self, path):
        data = read(path)
        if data == FORMER_REPORT:
            return False
        self.assertTrue(data.startswith(b'{"schema":"crumb.quantize/1"') and data.endswith(b"}\n"), data[-80:])
        return True

    def check_files(self, folder, renamed):
        """As many of the two files are new as were renamed."""
        new = (self.check_checkpoint(os.path.join(folder, "out.crumb")),
               self.check_report(os.path.join(folder, "out.report.json")))
        self.assertEqual(new, (renamed >= 1, renamed >= 2))

    def after_kill(self, fault, folder, done, lines):
        self.assertEqual(done.returncode, -signal.SIGKILL, done.stderr)
        self.assertTrue(any("killed by SIGKILL" in line for line in lines), lines[-3:])
        self.check_files(folder, fault.renamed)
        for name in set(os.listdir(folder)) - {"out.crumb", "out.report.json"}:
            self.assertRegex(name, r"^out\.(crumb|report\.json)\.tmp-\d+(\.\d+)?$")
            if not name.startswith("out.crumb"):
                continue
            # What the killed program left loads only if it is the whole file.
            left = os.path.join(folder, name)
            if read(left) == self.complete:
                self.expect(0, "inspect", "--verify", left)
            else:
                self.expect_error(3, "inspect", left)

    def after_error(self, fault, folder, done, lines):
        self.assertEqual([line for line in lines if "(INJECTED)" in line][1:], [], "more than one fault")
        self.assertTrue(any("(INJECTED)" in line for line in lines), "no fault")
        errors = [line for line in done.stderr.decode().splitlines() if line.startswith("crumb: error: ")]
        self.assertEqual(sorted(set(os.listdir(folder))), ["out.crumb", "out.report.json"])
        if fault.stream:  # a note that nobody could see is no reason to lose the work
            self.assertEqual((done.returncode, errors), (0, []))
            return self.check_files(folder, 2)
        self.assertEqual((done.returncode, len(errors)), (4, 1), done.stderr)
        # The flush of the directory comes after the rename of its file.
        second = fault.renamed - (fault.call == "fsync") >= 1
        self.assertIn(os.path.join(folder, "out.report.json" if second else "out.crumb") + ":", errors[0])
        self.assertIn(os.strerror(getattr(errno, fault.action)), errors[0])
        self.check_files(folder, fault.renamed)

    def run_fault(self, fault):
        """None, or what is wrong after this fault."""
        folder = tempfile.mkdtemp(dir=self.folder)
        kind = "signal=KILL" if fault.action == "KILL" else "error=" + fault.action
        done, lines = self.traced(folder, "-e", f"inject={fault.call}:{kind}:when={fault.number}")
        try:
            (self.after_kill if fault.action == "KILL" else self.after_error)(fault, folder, done, lines)
        except AssertionError as failure:
            return f"{fault}: {failure}"
        shutil.rmtree(folder)
        return None

    def run_all(self, action):
        faults = self.faults(action)
        with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
            wrong = [text for text in pool.map(self.run_fault, faults) if text]
        print(f"{action}: {len(faults)} faults, {len(wrong)} wrong", flush=True)
        self.assertEqual(wrong, [])

    def test_a_run_makes_the_calls_that_are_to_fail(self):
        counts = collections.Counter(name for name, _, _, _ in self.calls)
        self.assertGreater(counts["pwrite64"], 20)
        self.assertEqual((counts["fdatasync"], counts["fsync"], sum(counts[name] for name in RENAMES)), (2, 2, 2))

    def test_kill(self):
        self.run_all("KILL")

    def test_no_space(self):
        self.run_all("ENOSPC")

    def test_device_error(self):
        self.run_all("EIO")

    def test_full_file_system(self):
        folder = tempfile.mkdtemp(dir=self.folder)
        mounted = os.geteuid() == 0 and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], stderr=subprocess.DEVNULL).returncode == 0
        if not mounted:
            self.skipTest("cannot mount a tmpfs")
        try:
            self.assertGreater(len(self.complete), 65536)
            error = self.expect_error(4, *self.command(folder), "-q")
            self.assertIn(os.path.join(folder, "out.crumb") + ":", error)
            self.assertIn(os.strerror(errno.ENOSPC), error)
            self.assertEqual(os.listdir(folder), [])
        finally:
            subprocess.run(["umount", folder], check=True)


if __name__ == "__main__":
    unittest.main()
