"""Cut and damaged model files: one clear error or a valid file, never a signal, never much memory.

With --real FILE [--every N] it cuts a copy of a big model file instead, 4 KiB at a time from its end, inspects each
N-th cut and prints counts. CRUMB_HOSTILE_STRIDE=1 damages every byte of the headers instead of a sample.
"""
import argparse
import collections
import concurrent.futures
import ctypes
import ctypes.util
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from support import BINARY, CliTest, clean_environment, sample_text

STEP = 4096
WORKERS = min(4, os.cpu_count() or 1)
EXTRA_MEMORY_KB = 64 * 1024
TIME_LIMIT = 20
DENSE = 64  # bytes at the start of a file that are always damaged: magic, version, counts
# Prime, so that the sample meets every place of the repeated structures of a header.
STRIDE = int(os.environ.get("CRUMB_HOSTILE_STRIDE", "37"))
# One bit, the sign or the top of a length, all bits.
FLIPS = [0x01, 0x80, 0xFF]

Run = collections.namedtuple("Run", "code stderr memory_kb seconds")


def reseal(image, hash64):
    """The .crumb image with the checksum that its header, damaged or not, should have; None if it has lost its place."""
    end = 8 + struct.unpack("<Q", image[:8])[0]
    mark = b'"header_checksum":"'
    at = image.find(mark, 0, end) + len(mark)
    if at < len(mark):
        return None
    blank = image[8:at] + b"0" * 16 + image[at + 16:end]
    return image[:at] + b"%016x" % hash64(bytes(blank), len(blank)) + image[at + 16:]


def run_measured(*args, environment):
    """Exit code (negative: the signal), stderr, and peak memory of this one process.

    The kernel counts the memory of the forked parent too, in every run alike; so only differences have a meaning.
    """
    started = time.monotonic()
    job = subprocess.Popen([BINARY, *args], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                           stderr=subprocess.PIPE, env=environment)
    timer = threading.Timer(TIME_LIMIT, job.kill)
    timer.start()
    stderr = job.stderr.read()
    job.stderr.close()
    _, status, usage = os.wait4(job.pid, 0)
    timer.cancel()
    job.returncode = os.waitstatus_to_exitcode(status)
    return Run(job.returncode, stderr.decode(errors="replace"), usage.ru_maxrss, time.monotonic() - started)


def complaint(run, codes, memory_limit_kb):
    """What is wrong with how a run ended; an empty string if nothing."""
    lines = run.stderr.splitlines()
    errors = [line for line in lines if line.startswith("crumb: error: ")]
    if run.seconds >= TIME_LIMIT:
        return f"took longer than {TIME_LIMIT} s"
    if run.code not in codes:
        return f"exit code {run.code}, expected one of {codes}: {run.stderr[-300:]!r}"
    if run.code != 0 and (len(errors) != 1 or len(errors[0]) < 30 or len(errors[0]) > 1000):
        return f"not one clear error line: {run.stderr[-1500:]!r}"
    if run.code == 0 and errors:
        return f"success with an error line: {errors[0]!r}"
    if any(ord(c) < 32 for line in lines for c in line):
        return f"control bytes of the file in the message: {run.stderr[-300:]!r}"
    if run.memory_kb > memory_limit_kb:
        return f"peak memory {run.memory_kb} kB, more than {memory_limit_kb} kB"
    return ""


