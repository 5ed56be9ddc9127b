#!/usr/bin/env python3
"""A model of any size with random weights in external data, written in pieces.

    python tests/bench/big_model.py OUT.onnx --gigabytes 6 [--hidden 4096]

Blocks of normalisation, product, activation, product and residual. Takes about 100 MB of memory whatever the size.
Needs numpy and onnx. The compressing run that belongs to it:

    /usr/bin/time -v compress OUT.onnx -o SMALL.onnx --methods int8-weight --max-memory 3G
"""
import argparse
import os

import numpy as np
from onnx import ModelProto, TensorProto, helper

PIECE = 1 << 22  # elements written at a time


def main():
    p = argparse.ArgumentParser()
    p.add_argument("out")
    p.add_argument("--gigabytes", type=float, default=6.0)
    p.add_argument("--hidden", type=int, default=4096)
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    h, f = a.hidden, 4 * a.hidden
    blocks = max(1, round(a.gigabytes * 1e9 / (2 * h * f * 4)))
    data = os.path.basename(a.out) + ".data"
    rng = np.random.default_rng(a.seed)
    nodes, constants, at = [], [], 0
    with open(os.path.join(os.path.dirname(a.out) or ".", data), "wb") as w:

        def weight(name, shape):
            nonlocal at
            t = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
            t.data_location = TensorProto.EXTERNAL
            n = int(np.prod(shape))
            for k, v in (("location", data), ("offset", at), ("length", 4 * n)):
                t.external_data.add(key=k, value=str(v))
            for i in range(0, n, PIECE):
                x = rng.standard_normal(min(PIECE, n - i), dtype=np.float32)
                w.write((x / np.float32(np.sqrt(shape[0]))).tobytes())
            at += 4 * n
            constants.append(t)
            return name

        one = helper.make_tensor("one", TensorProto.FLOAT, [h], np.ones(h, np.float32))
        constants.append(one)
        v = "x"
        for b in range(blocks):
            up, down = weight(f"block{b}.up", [h, f]), weight(f"block{b}.down", [f, h])
            for op, i, o in (
                ("LayerNormalization", [v, "one"], f"n{b}"),
                ("MatMul", [f"n{b}", up], f"u{b}"),
                ("Relu", [f"u{b}"], f"r{b}"),
                ("MatMul", [f"r{b}", down], f"d{b}"),
                ("Add", [v, f"d{b}"], f"v{b}"),
            ):
                nodes.append(helper.make_node(op, i, [o], name=f"block{b}/{op}_{o}"))
            v = f"v{b}"
    nodes[-1].output[0] = "y"
    io = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["tokens", h]) for n in ("x", "y")]
    g = helper.make_graph(nodes, "big", io[:1], io[1:], constants)
    m: ModelProto = helper.make_model(g, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with open(a.out, "wb") as w:
        w.write(m.SerializeToString())
    print(f"{a.out}: {blocks} blocks, {at / 1e9:.2f} GB of weights in {data}")


if __name__ == "__main__":
    main()
