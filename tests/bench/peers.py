#!/usr/bin/env python3
"""This runtime beside ONNX Runtime, OpenVINO and, where they run, rten and tract: same files, same inputs, interleaved in one run.

  peers.py --cli target/release/compress [--threads 1,2] [--batch 1,16] [--json OUT.json] MODEL.onnx=DATA.npz ...
  peers.py --quantize DIR MODEL.onnx=CALIB.npz ...      makes 8-bit files with the peers' own quantizers, prints their paths
  peers.py --tables A.json B.json ...                   the tables of earlier runs together

DATA.npz holds one array per model input. An array with one axis more than the input is a row of samples, one with as many axes a
row of samples without their batch axis, unless it fits an input whose first axis is fixed; anything else is the input itself. A batch stacks samples; models whose batch axis is
fixed are skipped there.

Latency: in every round each engine runs for --seconds; figures are medians over rounds of each round's median, p10 and p90.
Cold start: a fresh process per repeat, opening the file to the end of the first run, imports and reading the inputs not counted.
Peak memory: VmHWM of such a process at its end; for engines that are Python packages also what it adds to the bare import.
Difference: largest difference to ONNX Runtime without graph optimisations, over the largest value. OpenVINO rounds the
activations of products with 8-bit weights to 8 bits, also where the file has none of that; `--engines ort,ov,ovx,ours` measures
it without, too.
The ratio is ours over the best peer; `-` marks an engine that does not take the file.

Needs numpy and onnxruntime; openvino and nncf are taken along where installed, rten and tract where tests/bench/rust_peers is built.
"""
import argparse, json, os, subprocess, sys, tempfile, time
import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
RUST = os.path.join(HERE, "rust_peers", "target", "release", "rust_peers")
ENGINES = {"ort": "ONNX Runtime", "ov": "OpenVINO", "ovx": "OpenVINO, exact", "rten": "rten", "tract": "tract", "ours": "ours"}
PYTHON = ("ort", "ov", "ovx")
# Not measured unless asked for.
ASKED = ("ovx",)
KEPT = "kept"


# ---- inputs

def session(path, threads=1, plain=False):
    import onnxruntime as ort
    o = ort.SessionOptions()
    o.intra_op_num_threads, o.inter_op_num_threads, o.log_severity_level = threads, 1, 4
    if plain:
        o.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(path, o, providers=["CPUExecutionProvider"])


def inputs_of(path):
    """Names, element types and dims (0 where open) of the inputs."""
    import onnx
    graph = onnx.load(path, load_external_data=False).graph
    weights = {t.name for t in graph.initializer}
    for v in graph.input:
        if v.name not in weights:
            t = v.type.tensor_type
            dtype = onnx.helper.tensor_dtype_to_np_dtype(t.elem_type)
            yield v.name, dtype, [d.dim_value for d in t.shape.dim]


def feeds(path, data, batch, start=0):
    """Inputs of a run of `batch` samples; None where the model's batch is fixed."""
    out, arrays = {}, np.load(data)
    for name, dtype, dims in inputs_of(path):
        if name not in arrays.files:
            raise SystemExit(f"{data}: no array named {name}")
        a = arrays[name]
        # What is as long as a fixed first axis is no row of samples.
        whole = a.ndim == len(dims) > 0 and dims[0] > 1 and all(d in (0, n) for n, d in zip(a.shape, dims))
        if not whole and a.ndim in (len(dims), len(dims) + 1) and a.ndim > 0:
            picks = [a[(start + i) % len(a)] for i in range(batch)]
            rows = [p if p.ndim == len(dims) else p[None] for p in picks]
        else:
            rows = [a] * batch
        shape = rows[0].shape
        axis = next((i for i, (n, d) in enumerate(zip(shape, dims)) if n == 1 and d == 0), None)
        if batch == 1 or not shape:
            out[name] = rows[0].astype(dtype)
        elif axis is None:
            return None
        else:
            out[name] = np.concatenate(rows, axis).astype(dtype)
    return {k: np.asarray(v, order="C") for k, v in out.items()}


# ---- engines

def start_ort(path, threads):
    s = session(path, threads)
    names = [o.name for o in s.get_outputs()]
    return lambda feeds: dict(zip(names, s.run(None, feeds)))


def start_ov(path, threads, feeds=None, exact=False):
    import openvino as ov
    core = ov.Core()
    model = core.read_model(path)
    if feeds:
        model.reshape({k: list(v.shape) for k, v in feeds.items()})
    config = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    if exact:
        config["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = "0"
    request = core.compile_model(model, "CPU", config).create_infer_request()

    def run(feeds):
        result = request.infer(feeds)
        return {n: result[k] for k in result for n in k.get_names()}
    return run


def python_engine(name, path, threads, feeds):
    return start_ort(path, threads) if name == "ort" else start_ov(path, threads, feeds, name == "ovx")


def binary(name, cli, path, npz, threads, seconds, cache=None):
    """Runs an engine that is a program; what it printed, as a dictionary."""
    if name == "ours":
        command = [cli, "bench", path, "--inputs", npz, "--threads", str(threads), "--seconds", str(seconds), "--json"]
        command += ["--cache", cache] if cache else []
    else:
        command = [RUST, name, path, npz, str(threads), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or f"exit {done.returncode}").splitlines()[-1])
    return json.loads(done.stdout)


