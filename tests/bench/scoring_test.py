#!/usr/bin/env python3
"""bench/compare/scoring.py with two made-up programs."""
import json
import os
import stat
import subprocess
import sys
import tempfile

SCRIPT = os.path.join(os.environ["CRUMB_SOURCE_DIR"], "bench", "compare", "scoring.py")

CRUMB = """#!/bin/sh
echo "$2: 3 of 3 items asked, 40 tokens run, 9 found in the cache, 260 tokens/s" >&2
"""
PEER = """#!/bin/sh
echo '[{"avg_ts": 200.0}]'
"""


def program(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)
    return path


def run(*args):
    return subprocess.run([sys.executable, SCRIPT, *args], capture_output=True, text=True, check=False)


def main():
    with tempfile.TemporaryDirectory() as folder:
        crumb, peer = program(folder, "crumb", CRUMB), program(folder, "peer", PEER)
        out = os.path.join(folder, "out.json")
        common = ["--crumb", crumb, "--model", "m.crumb", "--tasks", "piqa,mmlu", "--rounds", "3"]
        done = run(*common, "--peer", peer + ":q.gguf", "-o", out)
        assert done.returncode == 0, done.stderr
        assert "| mmlu (100) | 40, 9 | 260 (260..260) | 200 (200..200) | 1.30 (1.30..1.30) |" in done.stdout, done.stdout
        with open(out, encoding="utf-8") as file:
            assert len(json.load(file)["rounds"]) == 3
        silent = program(folder, "silent", "#!/bin/sh\n")
        assert run("--crumb", silent, *common[2:], "--peer", peer + ":q.gguf").returncode == 2
        assert run(*common, "--peer", peer).returncode == 2
        assert run(*common, "--peer", "/nothing:q.gguf").returncode == 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
