#!/usr/bin/env python3
"""answers.py TEACHER STUDENT [TOKENS]: answers of both to prompts.txt at temperature 0, as a Markdown table, unedited."""
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
CRUMB = HERE.parent.parent / "build/release/crumb"


def answer(model, prompt, tokens):
    run = subprocess.run([CRUMB, "run", "-m", model, "--temp", "0", "-n", tokens, "-q", prompt],
                         capture_output=True, text=True, check=True)
    return run.stdout.strip().replace("|", "\\|").replace("\n", "<br>")


def main():
    teacher, student = sys.argv[1:3]
    tokens = sys.argv[3] if len(sys.argv) > 3 else "120"
    print("| prompt | teacher | student |\n| --- | --- | --- |")
    for prompt in (HERE / "prompts.txt").read_text(encoding="utf-8").splitlines():
        print(f"| {prompt} | {answer(teacher, prompt, tokens)} | {answer(student, prompt, tokens)} |", flush=True)


main()
