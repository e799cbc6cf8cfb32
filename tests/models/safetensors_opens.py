#!/usr/bin/env python3
"""The Python safetensors package must list a .crumb file. Exit 77: the package is absent."""
import sys

try:
    from safetensors import safe_open
except ImportError:
    print("skipped: no Python package safetensors")
    sys.exit(77)

with safe_open(sys.argv[1], framework="numpy") as file:
    assert file.metadata()["format"] == "crumb/1"
    names = list(file.keys())
    assert "model.norm.weight" in names and "model.embed_tokens.codes" in names, names
    for name in names:
        assert file.get_tensor(name).nbytes % 64 == 0, name
    print(len(names), "tensors")
