"""Bits a weight of a GGUF file, from its table of tensors alone."""
import mmap
import struct

# Number of the type: weights and bytes of a block (ggml's quantization types).
BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84), 11: (256, 110),
          12: (256, 144), 13: (256, 176), 14: (256, 210), 16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50),
          20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66)}
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # of a value in the header
STRING, ARRAY = 8, 9


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def number(self, form):
        value, = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize(form)
        return value

    def text(self):
        size = self.number("Q")
        self.at += size
        return self.data[self.at - size:self.at].decode(errors="replace")

    def skip(self, kind):
        if kind == STRING:
            self.text()
        elif kind == ARRAY:
            inner, count = self.number("I"), self.number("Q")
            if inner in SIZES:
                self.at += SIZES[inner] * count
            else:
                for _ in range(count):
                    self.skip(inner)
        else:
            self.at += SIZES[kind]


def tensors(path):
    """(name, shape, weights, bytes) of every tensor. Throws ValueError, KeyError or struct.error for what it cannot read."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        reader = Reader(data)
        if data[:4] != b"GGUF":
            raise ValueError(f"not a GGUF file ({path})")
        reader.at = 8  # magic and version
        count, values = reader.number("Q"), reader.number("Q")
        for _ in range(values):
            reader.text()
            reader.skip(reader.number("I"))
        found = []
        for _ in range(count):
            name = reader.text()
            shape = [reader.number("Q") for _ in range(reader.number("I"))]
            block, size = BLOCKS[reader.number("I")]
            reader.number("Q")
            weights = 1
            for n in shape:
                weights *= n
            found.append((name, shape, weights, weights // block * size))
        return found


def gguf_bits(path):
    """Of the blocks' matrices and the head, and bytes that a token reads (None for experts); {} without matrices."""
    table = tensors(path)
    linear = [t for t in table if t[0].startswith("blk.") and len(t[1]) > 1]
    heads = {t[0]: t for t in table if t[0] in ("output.weight", "token_embd.weight")}
    head = heads.get("output.weight") or heads.get("token_embd.weight")
    if not linear or head is None:
        return {}
    weights, size = sum(t[2] for t in linear), sum(t[3] for t in linear)
    experts = any("_exps" in t[0] for t in linear)  # of these a token reads only some
    return {"linear_bpw": 8 * size / weights, "head_bits": 8 * head[3] / head[2],
            "bytes_per_token": None if experts else size + head[3]}
