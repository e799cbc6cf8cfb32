#!/usr/bin/env python3
"""Writes distill_trace.json: ten steps of Distill-QAT of a tiny model in float64, by a reverse-mode derivative in numpy.

The model, the tokens and the start are drawn from a hash, as tests/quant/distill_trace_test.cpp draws them. All else
is written from formulas: Llama blocks (RMSNorm, RoPE of pairs, grouped causal attention, SiLU), a rotation by random
signs and Hadamard blocks of 64 (models/FORMAT.md), SEQ INT2 with a learned log scale a row rounded to binary16 and
straight-through gradients (arXiv:2502.02631, arXiv:1902.08153), JSD (arXiv:2506.09104), AdamW, a clipped norm.
"""
import json
import os

import numpy as np

LAYERS, DIM, FFN, HEADS, KV_HEADS, HEAD, VOCAB = 2, 64, 128, 2, 1, 32, 64
WINDOW, BATCH, STEPS, WARMUP = 16, 2, 10, 2
THETA, EPS = 10000.0, 1e-5
RATE, SCALE_RATE, FLOOR, BETA1, BETA2, CLIP = 4e-3, 8e-3, 0.05, 0.9, 0.95, 0.5
SEED = 7  # of the rotation
MASK = (1 << 64) - 1


def mix(x):
    """splitmix64's output for a counter."""
    z = (x * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def drawn(stream, n, size, centre=0.0):
    """n float32 values, uniform in centre +- size."""
    u = np.array([(mix((stream << 32) + i + 1) >> 40) / 2.0**24 for i in range(n)])
    return np.float32(centre + size * (2 * u - 1)).astype(np.float64)


class Value:
    """A node of the graph: its array, and how to send a gradient to each of its sources."""

    def __init__(self, array, sources=()):
        self.array, self.sources, self.gradient = array, sources, None


def backward(root):
    order, seen = [], set()

    def visit(node):
        if id(node) not in seen:
            seen.add(id(node))
            for source, _ in node.sources:
                visit(source)
            order.append(node)
    visit(root)
    for node in order:
        node.gradient = np.zeros_like(node.array)
    root.gradient = np.ones_like(root.array)
    for node in reversed(order):
        for source, pull in node.sources:
            source.gradient = source.gradient + pull(node.gradient)


def summed_to(gradient, shape):
    while gradient.ndim > len(shape):
        gradient = gradient.sum(0)
    for axis, n in enumerate(shape):
        if n == 1 and gradient.shape[axis] != 1:
            gradient = gradient.sum(axis, keepdims=True)
    return gradient


def constant(x):
    return Value(np.asarray(x, dtype=np.float64))


def add(a, b):
    return Value(a.array + b.array, [(a, lambda g: summed_to(g, a.array.shape)),
                                     (b, lambda g: summed_to(g, b.array.shape))])


def mul(a, b):
    return Value(a.array * b.array, [(a, lambda g: summed_to(g * b.array, a.array.shape)),
                                     (b, lambda g: summed_to(g * a.array, b.array.shape))])


def matmul(a, b):
    return Value(a.array @ b.array, [(a, lambda g: g @ b.array.T), (b, lambda g: a.array.T @ g)])


def transposed(a):
    return Value(a.array.T, [(a, lambda g: g.T)])


def mapped(a, f, derivative):
    return Value(f(a.array), [(a, lambda g: g * derivative(a.array))])


def power(a, p):
    return mapped(a, lambda x: x**p, lambda x: p * x**(p - 1))


def exponential(a):
    return mapped(a, np.exp, np.exp)


def logarithm(a):
    return mapped(a, np.log, lambda x: 1 / x)


def row_sum(a):
    return Value(a.array.sum(-1, keepdims=True), [(a, lambda g: np.broadcast_to(g, a.array.shape))])


def columns(a, first, last):
    def pull(g):
        out = np.zeros_like(a.array)
        out[:, first:last] = g
        return out
    return Value(a.array[:, first:last], [(a, pull)])


def joined(parts):
    edges = np.cumsum([0] + [p.array.shape[1] for p in parts])
    return Value(np.concatenate([p.array for p in parts], 1),
                 [(p, lambda g, i=i: g[:, edges[i]:edges[i + 1]]) for i, p in enumerate(parts)])


def log_softmax(z):
    shifted = add(z, constant(-z.array.max(-1, keepdims=True)))
    return add(shifted, mul(constant(-1.0), logarithm(row_sum(exponential(shifted)))))


def rmsnorm(x, gain):
    mean = mul(row_sum(mul(x, x)), constant(1.0 / x.array.shape[-1]))
    return mul(mul(x, power(add(mean, constant(EPS)), -0.5)), gain)


def rope(x):
    half = HEAD // 2
    angle = np.arange(WINDOW)[:, None] * THETA ** (-2.0 * np.arange(half) / HEAD)[None]
    cos, sin = np.repeat(np.cos(angle), 2, 1), np.repeat(np.sin(angle), 2, 1)
    turn = np.zeros((HEAD, HEAD))  # (a, b) -> (-b, a)
    for i in range(half):
        turn[2 * i + 1, 2 * i], turn[2 * i, 2 * i + 1] = -1, 1
    return add(mul(x, constant(cos)), mul(matmul(x, constant(turn)), constant(sin)))


def block(x, w):
    normed = rmsnorm(x, w["attn_norm"])
    q, k, v = (matmul(normed, transposed(w[name])) for name in "qkv")
    heads = []
    later = np.triu(np.full((WINDOW, WINDOW), -1e9), 1)
    for h in range(HEADS):
        g = h * KV_HEADS // HEADS
        own = rope(columns(q, h * HEAD, (h + 1) * HEAD))
        keys = rope(columns(k, g * HEAD, (g + 1) * HEAD))
        scores = mul(matmul(own, transposed(keys)), constant(HEAD**-0.5))
        shares = exponential(log_softmax(add(scores, constant(later))))
        heads.append(matmul(shares, columns(v, g * HEAD, (g + 1) * HEAD)))
    mid = add(x, matmul(joined(heads), transposed(w["o"])))
    normed = rmsnorm(mid, w["mlp_norm"])
    gate, up = (matmul(normed, transposed(w[name])) for name in ("gate", "up"))
    silu = mul(gate, power(add(constant(1.0), exponential(mul(gate, constant(-1.0)))), -1.0))
    return add(mid, matmul(mul(silu, up), transposed(w["down"])))


def log_q(ids, embedding, blocks, final_norm):
    x = constant(embedding[ids])
    for w in blocks:
        x = block(x, w)
    return log_softmax(matmul(rmsnorm(x, final_norm), constant(embedding.T)))


SHAPES = {"q": (HEADS * HEAD, DIM), "k": (KV_HEADS * HEAD, DIM), "v": (KV_HEADS * HEAD, DIM),
          "o": (DIM, HEADS * HEAD), "gate": (FFN, DIM), "up": (FFN, DIM), "down": (DIM, FFN)}


def teacher():
    embedding = drawn(1, VOCAB * DIM, 0.5).reshape(VOCAB, DIM)
    blocks = []
    for layer in range(LAYERS):
        w = {"attn_norm": drawn(100 + layer, DIM, 0.2, 1.0), "mlp_norm": drawn(200 + layer, DIM, 0.2, 1.0)}
        for i, (name, (n, k)) in enumerate(SHAPES.items()):
            w[name] = drawn(300 + 10 * layer + i, n * k, 2 * k**-0.5).reshape(n, k)
        blocks.append(w)
    return embedding, blocks, drawn(2, DIM, 0.2, 1.0)


def rotation(k):
    """R with rotated row = row @ R; R^-1 = R^T."""
    signs = np.array([-1.0 if mix_seeded(SEED, i) >> 63 else 1.0 for i in range(k)])
    h = np.array([[(-1.0) ** bin(i & j).count("1") for j in range(64)] for i in range(64)]) / 8
    return signs[:, None] * np.kron(np.eye(k // 64), h)


def mix_seeded(seed, i):
    z = (seed + (i + 1) * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def fake_quantized(master, log_scale):
    """Levels s {-1.5, -.5, .5, 1.5}; within two steps of 0 the gradient passes."""
    s = np.float16(np.exp(log_scale.array)).astype(np.float64)[:, None]
    w = master.array
    level = s * (np.clip(np.floor(w / s + 2), 0, 3) - 1.5)
    inside = np.abs(w) < 2 * s
    return Value(level, [(master, lambda g: g * inside),
                         (log_scale, lambda g: (g * (level - inside * w)).sum(1))])


def schedule(t):
    if t <= WARMUP:
        return t / (WARMUP + 1)
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + np.cos(np.pi * (t - 1 - WARMUP) / (STEPS - WARMUP)))


def trace(kind):
    embedding, teacher_blocks, teacher_norm = teacher()
    student = {"final": teacher_norm.copy()}
    for layer, w in enumerate(teacher_blocks):
        for name in ("attn_norm", "mlp_norm"):
            student[layer, name] = w[name].copy()
        for name, (_, k) in SHAPES.items():
            rotated = w[name] @ rotation(k)
            student[layer, name] = rotated
            student[layer, name, "scale"] = np.log(np.abs(rotated).mean(1))
    moments = {key: (np.zeros_like(x), np.zeros_like(x)) for key, x in student.items()}
    lines = []
    for t in range(1, STEPS + 1):
        nodes = {key: Value(x) for key, x in student.items()}
        blocks = []
        for layer in range(LAYERS):
            w = {name: nodes[layer, name] for name in ("attn_norm", "mlp_norm")}
            for name, (_, k) in SHAPES.items():
                level = fake_quantized(nodes[layer, name], nodes[layer, name, "scale"])
                w[name] = matmul(level, constant(rotation(k).T))
            blocks.append(w)
        plain = [{name: constant(x) for name, x in w.items()} for w in teacher_blocks]
        loss, kl = constant(0.0), 0.0
        tokens = BATCH * WINDOW
        for b in range(BATCH):
            ids = [mix((50 << 32) + b * WINDOW + i + 1) % VOCAB for i in range(WINDOW)]
            log_p = constant(log_q(ids, embedding, plain, constant(teacher_norm)).array)
            student_log = log_q(ids, embedding, blocks, nodes["final"])
            p, q = exponential(log_p), exponential(student_log)
            minus = mul(constant(-1.0), student_log)
            forward = row_sum(mul(p, add(log_p, minus)))
            if kind == "jsd":
                log_m = logarithm(add(mul(p, constant(0.5)), mul(q, constant(0.5))))
                to_m = mul(constant(-1.0), log_m)
                one = mul(constant(0.5), add(row_sum(mul(p, add(log_p, to_m))), row_sum(mul(q, add(student_log, to_m)))))
            else:
                one = forward
            loss = add(loss, mul(row_sum(transposed(one)), constant(1.0 / tokens)))
            kl += forward.array.sum() / tokens
        backward(loss)
        squares = sum((node.gradient**2).sum() for key, node in nodes.items() if key[-1] != "scale")
        clip = min(1.0, CLIP / np.sqrt(squares))
        for key, node in nodes.items():
            g = node.gradient.reshape(student[key].shape) * clip
            m, v = moments[key]
            m, v = BETA1 * m + (1 - BETA1) * g, BETA2 * v + (1 - BETA2) * g * g
            moments[key] = m, v
            rate = schedule(t) * (SCALE_RATE if key[-1] == "scale" else RATE)
            student[key] = student[key] - rate * m / (1 - BETA1**t) / (np.sqrt(v / (1 - BETA2**t)) + 1e-8)
        lines.append({"loss": float(loss.array.sum()), "kl": float(kl), "gradient_norm": float(np.sqrt(squares))})
    return lines


def main():
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "distill_trace.json")
    with open(path, "w") as file:
        json.dump({"forward_kl": trace("forward_kl"), "jsd": trace("jsd")}, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