def hwm_mb():
    with open("/proc/self/status") as f:
        return next(int(l.split()[1]) for l in f if l.startswith("VmHWM")) / 1024


def child(name, path, npz, threads):
    """One fresh process of a Python engine: cold start and peak memory."""
    __import__({"ort": "onnxruntime"}.get(name, "openvino"))
    given = dict(np.load(npz))
    bare = hwm_mb()
    t = time.perf_counter()
    run = python_engine(name, path, threads, given)
    run(given)
    cold = (time.perf_counter() - t) * 1e3
    for _ in range(3):
        run(given)
    print(json.dumps({"cold": cold, "peak": hwm_mb(), "bare": bare}))


# ---- measuring

def note(text):
    print("note: " + text, file=sys.stderr, flush=True)


def timed(run, given, seconds):
    times, start = [], time.perf_counter()
    while time.perf_counter() - start < seconds or len(times) < 5:
        t = time.perf_counter()
        run(given)
        times.append((time.perf_counter() - t) * 1e3)
    return [float(np.percentile(times, p)) for p in (50, 10, 90)]


def latency(a, engines, path, npz, given, threads):
    """Median, p10 and p90 of each engine."""
    runs, got = {}, {}
    for e in engines:
        try:
            if e in PYTHON:
                runs[e] = python_engine(e, path, threads, given)
                runs[e](given)
            got[e] = []
        except Exception as error:
            note(f"{label(path)}: {ENGINES[e]}: {str(error).strip().splitlines()[0][:140]}")
    for _ in range(a.rounds):
        for e in list(got):
            time.sleep(0.02)
            try:
                if e in PYTHON:
                    got[e].append(timed(runs[e], given, a.seconds))
                else:
                    r = binary(e, a.cli, path, npz, threads, a.seconds)
                    got[e].append([r["median_ms"], r["p10_ms"], r["p90_ms"]])
            except Exception as error:
                note(f"{label(path)}: {ENGINES[e]}: {str(error).strip()[:140]}")
                del got[e]
    return {e: [float(x) for x in np.median(v, axis=0)] for e, v in got.items() if v}


def cold(a, engines, path, npz, threads):
    """Milliseconds to the end of the first run, and peak memory, in fresh processes; ours also with its cache filled."""
    got = {e: [] for e in engines} | ({KEPT: []} if "ours" in engines else {})
    with tempfile.TemporaryDirectory() as cache:
        if KEPT in got:
            binary("ours", a.cli, path, npz, threads, 0, cache)
        return fresh(a, got, path, npz, threads, cache)


def fresh(a, got, path, npz, threads, cache):
    for _ in range(a.cold):
        for e in list(got):
            try:
                if e == KEPT:
                    b = binary("ours", a.cli, path, npz, threads, 0, cache)
                    r = {"cold": b["load_ms"] + b["first_run_ms"], "peak": b["peak_rss_mb"]}
                elif e in PYTHON:
                    command = [sys.executable, os.path.abspath(__file__), "--child", e, path, npz, str(threads)]
                    r = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)
                else:
                    b = binary(e, a.cli, path, npz, threads, 0)
                    r = {"cold": b["load_ms"] + b["first_run_ms"], "peak": b["peak_rss_mb"]}
                got[e].append(r)
            except Exception:
                del got[e]
    return {e: {k: float(np.median([r[k] for r in v])) for k in v[0]} for e, v in got.items() if v}


def differences(a, engines, path, npz, given):
    wanted = session(path, 1, True)
    values = dict(zip([o.name for o in wanted.get_outputs()], wanted.run(None, given)))
    out = {}
    for e in engines:
        try:
            if e in PYTHON:
                found = python_engine(e, path, 1, given)(given)
            elif e == "ours":
                with tempfile.TemporaryDirectory() as d:
                    subprocess.run([a.cli, "run", path, "--inputs", npz, "--outputs", d + "/out.npz"], check=True, capture_output=True)
                    found = dict(np.load(d + "/out.npz"))
            else:
                continue
            worst = 0.0
            for name, w in values.items():
                if name not in found or w.dtype.kind not in "fiub" or not w.size:
                    continue
                w, f = w.astype(np.float64), np.asarray(found[name]).astype(np.float64)
                worst = max(worst, float(np.abs(f - w).max() / max(np.abs(w).max(), 1e-30)))
            out[e] = worst
        except Exception as error:
            note(f"{label(path)}: {ENGINES[e]}: {str(error).strip()[:140]}")
    return out


