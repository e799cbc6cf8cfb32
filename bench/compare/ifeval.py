#!/usr/bin/env python3
"""Compares `crumb eval ifeval` with lm-evaluation-harness's own checkers, answer by answer and without network.

usage: ifeval.py --report REPORT.json --answers CACHE/ifeval-KEY.jsonl --data DIR [--nltk DIR]

REPORT is what `crumb eval ifeval -o REPORT.json` wrote, --answers the file of kept answers of that run (one line a
prompt). The harness's test_instruction_following_strict and _loose judge the same texts, with langdetect's seed 0;
compared are the instructions followed strictly of each prompt and the four accuracies. --nltk names a folder with
tokenizers/punkt_tab (NLTK's data).

Needs the Python packages lm_eval (0.4.13 was used), nltk, langdetect and immutabledict. Exit codes: 0 every prompt
equal, 7 not, 2 usage, 77 a package is missing.
"""
import argparse
import importlib.util
import json
import os
import sys
import types


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", required=True)
    parser.add_argument("--answers", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--nltk")
    return parser.parse_args()


def load_checkers(nltk_folder):
    """lm_eval.tasks.ifeval.utils, without running the rest of lm_eval's packages (and their imports)."""
    try:
        import langdetect
        import nltk
        found = importlib.util.find_spec("lm_eval")
        if found is None:
            raise ImportError("No module named 'lm_eval'")
    except ImportError as error:
        print(f"ifeval.py: needs the Python packages lm_eval, nltk and langdetect ({error})", file=sys.stderr)
        sys.exit(77)
    langdetect.DetectorFactory.seed = 0
    if nltk_folder:
        nltk.data.path.insert(0, nltk_folder)
    root = found.submodule_search_locations[0]
    for name in ("lm_eval", "lm_eval.tasks", "lm_eval.tasks.ifeval"):
        package = types.ModuleType(name)
        package.__path__ = [os.path.join(root, *name.split(".")[1:])]
        sys.modules[name] = package
    from lm_eval.tasks.ifeval import utils
    return utils


def lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def main():
    given = arguments()
    utils = load_checkers(given.nltk)
    with open(given.report, encoding="utf-8") as file:
        report = json.load(file)["ifeval"]
    answers = {one["id"]: one["texts"][0] for one in lines(given.answers) if "id" in one}
    prompts = {one["id"]: one for one in lines(os.path.join(given.data, "ifeval", "dev.jsonl"))}
    totals = dict.fromkeys(("prompt_strict", "prompt_loose", "inst_strict", "inst_loose"), 0)
    asked = different = 0
    for item in report["items"]:
        prompt = prompts[item["id"]]
        example = utils.InputExample(key=0, instruction_id_list=prompt["instruction_id_list"],
                                     prompt=prompt["prompt"], kwargs=prompt["kwargs"])
        text = answers[item["id"]]
        strict = utils.test_instruction_following_strict(example, text).follow_instruction_list
        loose = utils.test_instruction_following_loose(example, text).follow_instruction_list
        asked += len(strict)
        for name, verdicts in (("strict", strict), ("loose", loose)):
            totals["prompt_" + name] += all(verdicts)
            totals["inst_" + name] += sum(verdicts)
        if sum(strict) != item["value"] or len(strict) != item["weight"]:
            different += 1
            print(f"{item['id']}: followed {item['value']:g} of {item['weight']:g}, the harness {sum(strict)} of "
                  f"{len(strict)}")
    count = len(report["items"])
    for name, total in totals.items():
        of = count if name.startswith("prompt") else asked
        print(f"{name:<13} crumb {report[name]:.4f} · harness {total / of:.4f}")
        different += abs(report[name] - total / of) > 1e-9
    print(f"{count} prompts, {asked} instructions, {different} differences")
    sys.exit(7 if different else 0)


if __name__ == "__main__":
    main()
