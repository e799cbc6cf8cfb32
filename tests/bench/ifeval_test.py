#!/usr/bin/env python3
"""bench/compare/ifeval.py against a made-up harness whose only rule is "no comma"."""
import json
import os
import subprocess
import sys
import tempfile

SCRIPT = os.path.join(os.environ["CRUMB_SOURCE_DIR"], "bench", "compare", "ifeval.py")

UTILS = '''
import collections
InputExample = collections.namedtuple("InputExample", "key instruction_id_list prompt kwargs")
Output = collections.namedtuple("Output", "follow_instruction_list")
def test_instruction_following_strict(example, text):
    return Output(["," not in text for _ in example.instruction_id_list])
def test_instruction_following_loose(example, text):
    return test_instruction_following_strict(example, text.split(";")[0])
'''


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def run(folder, report):
    write(os.path.join(folder, "report.json"), json.dumps({"ifeval": report}))
    command = [sys.executable, SCRIPT, "--report", os.path.join(folder, "report.json"), "--answers",
               os.path.join(folder, "answers.jsonl"), "--data", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False,
                          env=dict(os.environ, PYTHONPATH=os.path.join(folder, "packages")))
    return done.returncode, done.stdout + done.stderr


def main():
    with tempfile.TemporaryDirectory() as folder:
        packages = os.path.join(folder, "packages")
        write(os.path.join(packages, "nltk.py"), "")
        write(os.path.join(packages, "langdetect.py"), "class DetectorFactory:\n    seed = None\n")
        write(os.path.join(packages, "lm_eval", "__init__.py"), "raise RuntimeError('not to be run')\n")
        write(os.path.join(packages, "lm_eval", "tasks", "ifeval", "utils.py"), UTILS)
        prompts = [{"id": "a", "prompt": "p", "instruction_id_list": ["x", "y"], "kwargs": [{}, {}]},
                   {"id": "b", "prompt": "q", "instruction_id_list": ["x"], "kwargs": [{}]}]
        write(os.path.join(folder, "ifeval", "dev.jsonl"), "".join(json.dumps(one) + "\n" for one in prompts))
        answers = [{"schema": "s"}, {"id": "a", "texts": ["none"]}, {"id": "b", "texts": ["one; two, three"]}]
        write(os.path.join(folder, "answers.jsonl"), "".join(json.dumps(one) + "\n" for one in answers))
        report = {"prompt_strict": 0.5, "prompt_loose": 1.0, "inst_strict": 2 / 3, "inst_loose": 1.0,
                  "items": [{"id": "a", "value": 2, "weight": 2}, {"id": "b", "value": 0, "weight": 1}]}
        code, text = run(folder, report)
        assert code == 0 and "2 prompts, 3 instructions, 0 differences" in text, (code, text)
        report["items"][1]["value"] = 1
        report["inst_loose"] = 0.5
        code, text = run(folder, report)
        assert code == 7 and "b: followed 1 of 1, the harness 0 of 1" in text, (code, text)
        assert "2 differences" in text, text
        os.remove(os.path.join(packages, "langdetect.py"))
        write(os.path.join(packages, "langdetect.py"), "raise ImportError('gone')\n")
        code, text = run(folder, report)
        assert code == 77 and "gone" in text, (code, text)


if __name__ == "__main__":
    main()