class Hostile(CliTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.environment = clean_environment(cls.folder)
        cls.text = cls.path("text.txt")
        with open(cls.text, "w", encoding="utf-8") as file:
            file.write(sample_text(200))

    def inspect(self, path):
        return run_measured("inspect", path, environment=self.environment)

    def eval(self, path):
        return run_measured("eval", "ppl", "-m", path, "-f", self.text, "--window", "32", "--limit", "2", "-q", "-t", "1",
                            environment=self.environment)

    def spoiled(self, image, suffix):
        """The image in a file of this thread."""
        path = self.path(f"spoiled-{threading.get_ident()}{suffix}")
        with open(path, "wb") as file:
            file.write(image)
        return path

    def over(self, items, check):
        with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
            return list(pool.map(check, items))

    def images(self):
        for source in [self.gguf, self.crumb]:
            with open(source, "rb") as file:
                yield source, file.read(), os.path.splitext(source)[1]

    def limit(self, run):
        self.assertEqual(run.code, 0, run.stderr)
        return run.memory_kb + EXTRA_MEMORY_KB

    def header_bytes(self, source, image):
        """Where the tensors begin."""
        if source == self.crumb:
            return 8 + struct.unpack("<Q", image[:8])[0]
        tensors = self.json_of("inspect", source, "--json")["tensors"]
        return len(image) - sum((t["bytes"] + 31) // 32 * 32 for t in tensors)

    def test_cut_anywhere(self):
        for source, image, suffix in self.images():
            limit = self.limit(self.inspect(source))
            rng = random.Random(7)
            header = self.header_bytes(source, image)
            places = {0, 1, 3, 4, 7, 8, 9, 16, 24, header - 1, header, header + 1, len(image) - 1}
            places |= {rng.randrange(header) for _ in range(30)} | {rng.randrange(len(image)) for _ in range(30)}
            places |= set(range(0, len(image), STEP))

            def check(size):
                run = self.inspect(self.spoiled(image[:size], suffix))
                wrong = complaint(run, [3], limit)
                return run, f"cut to {size} of {len(image)}: {wrong}" if wrong else ""

            done = self.over(sorted(places), check)
            print(f"{suffix} cut: {len(done)} places, slowest {max(run.seconds for run, _ in done):.3f} s", flush=True)
            self.assertEqual([wrong for _, wrong in done if wrong], [])

    def damage(self, source, image, first, spoil, what):
        """Changes the header's bytes from `first` on, and inspects and evaluates what `spoil` makes of the image."""
        limit, eval_limit = self.limit(self.inspect(source)), self.limit(self.eval(source))
        header = self.header_bytes(source, image)
        suffix = os.path.splitext(source)[1]
        places = sorted(set(range(first, min(DENSE, header))) | set(range(first, header, STRIDE)))

        def check(change):
            place, flip = change
            damaged = bytearray(image)
            damaged[place] ^= flip
            damaged = spoil(damaged)
            if damaged is None:
                return [], ""
            path = self.spoiled(damaged, suffix)
            runs = [self.inspect(path)]
            wrong = complaint(runs[0], [0, 3], limit)
            if not wrong and runs[0].code == 0:
                runs.append(self.eval(path))
                wrong = complaint(runs[1], [0, 3], eval_limit)
            return runs, f"byte {place} ^ {flip:#04x}, run {len(runs)}: {wrong}" if wrong else ""

        done = self.over([(place, flip) for place in places for flip in FLIPS], check)
        codes = collections.Counter(" then ".join(str(run.code) for run in runs) for runs, _ in done if runs)
        print(f"{what} of {header} bytes, the first {DENSE} and then every {STRIDE} x {len(FLIPS)}: {sum(codes.values())} "
              f"files, exit codes {dict(codes)}, slowest {max(run.seconds for runs, _ in done for run in runs):.3f} s",
              flush=True)
        self.assertEqual([wrong for _, wrong in done if wrong], [])
        return codes

    def test_damaged_header(self):
        for source, image, suffix in self.images():
            codes = self.damage(source, image, 0, lambda damaged: damaged, suffix + " header")
            if source == self.crumb:
                self.assertEqual(set(codes), {"3"}, "the checksum of the header sees every change")

    def test_damaged_header_with_a_right_checksum(self):
        library = ctypes.util.find_library("xxhash")
        if not library:
            self.skipTest("libxxhash is not installed")
        hash64 = ctypes.CDLL(library).XXH3_64bits
        hash64.restype, hash64.argtypes = ctypes.c_uint64, [ctypes.c_char_p, ctypes.c_size_t]
        _, (_, image, _) = self.images()
        self.assertEqual(reseal(image, hash64), image)
        codes = self.damage(self.crumb, image, 8, lambda damaged: reseal(damaged, hash64), ".crumb resealed header")
        self.assertGreater(sum(count for code, count in codes.items() if code != "3"), 0)


def cut_real(path, every):
    """Cuts one copy of `path` shorter and shorter; 0 if every cut is refused well."""
    folder = tempfile.mkdtemp(prefix="crumb-cut-")
    try:
        copy = os.path.join(folder, os.path.basename(path))
        shutil.copyfile(path, copy)
        environment = clean_environment(folder)
        control = run_measured("inspect", copy, environment=environment)
        if control.code != 0:
            print(f"cannot inspect the whole file: {control.stderr}")
            return 1
        whole = os.path.getsize(copy)
        codes, slowest, memory, wrong, cuts = collections.Counter(), control.seconds, 0, [], 0
        for number, size in enumerate(range((whole - 1) // STEP * STEP, -1, -STEP)):
            os.truncate(copy, size)
            cuts += 1
            if number % every != 0 and size >= STEP * every:  # the header's cuts all count
                continue
            run = run_measured("inspect", copy, environment=environment)
            codes[run.code] += 1
            slowest, memory = max(slowest, run.seconds), max(memory, run.memory_kb)
            text = complaint(run, [3], control.memory_kb + EXTRA_MEMORY_KB)
            if text:
                wrong.append(f"cut to {size}: {text}")
        print(f"{os.path.basename(path)}: {whole} bytes, {cuts} cuts of {STEP}, {sum(codes.values())} inspected, "
              f"exit codes {dict(codes)}, slowest {slowest:.3f} s, peak {memory} kB (control {control.memory_kb} kB), "
              f"{len(wrong)} wrong")
        print("\n".join(wrong[:20]), end="\n" if wrong else "")
        return 1 if wrong else 0
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", metavar="FILE")
    parser.add_argument("--every", type=int, default=16)
    given, rest = parser.parse_known_args()
    if given.real:
        sys.exit(cut_real(given.real, given.every))
    unittest.main(argv=sys.argv[:1] + rest)
