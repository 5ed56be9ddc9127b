#!/usr/bin/env python3
"""Real models beside ONNX Runtime: equal answers, `optimize` never larger or slower, `compress` ends 0 or 3.

  zoo.py --cli target/release/compress ZOO [-k REGEX] [--samples 2] [--steps run,optimize,compress] [--work DIR]

ZOO holds models/NAME/model.onnx and, where there are some, data/NAME/*.npz whose arrays are named after the model's inputs
(first axis = samples), data/imagenet-20, data/skimage-photos and data/speech, from which inputs are made for models by the
kind of their inputs: images, spectra, samples of sound. What has no data gets seeded random numbers; a model with states gets
zeros first and then the states it returned, and a decoder generates 16 tokens. Needs numpy, scipy, onnx and onnxruntime.

Columns: largest difference to ONNX Runtime relative to the largest value, with generated code and by reference (ONNX Runtime
with its graph optimisations and without: the smaller counts, because its fused kernels of quantized models compute
differently); bytes and ONNX Runtime's time of the optimised file over the original's; exit code, bytes and seconds of
`compress --max-drop 1%`. A row that misses a bound ends in FAIL; the exit code is the number of such rows.
"""
import argparse, json, os, re, subprocess, sys, tempfile, time
import numpy as np
import onnx
import onnxruntime as ort

TOLERANCE = 1e-3


def session(path, optimise=True):
    o = ort.SessionOptions()
    o.intra_op_num_threads, o.inter_op_num_threads, o.log_severity_level = 1, 1, 4
    if not optimise:
        o.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(path, o, providers=["CPUExecutionProvider"])


def photos(zoo, side, n):
    z = np.load(f"{zoo}/data/imagenet-20/data.npz")["images240"][:n]
    from PIL import Image
    shape = side if isinstance(side, tuple) else (side, side)
    return np.stack([np.asarray(Image.fromarray(i).resize(shape[::-1], Image.BICUBIC)) for i in z]).astype(np.float32)


def sound(zoo, length, n):
    z = np.load(f"{zoo}/data/speech/data.npz")
    clips = [z[k].astype(np.float32) / 32768 for k in z.files if z[k].dtype == np.int16]
    return np.stack([np.resize(c, length) for c in clips[:n]])


def spectra(zoo, bins, frames, n, size, hop):
    wave = sound(zoo, size + hop * (frames - 1), n)
    pieces = np.stack([wave[:, i * hop : i * hop + size] for i in range(frames)], 1) * np.hanning(size)
    return np.abs(np.fft.rfft(pieces, axis=-1))[..., :bins].astype(np.float32)


MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def planes(x):
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def log(x):
    return np.log10(np.maximum(x * x, 1e-12)).astype(np.float32)


def waveform_scaled(zoo, n):
    x = sound(zoo, 1024, n)
    return (x - x.mean(1, keepdims=True)) / (x.std(1, keepdims=True) + 1e-8)


def page(zoo, n):
    from PIL import Image
    z = Image.fromarray(np.load(f"{zoo}/data/skimage-photos/data.npz")["page"])
    crops = [z.crop((0, 20 + 18 * i, 384, 20 + 18 * i + 40)).resize((480, 64), Image.BICUBIC) for i in range(n)]
    return ((np.stack([np.asarray(c) for c in crops]) / 255 - 0.5) / 0.5).astype(np.float32)[:, None, None]


def tokens(zoo, n):
    z = np.load(f"{zoo}/data/minilm-l6/test.npz")
    ids, mask = z["input_ids"][:n], z["attention_mask"][:n]
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


