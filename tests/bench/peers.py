#!/usr/bin/env python3
"""Latency of `compress bench` beside ONNX Runtime and OpenVINO on the same files and inputs, in interleaved rounds.

  peers.py --cli target/release/compress [--threads 1] [--rounds 3] MODEL.onnx=INPUTS.npz ...

INPUTS.npz holds one array per model input, first axis = samples; the first sample is used. Needs the Python packages numpy and
onnxruntime, and takes openvino along where it is installed. Prints, for each file, the median of each engine's medians in
milliseconds, the ratio of ours to the best peer, the peak memory of our process, cold start (load and first run), and the
largest difference to ONNX Runtime relative to the largest value.
"""
import argparse, json, os, subprocess, tempfile, time
import numpy as np
import onnxruntime as ort


def timed(run, seconds=0.5):
    run()
    times, start = [], time.perf_counter()
    while time.perf_counter() - start < seconds or len(times) < 5:
        t = time.perf_counter()
        run()
        times.append(time.perf_counter() - t)
    return float(np.median(times)) * 1e3


def onnxruntime(path, feeds, threads):
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 4
    start = time.perf_counter()
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    session.run(None, feeds)
    cold = (time.perf_counter() - start) * 1e3
    return session, (lambda: session.run(None, feeds)), cold


def openvino(path, feeds, threads):
    try:
        import openvino as ov
        core = ov.Core()
        model = core.read_model(path)
        model.reshape({k: list(v.shape) for k, v in feeds.items()})
        config = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        request = core.compile_model(model, "CPU", config).create_infer_request()
        request.infer(feeds)
        return lambda: request.infer(feeds)
    except Exception as e:  # an engine that does not take the file has no figure
        print(f"note: OpenVINO: {str(e).strip().splitlines()[0][:100]}")
        return None


def sample(path, inputs):
    data, feeds = np.load(path), {}
    for i in inputs:
        first = np.asarray(data[i.name][0])
        feeds[i.name] = first[None] if first.ndim < len(i.shape) else first
    return feeds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cli", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("pairs", nargs="+")
    a = parser.parse_args()
    print(f"{'file':34} {'ORT':>9} {'OpenVINO':>9} {'ours':>9} {'ratio':>6} {'cold ORT':>9} {'cold':>7} {'peak MB':>8} {'difference':>10}")
    ratios = []
    for pair in a.pairs:
        path, inputs = pair.split("=")
        plain = ort.SessionOptions()
        plain.log_severity_level = 4
        feeds = sample(inputs, ort.InferenceSession(path, plain, providers=["CPUExecutionProvider"]).get_inputs())
        session, run_ort, cold = onnxruntime(path, feeds, a.threads)
        run_ov = openvino(path, feeds, a.threads)
        with tempfile.TemporaryDirectory() as d:
            np.savez(d + "/in.npz", **feeds)
            subprocess.run([a.cli, "run", path, "--inputs", d + "/in.npz", "--outputs", d + "/out.npz"], check=True)
            found, wanted = np.load(d + "/out.npz"), session.run(None, feeds)
            pairs = [(found[o.name], w) for o, w in zip(session.get_outputs(), wanted)]
            difference = max(float(np.abs(f - w).max() / max(np.abs(w).max(), 1e-30)) for f, w in pairs)
            times = {"ort": [], "ov": [], "ours": []}
            for _ in range(a.rounds):
                times["ort"].append(timed(run_ort))
                if run_ov:
                    times["ov"].append(timed(run_ov))
                command = [a.cli, "bench", path, "--inputs", d + "/in.npz", "--threads", str(a.threads), "--json"]
                bench = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
                times["ours"].append(bench["median_ms"])
        m = {k: float(np.median(v)) if v else float("nan") for k, v in times.items()}
        ratio = m["ours"] / np.nanmin([m["ort"], m["ov"]])
        ratios.append(ratio)
        start = bench["load_ms"] + bench["first_run_ms"]
        print(f"{os.path.basename(os.path.dirname(path))[:12] + '/' + os.path.basename(path):34} {m['ort']:9.3f} {m['ov']:9.3f} {m['ours']:9.3f} "
              f"{ratio:6.2f} {cold:9.1f} {start:7.1f} {bench['peak_rss_mb']:8.1f} {difference:10.1e}", flush=True)
    print(f"geometric mean of the ratios {np.exp(np.mean(np.log(ratios))):.3f}")


main()
