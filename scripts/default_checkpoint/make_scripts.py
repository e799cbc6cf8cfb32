#!/usr/bin/env python3
"""make_scripts.py MODEL.gguf DATA OUT: what crumb-train-cuda generates the default checkpoint's text from.

DATA has c4/dev.jsonl, instruct_prompts/dev.jsonl (a "text" or "prompt" a line) and wikitext2/valid_tokenised.txt.
Writes to OUT: chat.json (the teacher writes both sides), asked.json (real first questions), free.json (from the end-of-text
token), prefixed.json (pieces of C4 and WikiText-2's validation text go on), natural.bin (those texts as u16 ids, cut at three
offsets), c4.txt (calibration of the head). Seeded: the same files again.
"""
import json
import pathlib
import random
import re
import struct
import subprocess
import sys

CRUMB = pathlib.Path(__file__).resolve().parent.parent.parent / "build/release/crumb"
SYSTEM = ("<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
          "<|im_start|>user\n")
ANSWER = "<|im_end|>\n<|im_start|>assistant\n"
HEADERS = ["\n<|im_start|>assistant\n", "\n<|im_start|>user\n"]
WINDOW, LONGEST_PROMPT, SLICES = 512, 300, 9000


def tokenize(model, texts, out, special=False):
    source, ids = out / "texts.jsonl", out / "ids.jsonl"
    with source.open("w", encoding="utf-8") as file:
        for i, text in enumerate(texts):
            file.write(json.dumps({"id": i, "text": text}) + "\n")
    subprocess.run([CRUMB, "tokenize", "-q", "-m", model, "--input", source, "-o", ids] +
                   ([] if special else ["--no-special"]), check=True)
    found = {line["id"]: line["ids"] for line in map(json.loads, ids.open(encoding="utf-8"))}
    source.unlink()
    ids.unlink()
    return [found[i] for i in range(len(texts))]


def lines(path, field):
    return [json.loads(line)[field] for line in path.open(encoding="utf-8")]


def wiki_articles(path, words):
    text = re.sub(r"<unk>", lambda _: random.choice(words), path.read_text(encoding="utf-8"))
    return [a for a in re.split(r"(?m)(?=^ = [^=].* = $)", text) if len(a) > 400]


def slices(texts, count):
    """Pieces of 8 to 96 tokens, each text as often as it is long."""
    out, weights = [], [len(t) for t in texts]
    while len(out) < count:
        text = random.choices(texts, weights)[0]
        length = random.choice([8, 16, 24, 32, 48, 64, 96])
        if len(text) > length + 1:
            at = random.randrange(len(text) - length)
            out.append(text[at:at + length])
    return out


def beginnings(texts, times):
    return [t[:random.choice([4, 8, 16, 32])] for t in texts for _ in range(times) if len(t) > 32]


def natural(c4, wiki):
    ids = [i for t in c4 for i in t + [0]] + [i for t in wiki for i in t]
    data = b""
    for offset in (0, 171, 342):
        whole = (len(ids) - offset) // WINDOW * WINDOW
        data += struct.pack(f"<{whole}H", *ids[offset:offset + whole])
    return data


def main():
    model, data, out = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    out.mkdir(parents=True, exist_ok=True)
    random.seed(7)
    c4_texts = lines(data / "c4/dev.jsonl", "text")
    words = [w for t in c4_texts for w in re.findall(r"\b[A-Z][a-z]{3,9}\b", t)]
    c4 = tokenize(model, c4_texts, out)
    wiki = tokenize(model, wiki_articles(data / "wikitext2/valid_tokenised.txt", words), out)
    asked = tokenize(model, lines(data / "instruct_prompts/dev.jsonl", "prompt"), out)
    system, answer, *headers = tokenize(model, [SYSTEM, ANSWER] + HEADERS, out, special=True)
    end = answer[0]
    scripts = {
        "chat": {"prefixes": [system], "headers": headers, "end": end},
        "asked": {"prefixes": [system + ids + answer for ids in asked if len(ids) < LONGEST_PROMPT],
                  "headers": headers[::-1], "end": end},
        "free": {"prefixes": [[0]]},
        "prefixed": {"prefixes": slices(c4, SLICES) + slices(wiki, SLICES) + beginnings(wiki, 20) + beginnings(c4, 1)},
    }
    for name, script in scripts.items():
        (out / f"{name}.json").write_text(json.dumps(script), encoding="utf-8")
    (out / "natural.bin").write_bytes(natural(c4, wiki))
    (out / "c4.txt").write_text("\n\n".join(c4_texts[:180]), encoding="utf-8")


main()
