#!/usr/bin/env python3
"""Tiny random models that the transformers package writes, imported: logits equal to 1e-4.

hugging_face_logits.py CRUMB. Exit 77 (skipped) without torch and transformers.
"""
import json
import os
import subprocess
import sys
import tempfile

try:
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

SIZES = dict(vocab_size=300, hidden_size=64, intermediate_size=96, num_hidden_layers=4,
             num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
             rms_norm_eps=1e-6)
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64, "rope_theta": 10000.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64,
        "rope_theta": 10000.0}


def makers():
    t = transformers
    yield "llama", t.LlamaForCausalLM, t.LlamaConfig(**SIZES)
    yield "llama3-rope", t.LlamaForCausalLM, t.LlamaConfig(**SIZES, rope_scaling=dict(LLAMA3))
    yield "yarn", t.LlamaForCausalLM, t.LlamaConfig(**SIZES, rope_scaling=dict(YARN))
    yield "mistral-window", t.MistralForCausalLM, t.MistralConfig(**SIZES, sliding_window=24)
    yield "qwen2", t.Qwen2ForCausalLM, t.Qwen2Config(**SIZES, tie_word_embeddings=True)
    yield "qwen3", t.Qwen3ForCausalLM, t.Qwen3Config(**SIZES, head_dim=32)
    yield "gemma3", t.Gemma3ForCausalLM, t.Gemma3TextConfig(
        **{**SIZES, "num_hidden_layers": 7}, head_dim=32, sliding_window=24,
        query_pre_attn_scalar=24)
    yield "phi3", t.Phi3ForCausalLM, t.Phi3Config(
        **SIZES, pad_token_id=0, bos_token_id=1, eos_token_id=2)


def write_tokenizer(folder):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(os.path.join(folder, "tokenizer.json"))


def randomise(model, seed):
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.dim() == 1:
                value.add_(torch.randn_like(value) * 0.2)
            else:
                value.copy_(torch.randn_like(value) / value.shape[-1] ** 0.5)


def crumb_logits(crumb, folder, ids, work):
    lines, out = os.path.join(work, "ids.jsonl"), os.path.join(work, "out.jsonl")
    with open(lines, "w") as f:
        f.write(json.dumps({"id": "a", "ids": ids}) + "\n")
    subprocess.run([crumb, "eval", "logits", "-m", folder, "--input", lines, "--top", "300", "-o",
                    out, "--no-pin", "-t", "1", "-q"], check=True)
    with open(out) as f:
        row = json.loads(f.readline())
    logits = torch.empty(len(ids), SIZES["vocab_size"])
    for t, (which, values) in enumerate(zip(row["top_ids"], row["top_logits"])):
        logits[t, torch.tensor(which)] = torch.tensor(values)
    return logits


def main():
    crumb, worst = sys.argv[1], 0.0
    for seed, (name, kind, config) in enumerate(makers()):
        with tempfile.TemporaryDirectory() as work:
            folder = os.path.join(work, name)
            config._attn_implementation = "eager"
            model = kind(config).float().eval()
            randomise(model, seed)
            # Several shards, so that the index is read too.
            model.save_pretrained(folder, max_shard_size="100KB", safe_serialization=True)
            write_tokenizer(folder)
            ids = torch.randint(0, 256, (1, 90))
            with torch.no_grad():
                want = model(ids).logits[0]
            got = crumb_logits(crumb, folder, ids[0].tolist(), work)
            error = (want - got).abs().max().item()
            print(f"{name}: largest difference {error:.2e}, largest logit {want.abs().max():.2f}")
            worst = max(worst, error)
    return 0 if worst <= 1e-4 else 1


if __name__ == "__main__":
    sys.exit(main())
