#!/usr/bin/env python3
"""Compares `crumb eval` with EleutherAI's lm-evaluation-harness, item by item and without network.

usage: harness.py -m MODEL --data DIR --tokenizer TOKENIZER.json [--tasks A,B] [--limit N] [--tolerance X]
                  [--crumb BINARY] [--kv i8|f16|f32] [-o OUT.json]

The harness's own task files make prompts, few-shot examples and metrics out of the data of --data (only their
data source is replaced), its own code splits context and continuation, and the Hugging Face `tokenizers` library
tokenises with TOKENIZER.json. The token ids go to `crumb eval logprobs`, which reads every sequence from an
empty cache. Compared with `crumb eval suite` are log P of every choice, accuracies, and for texts of one byte a
character acc_norm (the harness divides by characters, crumb by bytes).

Needs the Python packages lm_eval (0.4.13 was used; no torch) and tokenizers. Exit codes: 0 equal to --tolerance
(default 1e-4 nats), 7 not, 2 usage, 77 a package is missing.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
try:
    import lm_eval
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks._yaml_loader import load_yaml  # no public name for one task file
    from tokenizers import Tokenizer
except ImportError as error:
    print(f"harness.py: needs the Python packages lm_eval and tokenizers ({error})", file=sys.stderr)
    sys.exit(77)

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


# --- Records of the data folder in the fields that the harness's task files read.

def arc(record):
    labels = [str(i) for i in range(len(record["choices"]))]
    return {"question": record["question"], "choices": {"text": record["choices"], "label": labels},
            "answerKey": labels[record["answer"]]}


def openbookqa(record):
    return {"question_stem": record["question"], **{k: v for k, v in arc(record).items() if k != "question"}}


def piqa(record):
    return {"goal": record["question"], "sol1": record["choices"][0], "sol2": record["choices"][1],
            "label": record["answer"]}


def boolq(record):
    return {"passage": record["passage"], "question": record["question"].removesuffix("?"), "label": record["answer"]}


def hellaswag(record):
    activity, _, context = record["context"].partition(": ")
    return {"activity_label": activity, "ctx_a": context, "ctx_b": "", "endings": record["choices"],
            "label": str(record["answer"])}


def winogrande(record):
    first, second = record["contexts"]
    prefix = os.path.commonprefix([first, second])
    return {"sentence": prefix + "_ " + record["continuation"], "option1": first[len(prefix):],
            "option2": second[len(prefix):], "answer": str(record["answer"] + 1)}


def lambada(record):
    return {"text": record["context"] + " " + record["target"]}


def truthfulqa(record):
    return {"question": record["question"], "mc1_targets": record["mc1"], "mc2_targets": record["mc2"]}


def mmlu(record):
    return {k: record[k] for k in ("question", "subject", "choices", "answer")}


# name: (data folder, the harness's file, conversion, metrics that must be equal)
TASKS = {
    "arc_easy": ("arc_easy", "arc/arc_easy.yaml", arc, ["acc", "acc_norm"]),
    "arc_challenge": ("arc_challenge", "arc/arc_challenge.yaml", arc, ["acc", "acc_norm"]),
    "piqa": ("piqa", "piqa/piqa.yaml", piqa, ["acc", "acc_norm"]),
    "boolq": ("boolq", "super_glue/boolq/default.yaml", boolq, ["acc"]),
    "hellaswag": ("hellaswag", "hellaswag/hellaswag.yaml", hellaswag, ["acc", "acc_norm"]),
    "openbookqa": ("openbookqa", "openbookqa/openbookqa.yaml", openbookqa, ["acc", "acc_norm"]),
    "winogrande": ("winogrande", "winogrande/default.yaml", winogrande, ["acc"]),
    "lambada_openai": ("lambada_openai", "lambada/lambada_openai.yaml", lambada, ["acc", "perplexity"]),
    # The harness takes the first choice for the right one; the data here is shuffled.
    "truthfulqa_mc1": ("truthfulqa", "truthfulqa/truthfulqa_mc1.yaml", truthfulqa, []),
    "truthfulqa_mc2": ("truthfulqa", "truthfulqa/truthfulqa_mc2.yaml", truthfulqa, ["acc"]),
    # One subject is one of the harness's tasks: that of the first record.
    "mmlu": ("mmlu", "mmlu/default/mmlu_{subject}.yaml", mmlu, ["acc"]),
}


def read_lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def write_lines(path, records):
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


class CrumbLM(TemplateLM):
    """log P of token ids from `crumb eval logprobs`; everything else is the harness's."""

    def __init__(self, given, folder):
        super().__init__()
        self.given, self.folder = given, folder
        self.tokenizer_ = Tokenizer.from_file(given.tokenizer)
        done = run(given, "inspect", given.model, "--json")
        self.max_length = json.loads(done)["config"]["context"]
        self.eos = self.tokenizer_.token_to_id("<|endoftext|>")

    @property
    def eot_token_id(self):
        return self.eos

    def tok_encode(self, string, add_special_tokens=None, **kwargs):
        return self.tokenizer_.encode(string, add_special_tokens=bool(add_special_tokens)).ids

    def _loglikelihood_tokens(self, requests, **kwargs):
        sequences = [(context + continuation)[-(self.max_length + 1):] for _, context, continuation in requests]
        # The program reads every token it is given; of max_length + 1 the last would not fit.
        for sequence in sequences:
            if len(sequence) > self.max_length:
                raise ValueError(f"{len(sequence)} tokens do not fit the model's {self.max_length}")
        source, target = os.path.join(self.folder, "in.jsonl"), os.path.join(self.folder, "out.jsonl")
        write_lines(source, [{"id": str(i), "ids": ids} for i, ids in enumerate(sequences)])
        run(self.given, "eval", "logprobs", "-m", self.given.model, "--kv", self.given.kv, "--input", source, "-o", target, "-q")
        results = []
        for (_, _, continuation), line in zip(requests, read_lines(target), strict=True):
            n = len(continuation)
            results.append((sum(line["log_p"][-n:]), all(line["greedy"][-n:])) if n else (0.0, True))
        return results

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        raise NotImplementedError

    def generate_until(self, requests, disable_tqdm=False):
        raise NotImplementedError