# How users of these models prepare their inputs; each gives arrays whose first axis counts samples.
MAKERS = {
    "basic-pitch": lambda z, n: {"serving_default_input_2:0": sound(z, 43844, n)[:, None, :, None]},
    "crepe-tiny": lambda z, n: {"frames": waveform_scaled(z, n)[:, None]},
    "ddddocr-rec": lambda z, n: {"input1": page(z, n)},
    "dnsmos": lambda z, n: {"input_1": sound(z, 144160, n)[:, None]},
    "efficientnet-lite1": lambda z, n: {"input": planes((photos(z, 240, n) - 127) / 128)[:, None]},
    "isnet-fp16": lambda z, n: {"input": planes((photos(z, 1024, n) - 128) / 256)[:, None]},
    "minilm-l6-int8": lambda z, n: {k: v[:, None] for k, v in tokens(z, n).items()},
    "nsnet2-16k": lambda z, n: {"input": log(spectra(z, 161, 50, n, 320, 160))[:, None]},
    "oww-melspec": lambda z, n: {"input": sound(z, 16000, n)[:, None] * 32768},
    "plcmos": lambda z, n: {
        "degraded_audio": log(spectra(z, 257, 60, n, 512, 256))[:, None, None],
        "rater_embed": np.random.default_rng(1).standard_normal((n, 1, 64)).astype(np.float32),
    },
    "ppocr5-cls": lambda z, n: {"x": planes((photos(z, (80, 160), n) / 255 - MEAN) / STD)[:, None]},
    "ppocr5-det": lambda z, n: {"x": np.load(f"{z}/data/ppocr-det/test.npz")["x"][:n, None]},
    "resemblyzer": lambda z, n: {"mels": spectra(z, 40, 160, n, 400, 160)[:, None]},
}


def random_input(i, rng, sizes):
    dims = [d if isinstance(d, int) and d > 0 else sizes.setdefault(str(d), 5 + len(sizes)) for d in i.shape]
    if i.type == "tensor(float)":
        return rng.standard_normal(dims).astype(np.float32)
    kind = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}[i.type]
    return rng.integers(1, 20, dims).astype(kind)


def states(s):
    """Pairs (input, output) of states: the same name but for what marks the new value, or else the same fixed shape."""
    ins, outs = s.get_inputs(), s.get_outputs()
    pairs = {}
    for i in ins:
        named = [o.name for o in outs if o.name in (i.name + "N", i.name + "n", i.name.replace("past_key_values", "present"))]
        shaped = [o.name for o in outs if len(outs) > 1 and len(i.shape) > 2 and list(o.shape) == list(i.shape)]
        fixed = all(isinstance(d, int) for d in i.shape)
        if named or (fixed and len(shaped) == 1):
            pairs[i.name] = (named or shaped)[0]
    return pairs


def samples(zoo, name, s, n):
    """Feeds, one dictionary a sample; states are filled in by the caller."""
    ins = s.get_inputs()
    if name in MAKERS:
        arrays = MAKERS[name](zoo, n)
    else:
        folder = {"mnist-cnn": "mnist"}.get(name, name)
        path = f"{zoo}/data/{folder}/test.npz"
        arrays = dict(np.load(path)) if os.path.exists(path) else {}
        arrays = {k: v[:n][:, None] for k, v in arrays.items() if k in [i.name for i in ins]}
    rng, feeds = np.random.default_rng(0), []
    count = min([n] + [len(v) for v in arrays.values()])
    voice = sound(zoo, 576 * 4 * count, 1)[0].reshape(count, 4, 576)
    for j in range(count):
        sizes, f = {"None": 1, "batch": 1, "N": 1, "total": 7, "seq": 7, "past": 0, "sequence_length": 4}, {}
        for i in ins:
            if i.name in arrays:
                f[i.name] = arrays[i.name][j]
            elif i.name == "sr":
                f[i.name] = np.array(16000, np.int64)
            elif i.name == "input" and list(i.shape)[1:] == [576]:
                f[i.name] = voice[j]
            elif i.name == "input" and not any(isinstance(d, int) for d in i.shape):
                f[i.name] = voice[j][:1]
            elif i.name == "position_ids":
                f[i.name] = np.arange(7, dtype=np.int64)[None]
            elif i.name == "attention_mask":
                f[i.name] = np.ones((1, 7), np.int64)
            else:
                f[i.name] = random_input(i, rng, sizes)
        feeds.append(f)
    for i in states(s):
        feeds[0][i] = np.zeros_like(feeds[0][i])
    return feeds


def caches(s):
    """Pairs (input, output) of a decoder's caches."""
    ins, outs = [i.name for i in s.get_inputs()], [o.name for o in s.get_outputs()]
    return {i: o for i in ins for o in outs if i.replace("past_key_values", "present") == o and i != o}


def decoder_feeds(s, tokens, past):
    """Feeds of a decoder for new tokens after a cache (or none)."""
    feeds, kept = {}, next(iter(past.values())).shape[2] if past else 0
    for i in s.get_inputs():
        if i.name == "input_ids":
            feeds[i.name] = np.array([tokens], np.int64)
        elif i.name == "attention_mask":
            feeds[i.name] = np.ones((1, kept + len(tokens)), np.int64)
        elif i.name == "position_ids":
            feeds[i.name] = np.arange(kept, kept + len(tokens), dtype=np.int64)[None]
        else:
            shape = [d if isinstance(d, int) else 1 if d == "batch" else 0 for d in i.shape]
            feeds[i.name] = past[i.name] if past else np.zeros(shape, np.float32)
    return feeds


