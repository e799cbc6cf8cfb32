"""Pictures: quantize with a tower and a projector, inspect, run --image, and images that are none."""
import json
import os
import random
import struct
import subprocess
import unittest
import zlib

from support import MAKE_TINY, TIMEOUT, CliTest

DIM, FFN, LAYERS, PATCH, IMAGE = 32, 64, 1, 4, 16  # of the tower; the tiny model's width is 64
RANDOM = random.Random(5)


def png(width, height, shade=100):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + bytes((x * 7 + y * 3 + shade) % 256 for x in range(3 * width)) for y in range(height))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def safetensors(shapes, metadata=None):
    header, data = ({"__metadata__": metadata} if metadata else {}), b""
    for name, shape in shapes.items():
        count = 1
        for size in shape:
            count *= size
        values = struct.pack(f"<{count}f", *(RANDOM.uniform(-0.2, 0.2) for _ in range(count)))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tower_shapes():
    shapes = {"embeddings.patch_embedding.weight": [DIM, 3, PATCH, PATCH], "embeddings.patch_embedding.bias": [DIM],
              "embeddings.position_embedding.weight": [(IMAGE // PATCH) ** 2, DIM],
              "post_layernorm.weight": [DIM], "post_layernorm.bias": [DIM]}
    for layer in range(LAYERS):
        parts = {"layer_norm1": [DIM], "layer_norm2": [DIM], "mlp.fc1": [FFN, DIM], "mlp.fc2": [DIM, FFN]}
        parts.update({f"self_attn.{n}": [DIM, DIM] for n in ("q_proj", "k_proj", "v_proj", "out_proj")})
        for name, shape in parts.items():
            shapes[f"encoder.layers.{layer}.{name}.weight"] = shape
            shapes[f"encoder.layers.{layer}.{name}.bias"] = shape[:1]
    return shapes


class Vision(CliTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.tower, cls.projector = cls.path("tower"), cls.path("projector.safetensors")
        os.mkdir(cls.tower)
        config = {"model_type": "siglip_vision_model", "hidden_size": DIM, "intermediate_size": FFN,
                  "num_hidden_layers": LAYERS, "num_attention_heads": 2, "patch_size": PATCH, "image_size": IMAGE}
        processor = {"size": {"height": IMAGE, "width": IMAGE}, "resample": 3,
                     "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        shapes = {"projector.linear_1.weight": [64, 4 * DIM], "projector.linear_1.bias": [64]}
        for name, data in ((os.path.join("tower", "config.json"), json.dumps(config)),
                           (os.path.join("tower", "preprocessor_config.json"), json.dumps(processor)),
                           (os.path.join("tower", "model.safetensors"), safetensors(tower_shapes())),
                           ("projector.safetensors", safetensors(shapes, {"after": "\n"}))):
            with open(cls.path(name), "wb") as file:
                file.write(data if isinstance(data, bytes) else data.encode())
        cls.picture = cls.path("picture.png")
        with open(cls.picture, "wb") as file:
            file.write(png(40, 30))

    def quantize(self, name, *more):
        path = self.path(name)
        self.expect(0, "quantize", self.gguf, "-o", path, "--bits", "4", "--group", "32", "-q", "--force",
                    "--vision", self.tower, "--projector", self.projector, *more)
        return path

    def test_quantize_inspect_and_see(self):
        for bits in (4, 8, 32):
            model = self.quantize(f"seeing{bits}.crumb", "--vision-bits", str(bits))
            seen = self.json_of("inspect", model, "--json")
            self.assertEqual(seen["config"]["vision"]["dim"], DIM)
            self.assertEqual(seen["metadata"]["required"].split(",")[-1], "vision")
            table = {t["name"]: t for t in seen["tensors"]}
            self.assertEqual(table["vision.layers.0.fc1"]["bits"], bits)
            self.assertEqual(table["projector.linear_1"]["shape"], [64, 4 * DIM])
            self.assertEqual(table["vision.position_embed"]["bits"], 32)
            text = self.expect(0, "inspect", model, "--verify").stdout.decode()
            self.assertIn("sees: siglip_vision_model", text)
            self.assertIn("-> 4 tokens", text)
            args = ["run", "What is it?", "-m", model, "--temp", "0", "-n", "12", "--ignore-eos", "--json"]
            blind, seeing = self.json_of(*args), self.json_of(*args, "--image", self.picture)
            # Four rows, and the line feed behind them.
            self.assertEqual(seeing["prompt_tokens"], blind["prompt_tokens"] + 5)
            self.assertEqual(seeing["ids"], self.json_of(*args, "--image", self.picture, "-t", "1", "--mmap")["ids"])

    def test_another_picture_another_answer(self):
        model = self.path("tiny_seeing.crumb")
        subprocess.run([MAKE_TINY, model, "--vision", "dinov2"], check=True, timeout=TIMEOUT)
        args = ["run", "What is it?", "-m", model, "--temp", "0", "-n", "12", "--ignore-eos", "--json"]
        answers = [self.json_of(*args, "--image", self.write("p.png", png(24, 24, shade)))["ids"]
                   for shade in (0, 120)]
        self.assertNotEqual(answers[0], answers[1])

    def test_a_recipe_makes_the_same_file(self):
        model = self.quantize("first.crumb", "--vision-bits", "4")
        recipe = self.json_of("inspect", model, "--json")["recipe"]
        again = self.path("again.crumb")
        self.expect(0, "quantize", self.gguf, "-o", again, "-q", "--force", "--vision", self.tower, "--projector",
                    self.projector, "--recipe", self.write("recipe.json", json.dumps(recipe)))
        with open(model, "rb") as a, open(again, "rb") as b:
            self.assertEqual(a.read(), b.read())

    def test_bad_images_have_one_line(self):
        model = self.quantize("seeing.crumb")
        args = ["run", "What is it?", "-m", model, "-n", "4", "--image"]
        whole = png(40, 30)
        for code, name, data, what in (
                (3, "cut.png", whole[:-20], "whole PNG"),
                (3, "text.png", b"hello", "another kind of file"),
                (3, "empty.png", b"", "no bytes"),
                (3, "damaged.png", whole[:60] + b"\xff\xff" + whole[62:], "whole PNG"),
                (5, "bomb.png", png(1, 1).replace(struct.pack(">II", 1, 1), struct.pack(">II", 65535, 65535), 1),
                 "too large")):
            error = self.expect_error(code, *args, self.write(name, data))
            self.assertIn(what, error)
            self.assertIn(name, error)
        self.expect_error(4, *args, self.path("nowhere.png"))
        self.expect_error(3, *args, self.folder)

    def test_what_does_not_go_together(self):
        self.assertIn("cannot see", self.expect_error(2, "run", "x", "-m", self.crumb, "--image", self.picture))
        model = self.quantize("seeing.crumb")
        self.expect_error(2, "run", "x", "-m", model, "--image", self.picture, "--raw")
        output = ["-o", self.path("out.crumb")]
        self.expect_error(2, "quantize", self.gguf, *output, "--vision", self.tower)
        self.expect_error(2, "quantize", self.gguf, *output, "--projector", self.projector)
        self.expect_error(2, "quantize", self.gguf, *output, "--vision-bits", "4")
        self.expect_error(2, "quantize", model, *output, "--vision", self.tower, "--projector", self.projector)
        self.expect_error(3, "quantize", self.gguf, *output, "--vision", self.tower, "--projector", self.crumb)
        for to in ("gguf", "hf"):
            error = self.expect_error(2, "convert", model, "-o", self.path("o." + to), "--to", to)
            self.assertIn("vision tower", error)


if __name__ == "__main__":
    unittest.main()