def run(given, *args):
    done = subprocess.run([given.crumb, *args], stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        sys.exit(f"harness.py: crumb {' '.join(args[:2])} failed with code {done.returncode}")
    return done.stdout


def harness_task(name, given, folder):
    """The harness's task over the first records, and those records."""
    data, file, convert, _ = TASKS[name]
    records = read_lines(os.path.join(given.data, data, "dev.jsonl"))
    subject = records[0].get("subject", "")
    if name == "mmlu":
        records = [r for r in records if r["subject"] == subject]
    records = records[:given.limit]
    config = load_yaml(os.path.join(os.path.dirname(lm_eval.__file__), "tasks", file.format(subject=subject)))
    files = {"test": os.path.join(folder, name + ".jsonl")}
    write_lines(files["test"], [convert(r) for r in records])
    for split in ("training_split", "validation_split", "dataset_name", "fewshot_split"):
        config.pop(split, None)
    if name == "mmlu":
        files["dev"] = os.path.join(folder, name + ".fewshot.jsonl")
        shots = read_lines(os.path.join(given.data, data, "fewshot.jsonl"))
        write_lines(files["dev"], [convert(r) for r in shots if r["subject"] == subject])
        config.update(fewshot_split="dev", num_fewshot=5)
    config.update(task=name, dataset_path="json", dataset_kwargs={"data_files": files}, test_split="test")
    config.pop("tag", None)
    return ConfigurableTask(config=config), records


def own_report(name, given, folder, records):
    """`crumb eval` on the same records."""
    data = TASKS[name][0]
    own = os.path.join(folder, "data-" + name)
    os.makedirs(os.path.join(own, data))
    write_lines(os.path.join(own, data, "dev.jsonl"), records)
    if name == "mmlu":
        write_lines(os.path.join(own, data, "fewshot.jsonl"), read_lines(os.path.join(given.data, data, "fewshot.jsonl")))
    path = os.path.join(folder, name + ".report.json")
    run(given, "eval", name, "-m", given.model, "--kv", given.kv, "--data", own, "--no-cache", "-q", "-o", path)
    with open(path, encoding="utf-8") as file:
        return json.load(file)[name]


def one_byte_characters(record):
    return all(text.isascii() for text in record.get("choices", []))


def compare(name, given, lm, folder):
    task, records = harness_task(name, given, folder)
    result = evaluate(lm=lm, task_dict={name: task}, log_samples=True, bootstrap_iters=0)
    own = own_report(name, given, folder, records)
    samples = sorted(result["samples"][name], key=lambda sample: sample["doc_id"])
    worst, choices = 0.0, 0
    for item, sample in zip(own["items"], samples, strict=True):
        theirs = [response[0][0] if isinstance(response[0], (list, tuple)) else response[0] for response in sample["resps"]]
        for ours, other in zip(item["log_p"], theirs, strict=True):
            worst = max(worst, abs(ours - float(other)))
            choices += 1
    scores = {}
    for metric in TASKS[name][3]:
        if metric == "acc_norm" and not all(one_byte_characters(r) for r in records):
            continue
        theirs = result["results"][name][metric + ",none"]
        scores[metric] = (own["ppl" if metric == "perplexity" else metric], theirs)
    return {"task": name, "items": len(records), "choices": choices, "worst": worst, "scores": scores}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("--crumb", default=os.path.join(SOURCE, "build/release/crumb"))
    parser.add_argument("--kv", default="f32", choices=["i8", "f16", "f32"])
    parser.add_argument("-o", "--output", help="the comparison as JSON")
    given = parser.parse_args()
    names = given.tasks.split(",")
    for name in names:
        if name not in TASKS:
            parser.error(f"unknown task {name} (expected some of {', '.join(TASKS)})")
    rows, equal = [], True
    with tempfile.TemporaryDirectory(prefix="crumb-harness-") as folder:
        os.environ["HF_HOME"] = folder
        lm = CrumbLM(given, folder)
        for name in names:
            row = compare(name, given, lm, folder)
            rows.append(row)
            same = row["worst"] <= given.tolerance and all(
                abs(a - b) <= given.tolerance * max(1, abs(b)) for a, b in row["scores"].values())
            equal &= same
            scores = ", ".join(f"{m} {a:.6g} = {b:.6g}" for m, (a, b) in row["scores"].items())
            print(f"{name}: {row['items']} items, {row['choices']} choices, largest difference of log P "
                  f"{row['worst']:.2e}; {scores or 'no score in common'}{'' if same else '  DIFFERENT'}", flush=True)
    if given.output:
        with open(given.output, "w", encoding="utf-8") as file:
            json.dump({"lm_eval": lm_eval.__version__, "model": os.path.basename(given.model), "kv": given.kv,
                       "rows": rows}, file, indent=1)
    return 0 if equal else 7


if __name__ == "__main__":
    sys.exit(main())