def decode(cli, path, s, prompt, n, d):
    """Greedy tokens of both engines, each on its own caches; the largest difference of logits and caches while the tokens
    agree, and milliseconds a token of `compress bench` and of ONNX Runtime with the longest cache."""
    links, names = caches(s), [o.name for o in s.get_outputs()]
    theirs, mine, tokens, worst = {}, {}, [], 0.0
    next_token = lambda out: int(out["logits"][0, -1].argmax())
    new = list(prompt)
    for _ in range(n):
        a = decoder_feeds(s, new, theirs)
        wanted = dict(zip(names, s.run(None, a)))
        found, _ = ours(cli, path, decoder_feeds(s, new, mine), d)
        worst = max(worst, difference(found, wanted))
        tokens.append((next_token(wanted), next_token(found)))
        theirs, mine = ({i: out[o] for i, o in links.items()} for out in (wanted, found))
        new = [tokens[-1][0]]
        if tokens[-1][0] != tokens[-1][1]:
            break
    feeds = decoder_feeds(s, new, theirs)
    np.savez(d + "/in.npz", **feeds)
    r = subprocess.run([cli, "bench", path, "--inputs", d + "/in.npz", "--json"], capture_output=True, text=True)
    ms = json.loads(r.stdout)["median_ms"] if r.returncode == 0 else float("nan")
    return tokens, worst, ms, timed(s, feeds) * 1e3


def difference(found, wanted):
    worst = 0.0
    for k, w in wanted.items():
        f, w = np.asarray(found[k], np.float64), np.asarray(w, np.float64)
        if f.shape != w.shape:
            return float("inf")
        if w.size:
            worst = max(worst, float(np.abs(f - w).max() / max(np.abs(w).max(), 1e-30)))
    return worst


def ours(cli, path, feeds, d, *more):
    np.savez(d + "/in.npz", **feeds)
    start = time.perf_counter()
    r = subprocess.run([cli, "run", path, "--inputs", d + "/in.npz", "--outputs", d + "/out.npz", *more],
                       capture_output=True, text=True)
    if r.returncode:
        raise RuntimeError(f"exit {r.returncode}: {r.stderr.strip().splitlines()[:1]}")
    return dict(np.load(d + "/out.npz")), time.perf_counter() - start


def timed(s, feeds, seconds=0.4):
    times, start = [], time.perf_counter()
    s.run(None, feeds)
    while time.perf_counter() - start < seconds or len(times) < 3:
        t = time.perf_counter()
        s.run(None, feeds)
        times.append(time.perf_counter() - t)
    return min(times)


