"""Large layers in every stored form: time, memory and answers beside float32.

python tests/bench/stored.py --cli target/release/compress [--layers 4] [--size 4096] [--batch 1] [--threads 1] [--only PART]

Random weights; each form is the ONNX that `compress` writes. A round runs every form once, ratios are medians over
rounds. The answer of each is compared with `compress run --reference` of the same file.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh


class Model:
    def __init__(self, batch, size):
        self.nodes, self.weights, self.batch, self.size, self.n = [], [], batch, size, 0

    def op(self, kind, *inputs, **attrs):
        self.n += 1
        self.nodes.append(h.make_node(kind, list(inputs), [f"v{self.n}"], name=f"{kind}{self.n}", **attrs))
        return f"v{self.n}"

    def constant(self, array, kind=None):
        self.n += 1
        name = f"c{self.n}"
        if kind in (T.INT4, T.UINT4):
            flat = array.astype(np.int8).reshape(-1) & 15
            packed = (flat[0::2] | flat[1::2] << 4).astype(np.uint8)
            self.weights.append(h.make_tensor(name, kind, array.shape, packed.tobytes(), raw=True))
        else:
            self.weights.append(nh.from_array(array, name))
        return name

    def save(self, path, y):
        dims = [self.batch, self.size]
        x, y = (h.make_tensor_value_info(n, T.FLOAT, dims) for n in ("x", y))
        graph = h.make_graph(self.nodes, "g", [x], [y], self.weights)
        onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 21)], ir_version=10), path)


rng = np.random.default_rng(0)


def codes(shape, low, high):
    return rng.integers(low, high, shape, dtype=np.int8)


def scales(shape):
    return (rng.random(shape, dtype=np.float32) + 0.5) * 0.004


def linear(kind, low, high, block=None, half=False):
    def weight(m):
        n = m.size
        q = m.constant(codes((n, n), low, high), kind)
        s = scales((n // block, n) if block else (n,))
        if half:
            s = m.op("Cast", m.constant(s.astype(np.float16)), to=T.FLOAT)
        else:
            s = m.constant(s)
        return m.op("DequantizeLinear", q, s, axis=0 if block else 1, **({"block_size": block} if block else {}))

    return weight


def table(entries, snapped):
    def weight(m):
        n = m.size
        q = rng.integers(0, entries, (n, n), dtype=np.uint8)
        q = m.constant(q, T.UINT4 if entries == 16 else None)
        t = np.sort(rng.standard_normal(entries)).astype(np.float32)
        if snapped:
            unit = np.abs(t).max() / 127
            t = np.round(t / unit).astype(np.float32) * np.float32(unit)
        g = m.op("Gather", m.constant(t), m.op("Cast", q, to=T.INT32), axis=0)
        return m.op("Mul", g, m.constant(scales((n,))))

    return weight


def three_bits(m):
    n = m.size
    parts = []
    for bits, unit, offset in ((2, 2, 4), (1, 1, 0)):
        per = 4 // bits
        q = m.constant(rng.integers(0, 16, n * n // per, dtype=np.uint8), T.UINT4)
        t = [[(p >> (bits * i) & ((1 << bits) - 1)) * unit - offset for i in range(per)] for p in range(16)]
        g = m.op("Gather", m.constant(np.array(t, np.float32)), m.op("Cast", q, to=T.INT32), axis=0)
        parts.append(m.op("Reshape", g, m.constant(np.array([n, n], np.int64))))
    return m.op("Mul", m.op("Add", *parts), m.constant(scales((n,))))


def bitmap(share, two_of_four=False):
    def weight(m):
        n = m.size
        if two_of_four:
            order = rng.random((n // 4, n, 4)).argsort(axis=2)
            keep = (order < 2).transpose(0, 2, 1).reshape(-1)
        else:
            keep = rng.random(n * n) >= share
        quads = keep.reshape(-1, 4)
        packed = (quads * np.array([1, 2, 4, 8])).sum(axis=1).astype(np.uint8)
        bits = np.array([[p >> i & 1 for i in range(4)] for p in range(16)], np.int32)
        q = m.op("Cast", m.constant(packed, T.UINT4), to=T.INT32)
        mask = m.op("Reshape", m.op("Gather", m.constant(bits), q, axis=0), m.constant(np.array([-1], np.int64)))
        at = m.op("Sub", m.op("CumSum", mask, m.constant(np.array(0, np.int64))), m.constant(np.array(1, np.int32)))
        v = m.op("Cast", m.constant(codes(int(keep.sum()), 1, 128)), to=T.FLOAT)
        x = m.op("Mul", m.op("Gather", v, at, axis=0), m.op("Cast", mask, to=T.FLOAT))
        x = m.op("Reshape", x, m.constant(np.array([n, n], np.int64)))
        return m.op("Mul", x, m.constant(scales((n,))))

    return weight


def floats(m):
    n = m.size
    return m.constant(rng.standard_normal((n, n), dtype=np.float32) * 0.02)


FORMS = {
    "float32": floats,
    "int8": linear(T.INT8, -127, 128),
    "int8 block 32": linear(T.INT8, -127, 128, 32, True),
    "int4": linear(T.INT4, -8, 8),
    "int4 block 32": linear(T.INT4, -8, 8, 32, True),
    "int4 block 128": linear(T.INT4, -8, 8, 128),
    "int3": three_bits,
    "codebook 16": table(16, True),
    "codebook 16 floats": table(16, False),
    "codebook 256": table(256, False),
    "2:4 int8": bitmap(0.5, True),
    "prune 80 % int8": bitmap(0.8),
    "prune 90 % int8": bitmap(0.9),
    "low-rank 256": None,
}


def build(name, weight, path, args):
    m = Model(args.batch, args.size)
    x = "x"
    for _ in range(args.layers):
        if weight is None:
            n, r = args.size, args.size // 16
            a = m.constant(rng.standard_normal((n, r), dtype=np.float32) * 0.02)
            b = m.constant(rng.standard_normal((r, n), dtype=np.float32) * 0.05)
            x = m.op("MatMul", m.op("MatMul", x, a), b)
        else:
            x = m.op("MatMul", x, weight(m))
        x = m.op("Tanh", x)
    m.save(path, x)


def run(*command):
    return subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True).stdout


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--cli", required=True)
    p.add_argument("--layers", type=int, default=4)
    p.add_argument("--size", type=int, default=4096)
    p.add_argument("--batch", type=int, default=1)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--only", default="")
    p.add_argument("--no-check", action="store_true")
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        forms = {n: w for n, w in FORMS.items() if args.only in n or n == "float32"}
        np.savez(d / "x.npz", x=rng.standard_normal((args.batch, args.size), dtype=np.float32))
        for i, (name, weight) in enumerate(forms.items()):
            build(name, weight, d / f"{i}.onnx", args)
        results = {n: [] for n in forms}
        for _ in range(args.rounds):
            for i, name in enumerate(forms):
                out = run(args.cli, "bench", d / f"{i}.onnx", "--json", "--threads", args.threads)
                results[name].append(json.loads(out))
        median = lambda name, key: statistics.median(r[key] for r in results[name])
        base, memory = median("float32", "median_ms"), median("float32", "peak_rss_mb")
        print(f"{args.layers} layers of {args.size}², batch {args.batch}, {args.threads} threads")
        print("| form | file MB | ms | × float32 | first run ms | peak MB | of float32 | difference |")
        print("|---|---|---|---|---|---|---|---|")
        for i, name in enumerate(forms):
            error = ""
            if not args.no_check:
                for flag, out in (([], "a.npz"), (["--reference"], "b.npz")):
                    run(args.cli, "run", d / f"{i}.onnx", "--inputs", d / "x.npz", "--outputs", d / out, "--force", *flag)
                a, b = (list(np.load(d / f).values())[0] for f in ("a.npz", "b.npz"))
                error = f"{np.abs(a - b).max() / np.abs(b).max():.1e}"
            ms, rss = median(name, "median_ms"), median(name, "peak_rss_mb")
            size = (d / f"{i}.onnx").stat().st_size / 1e6
            first = median(name, "load_ms") + median(name, "first_run_ms")
            print(
                f"| {name} | {size:.1f} | {ms:.2f} | {base / ms:.2f} | {first:.0f} | {rss:.0f} |"
                f" {rss / memory:.2f} | {error} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
