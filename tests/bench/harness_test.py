#!/usr/bin/env python3
"""crumb eval against lm-evaluation-harness. Exit 77: its package, the data or the model's tokenizer is absent."""
import importlib.util
import os
import subprocess
import sys

SOURCE, BINARY = os.environ["CRUMB_SOURCE_DIR"], os.environ.get("CRUMB_BINARY", "")
DATA = os.environ.get("CRUMB_DATA") or os.path.join(os.path.dirname(SOURCE), "shared", "data")
TOKENIZER = os.path.join(DATA, "tokenizers", "smollm2.tokenizer.json")
MODEL = os.path.join(SOURCE, "models", "default", "SmolLM2-135M-Instruct.int2.crumb")


def main():
    for package in ("lm_eval", "tokenizers"):
        if importlib.util.find_spec(package) is None:
            print(f"the Python package {package} is absent: skipped")
            return 77
    for path in (BINARY, TOKENIZER, MODEL):
        if not os.path.exists(path):
            print(f"{path or 'the crumb binary'} is absent: skipped")
            return 77
    script = os.path.join(SOURCE, "bench", "compare", "harness.py")
    common = [sys.executable, script, "-m", MODEL, "--data", DATA, "--tokenizer", TOKENIZER, "--crumb", BINARY]
    tasks = "arc_easy,piqa,boolq,winogrande,hellaswag,lambada_openai"
    done = subprocess.run([*common, "--tasks", tasks, "--limit", "2"], stdout=subprocess.PIPE, check=False)
    text = done.stdout.decode()
    print(text)
    if done.returncode != 0 or text.count("largest difference") != 6:
        return 1
    # A check that cannot fail proves nothing: no two programs' sums are equal to less than nothing.
    impossible = subprocess.run([*common, "--tasks", "piqa", "--limit", "1", "--tolerance", "-1"],
                                stdout=subprocess.PIPE, check=False)
    return 0 if impossible.returncode == 7 else 1


if __name__ == "__main__":
    sys.exit(main())