def check(a, name, path, d):
    row, bad = {"model": name}, []
    plain, bare = session(path), session(path, optimise=False)
    if caches(plain):
        # Any tokens will do: both engines see the same.
        feeds = [decoder_feeds(plain, [504, 1988, 282, 4649, 314, 260, 15][: 7 - j], {}) for j in range(a.samples)]
    else:
        feeds = samples(a.zoo, name, plain, a.samples)
    links, names = {} if caches(plain) else states(plain), [o.name for o in plain.get_outputs()]
    wanted, bare_wanted = [], []
    for j, f in enumerate(feeds):
        if j and links:
            f.update({i: wanted[-1][o] for i, o in links.items()})
        wanted.append(dict(zip(names, plain.run(None, f))))
        bare_wanted.append(dict(zip(names, bare.run(None, f))))
    if "run" in a.steps:
        for column, more in (("generated", []), ("reference", ["--reference"])):
            worst, seconds = 0.0, 0.0
            try:
                for f, w, b in list(zip(feeds, wanted, bare_wanted))[: a.samples if not more else 1]:
                    found, t = ours(a.cli, path, f, d, *more)
                    worst, seconds = max(worst, min(difference(found, w), difference(found, b))), max(seconds, t)
                row[column], row[column + " s"] = f"{worst:.1e}", f"{seconds:.1f}"
                if not worst <= TOLERANCE:
                    bad.append(column)
            except RuntimeError as e:
                row[column] = str(e)
                bad.append(column)
        if caches(plain):
            tokens, worst, ms, their_ms = decode(a.cli, path, plain, [504, 1988, 282, 4649, 314, 260, 15], 16, d)
            equal = sum(x == y for x, y in tokens)
            print(f"{name}: {equal} of 16 greedy tokens equal, logits and caches within {worst:.1e}, {ms:.1f} ms a token, "
                  f"ONNX Runtime {their_ms:.1f} ms", flush=True)
            bad += ["tokens"] * (equal < 16) + ["caches"] * (not worst <= TOLERANCE)
    if "optimize" in a.steps:
        out = f"{d}/{name}.optimized.onnx"
        r = subprocess.run([a.cli, "optimize", path, "-o", out, "--force", "-q"], capture_output=True, text=True)
        if r.returncode not in (0, 3):
            row["size"] = f"exit {r.returncode}: {r.stderr.strip()[:80]}"
            bad.append("optimize")
        elif r.returncode == 0:
            onnx.checker.check_model(out)
            s = session(out)
            size = os.path.getsize(out) / os.path.getsize(path)
            got = dict(zip(names, s.run(None, feeds[0])))
            off = min(difference(got, wanted[0]), difference(got, bare_wanted[0]))
            ratios = [timed(s, feeds[0]) / timed(plain, feeds[0]) for _ in range(3)]
            row["size"], row["time"], row["optimized"] = f"{size:.3f}", f"{float(np.median(ratios)):.2f}", f"{off:.1e}"
            bad += ["size"] * (size > 1) + ["optimized"] * (off > TOLERANCE) + ["slower"] * (min(ratios) > 1.05)
        else:
            row["size"] = "exit 3"
    if "compress" in a.steps:
        folder = f"{a.zoo}/data/{ {'mnist-cnn': 'mnist'}.get(name, name) }/calib.npz"
        out, start = f"{d}/{name}.compressed.onnx", time.perf_counter()
        if not os.path.exists(folder):
            folder = f"{d}/{name}-calib"
            os.makedirs(folder, exist_ok=True)
            more = [decoder_feeds(plain, list(range(300 + 17 * j, 320 + 17 * j)), {}) for j in range(12)]
            more = more if caches(plain) else samples(a.zoo, name, plain, 12)
            for j, f in enumerate(more):
                if j and links:
                    f.update({i: wanted[min(j, len(wanted)) - 1][o] for i, o in links.items()})
                np.savez(f"{folder}/{j:03}.npz", **f)
        r = subprocess.run([a.cli, path, "-o", out, "--force", "--max-drop", "1%", "--data", folder],
                           capture_output=True, text=True)
        row["compress"], row["compress s"] = f"exit {r.returncode}", f"{time.perf_counter() - start:.0f}"
        if r.returncode == 0:
            onnx.checker.check_model(out)
            got = dict(zip(names, session(out).run(None, feeds[0])))
            size = os.path.getsize(out) / os.path.getsize(path)
            row["compress"] = f"{size:.3f}, moved {difference(got, wanted[0]):.1e}"
        elif r.returncode != 3:
            row["compress"] += ": " + r.stderr.strip()[:120]
            bad.append("compress")
    row["verdict"] = "FAIL " + ",".join(bad) if bad else "ok"
    return row


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("zoo"), p.add_argument("--cli", required=True)
    p.add_argument("-k", default="")
    p.add_argument("--samples", type=int, default=2)
    p.add_argument("--steps", default="run,optimize,compress")
    p.add_argument("--work", help="where written files stay")
    a = p.parse_args()
    a.steps = a.steps.split(",")
    failed = 0
    columns = ["model", "generated", "generated s", "reference", "reference s", "size", "time", "optimized", "compress", "compress s", "verdict"]
    print(" | ".join(columns), flush=True)
    with tempfile.TemporaryDirectory() as t:
        d = a.work or t
        os.makedirs(d, exist_ok=True)
        for name in sorted(os.listdir(f"{a.zoo}/models")):
            path = f"{a.zoo}/models/{name}/model.onnx"
            if not re.search(a.k, name) or not os.path.exists(path):
                continue
            try:
                row = check(a, name, path, d)
            except Exception as e:
                row = {"model": name, "verdict": f"FAIL {type(e).__name__}: {str(e)[:200]}"}
            failed += row["verdict"] != "ok"
            print(" | ".join(str(row.get(c, "-")) for c in columns), flush=True)
    sys.exit(min(failed, 99))


main()