def label(path):
    base = os.path.splitext(os.path.basename(path))[0]
    return os.path.basename(os.path.dirname(os.path.abspath(path))) if base == "model" else base


def measure(a, engines):
    results = []
    with tempfile.TemporaryDirectory() as d:
        for pair in a.pairs:
            path, data = pair.split("=")
            for batch in a.batch:
                given = feeds(path, data, batch)
                if given is None:
                    note(f"{label(path)}: its batch is fixed, skipped at {batch}")
                    continue
                npz = f"{d}/{label(path)}.{batch}.npz"
                np.savez(npz, **given)
                try:
                    apart = differences(a, engines, path, npz, given)
                except Exception as error:
                    note(f"{label(path)}: no reference answer: {str(error).strip()[:140]}")
                    apart = {}
                for threads in a.threads:
                    row = {"model": label(path), "batch": batch, "threads": threads, "difference": apart,
                           "ms": latency(a, engines, path, npz, given, threads)}
                    if batch == 1 and a.cold:
                        row["cold"] = cold(a, engines, path, npz, threads)
                    results.append(row)
                    print(f"{row['model']} batch {batch} threads {threads}: "
                          + "  ".join(f"{e} {v[0]:.3f}" for e, v in row["ms"].items())
                          + "  ratio " + show(ratio({e: v[0] for e, v in row["ms"].items()}), 3), file=sys.stderr, flush=True)
    return results


# ---- tables

def show(x, digits):
    return "-" if x is None else f"{x:.{digits}f}"


def ratio(values, peers=None):
    best = [v for e, v in values.items() if e != "ours" and (peers is None or e in peers)]
    return values["ours"] / min(best) if best and "ours" in values else None


def geometric(ratios):
    ratios = [r for r in ratios if r is not None]
    return float(np.exp(np.mean(np.log(ratios)))) if ratios else None


def markdown(results, title):
    lines = []
    present = [e for e in ENGINES if any(e in r["ms"] for r in results)]
    for threads, batch in sorted({(r["threads"], r["batch"]) for r in results}):
        rows = [r for r in results if (r["threads"], r["batch"]) == (threads, batch)]
        many = "s" if threads > 1 else ""
        lines += [f"### {title}, {threads} thread{many}, batch {batch}", "",
                  "| model | " + " | ".join(f"{ENGINES[e]} ms" for e in present) + " | our p10–p90 | ratio | difference, ours (ONNX Runtime, OpenVINO) |",
                  "|---" * (len(present) + 4) + "|"]
        ratios = []
        for r in rows:
            ms = {e: v[0] for e, v in r["ms"].items()}
            ratios.append(ratio(ms))
            spread = "–".join(f"{x:.3f}" for x in r["ms"]["ours"][1:]) if "ours" in ms else "-"
            apart = [f"{r['difference'][e]:.0e}" if e in r["difference"] else "-" for e in ("ours", "ort", "ov")]
            cells = [show(ms.get(e), 3) for e in present] + [spread, show(ratios[-1], 2), f"{apart[0]} ({apart[1]}, {apart[2]})"]
            lines.append(f"| {r['model']} | " + " | ".join(cells) + " |")
        worst = max([x for x in ratios if x is not None], default=None)
        lines += ["", f"Geometric mean of the ratios {show(geometric(ratios), 3)}, largest {show(worst, 2)}.", ""]
    for threads in sorted({r["threads"] for r in results if "cold" in r}):
        rows = [r for r in results if r["threads"] == threads and "cold" in r]
        names = {**ENGINES, KEPT: "ours with --cache"}
        engines = [e for e in names if any(e in r["cold"] for r in rows)]
        lines += [f"### {title}, cold start and peak memory, {threads} thread{'s' if threads > 1 else ''}", "",
                  "| model | " + " | ".join(f"{names[e]} ms" for e in engines) + " | to ONNX Runtime | with --cache | "
                  + " | ".join(f"{names[e]} MB" + (" (over its import)" if e in PYTHON else "") for e in engines) + " | to ONNX Runtime | over its import |",
                  "|---" * (2 * len(engines) + 5) + "|"]
        quick, again, small, over = [], [], [], []
        for r in rows:
            c = r["cold"]
            rel = lambda f: f(c["ours"]) / f(c["ort"]) if "ours" in c and "ort" in c else None
            quick.append(rel(lambda x: x["cold"]))
            again.append(c[KEPT]["cold"] / c["ort"]["cold"] if KEPT in c and "ort" in c else None)
            small.append(rel(lambda x: x["peak"]))
            over.append(rel(lambda x: x["peak"] - x.get("bare", 0.0)))
            peaks = [show(c[e]["peak"], 1) + (f" ({c[e]['peak'] - c[e]['bare']:.1f})" if "bare" in c[e] else "") if e in c else "-" for e in engines]
            cells = [show(c[e]["cold"], 1) if e in c else "-" for e in engines] + [show(quick[-1], 2), show(again[-1], 2)] + peaks + [show(small[-1], 2), show(over[-1], 2)]
            lines.append(f"| {r['model']} | " + " | ".join(cells) + " |")
        lines += ["", f"Geometric means to ONNX Runtime: cold start {show(geometric(quick), 3)}, with --cache {show(geometric(again), 3)}, peak memory {show(geometric(small), 3)} "
                  f"of its process, {show(geometric(over), 3)} of what it adds to its import.", ""]
    return "\n".join(lines)


