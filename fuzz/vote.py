#!/usr/bin/env python3
"""ONNX Runtime as a third voter: vote.py COMPRESS MODEL.onnx…

Runs each model, on seeded inputs, with ONNX Runtime, with generated code and with the reference evaluator, and says who
is alone. Needs the Python packages onnx, onnxruntime and numpy."""
import pathlib, subprocess, sys, tempfile
import numpy as np, onnx, onnxruntime as ort


def inputs(model, seed):
    rng = np.random.default_rng(seed)
    stored = {i.name for i in model.graph.initializer}
    made = {}
    for i in model.graph.input:
        if i.name in stored:
            continue
        t = i.type.tensor_type
        shape = [d.dim_value if d.HasField("dim_value") else 2 for d in t.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(t.elem_type)
        whole = np.issubdtype(dtype, np.integer) or dtype == bool
        made[i.name] = (rng.integers(0, 2, shape) if whole else rng.uniform(-2, 2, shape)).astype(dtype)
    return made


def ours(compress, path, feeds, extra):
    with tempfile.TemporaryDirectory() as d:
        a, b = f"{d}/in.npz", f"{d}/out.npz"
        np.savez(a, **feeds)
        done = subprocess.run([compress, "run", path, "--inputs", a, "--outputs", b, *extra], capture_output=True, text=True)
        return dict(np.load(b)) if done.returncode == 0 else done.stderr.strip()


def near(a, b):
    if isinstance(a, str) or isinstance(b, str):
        return isinstance(a, str) == isinstance(b, str)
    for k in a.keys() & b.keys():
        x, y = np.asarray(a[k], dtype=np.float64), np.asarray(b[k], dtype=np.float64)
        if x.shape != y.shape or not np.allclose(x, y, rtol=2e-3, atol=2e-3 * max(1, np.abs(np.nan_to_num(x)).max(initial=0)), equal_nan=True):
            return False
    return True


def main(compress, paths):
    alone = 0
    for path in paths:
        model = onnx.load(path)
        feeds = inputs(model, 1)
        try:
            s = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
            votes = {"onnxruntime": dict(zip([o.name for o in s.get_outputs()], s.run(None, feeds)))}
        except Exception as e:
            votes = {"onnxruntime": str(e).splitlines()[0]}
        votes["code"] = ours(compress, path, feeds, [])
        votes["reference"] = ours(compress, path, feeds, ["--reference"])
        names = list(votes)
        odd = [n for n in names if not any(near(votes[n], votes[m]) for m in names if m != n)]
        differs = [n for n in names if any(not near(votes[n], votes[m]) for m in names if m != n)]
        verdict = "all agree" if not differs else f"alone: {', '.join(odd) or 'nobody'}"
        alone += bool(differs)
        print(f"{pathlib.Path(path).name}: {verdict}" + (f" ({votes['onnxruntime'][:90]})" if isinstance(votes["onnxruntime"], str) else ""))
    print(f"{alone} of {len(paths)} models have a voter that differs")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])