# ---- 8-bit files

def quantize(directory, pairs, samples):
    os.makedirs(directory, exist_ok=True)
    for pair in pairs:
        path, data = pair.split("=")
        name = label(path)
        makers = {"ort-dyn": dynamic, "ort-static": static, "nncf": nncf_file}
        for kind, make in makers.items():
            out = os.path.join(directory, f"{name}.{kind}.onnx")
            try:
                if not os.path.exists(out):
                    make(path, data, out, samples)
                print(f"{out}={data}", flush=True)
            except Exception as error:
                note(f"{name}: {kind}: {str(error).strip().splitlines()[0][:140] if str(error).strip() else type(error).__name__}")
                if os.path.exists(out):
                    os.remove(out)


def prepared(path, directory):
    from onnxruntime.quantization.shape_inference import quant_pre_process
    try:
        quant_pre_process(path, directory + "/pre.onnx", skip_symbolic_shape=True)
        return directory + "/pre.onnx"
    except Exception:
        return path


def dynamic(path, data, out, samples):
    from onnxruntime.quantization import QuantType, quantize_dynamic
    with tempfile.TemporaryDirectory() as d:
        quantize_dynamic(prepared(path, d), out, weight_type=QuantType.QInt8)


def calibration(path, data, samples):
    count = max(len(a) for a in np.load(data).values() if a.ndim)
    return [feeds(path, data, 1, i) for i in range(min(samples, count))]


def static(path, data, out, samples):
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        rows = iter(calibration(path, data, samples))

        def get_next(self):
            return next(self.rows, None)
    with tempfile.TemporaryDirectory() as d:
        quantize_static(prepared(path, d), out, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)


def nncf_file(path, data, out, samples):
    import logging, nncf, onnx
    logging.disable(logging.INFO)
    model = onnx.load(path)
    kinds = {n.op_type for n in model.graph.node}
    more = {"model_type": nncf.ModelType.TRANSFORMER} if kinds & {"LayerNormalization", "Attention"} or {"Erf", "Softmax"} <= kinds else {}
    rows = calibration(path, data, samples)
    onnx.save(nncf.quantize(model, nncf.Dataset(rows), subset_size=len(rows), **more), out)


def main():
    if sys.argv[1:2] == ["--child"]:
        name, path, npz, threads = sys.argv[2:]
        return child(name, path, npz, int(threads))
    numbers = lambda s: [int(x) for x in s.split(",")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cli", help="our binary")
    parser.add_argument("--threads", type=numbers, default=[1])
    parser.add_argument("--batch", type=numbers, default=[1])
    parser.add_argument("--engines", type=lambda s: s.split(","), help="of " + ", ".join(ENGINES) + " [default: all that are installed]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.4, help="of each engine in each round")
    parser.add_argument("--cold", type=int, default=5, help="repeats of the cold start; 0 leaves it out")
    parser.add_argument("--title", default="fp32", help="what the tables are headed with")
    parser.add_argument("--json", help="write the figures here too")
    parser.add_argument("--tables", nargs="+", metavar="JSON", help="print the tables of these files together, measure nothing")
    parser.add_argument("--quantize", metavar="DIR", help="make 8-bit files there")
    parser.add_argument("--samples", type=int, default=128, help="that calibrate")
    parser.add_argument("pairs", nargs="*", metavar="MODEL.onnx=DATA.npz")
    a = parser.parse_args()
    if a.quantize:
        return quantize(a.quantize, a.pairs, a.samples)
    if a.tables:
        results = [r for f in a.tables for r in json.load(open(f))]
    else:
        if not a.cli or not a.pairs:
            parser.error("--cli and a model are needed")
        known = [e for e in ENGINES if e not in ASKED and (e not in ("rten", "tract") or os.path.exists(RUST))]
        results = measure(a, a.engines or known)
    if a.json:
        json.dump(results, open(a.json, "w"), indent=1)
    print(markdown(results, a.title))


if __name__ == "__main__":
    main()
