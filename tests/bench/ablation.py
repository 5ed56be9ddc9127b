#!/usr/bin/env python3
"""What each part of the search is worth: bytes at the same quality goal, and quality at the same sparsity.

  ablation.py --cli target/release/compress [--max-drop 1%] [--sparsity 50,60,70,80,90] [--only search|methods|sparsity] NAME=MODEL,CALIB[,TEST] …

Prints two tables in Markdown (`methods`: of the first, the joint search and single methods). The first: bytes of the file that meets --max-drop, for the joint search, single methods, and the
search without a part; "-" where no such file is smaller than the original. The second: the agreement (or other quality) with
the original on TEST, else on held-back samples, of files with a share of zeros, by how layers share it.
"""
import argparse, json, os, subprocess, sys, tempfile

SEARCHES = [
    ("joint", []),
    ("int8 only", ["--methods", "int8-weight"]),
    ("int4 only", ["--methods", "int4"]),
    ("pruning only", ["--methods", "prune,2:4"]),
    ("low rank only", ["--methods", "low-rank,tucker,separable"]),
    ("codebooks only", ["--methods", "codebook"]),
    ("greedy", ["--ablate", "greedy"]),
    ("uniform", ["--ablate", "uniform"]),
    ("without interactions", ["--ablate", "no-interactions"]),
    ("gains measured once", ["--ablate", "no-regain"]),
    ("without repair", ["--ablate", "no-repair"]),
    ("without rivals", ["--ablate", "no-rivals"]),
    ("without compensation", ["--ablate", "no-compensation"]),
]
SHARES = [("DP", []), ("uniform", ["uniform"]), ("global magnitude", ["global"])]


def run(cli, args):
    p = subprocess.run([cli, *args], capture_output=True, text=True)
    if p.returncode not in (0, 3):
        sys.exit(f"{' '.join(args)}: exit {p.returncode}: {p.stderr}")
    return json.loads(p.stdout) if p.returncode == 0 else None


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--cli", required=True)
    a.add_argument("--max-drop", default="1%")
    a.add_argument("--sparsity", default="50,60,70,80,90")
    a.add_argument("--only", choices=["search", "methods", "sparsity"])
    a.add_argument("models", nargs="+")
    o = a.parse_args()
    models = {m.split("=", 1)[0]: m.split("=", 1)[1].split(",") for m in o.models}
    with tempfile.TemporaryDirectory() as t:
        out = os.path.join(t, "out.onnx")
        if o.only != "sparsity":
            print("| search | " + " | ".join(models) + " |\n|---" * 1 + "|---" * len(models) + "|", flush=True)
            for name, extra in SEARCHES[:6] if o.only == "methods" else SEARCHES:
                cells = []
                for model, calib, *_ in models.values():
                    r = run(o.cli, [model, "-o", out, "--data", calib, "--max-drop", o.max_drop, "--json", "--force", *extra])
                    cells.append(f"{r['output']['bytes']:,}" if r else "-")
                print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
        if o.only not in ("search", "methods"):
            shares = o.sparsity.split(",")
            print("\n| model, allocation | " + " | ".join(f"{s} %" for s in shares) + " |\n" + "|---" * (len(shares) + 1) + "|", flush=True)
            for model_name, (model, calib, *test) in models.items():
                for name, ablate in SHARES:
                    cells = []
                    for s in shares:
                        args = [model, "-o", out, "--data", calib, "--target-sparsity", s + "%", "--json", "--force"]
                        r = run(o.cli, args + (["--ablate", ",".join(ablate)] if ablate else []))
                        held = r["metric"]["held_back"]
                        quality = held["value"]
                        if test:
                            e = run(o.cli, ["eval", model, out, "--data", test[0], "--json"])
                            quality = e["clean"]["compressed"]["value"]
                        cells.append(f"{quality:.4f} ({held['distortion']:.1e})")
                    print(f"| {model_name}, {name} | " + " | ".join(cells) + " |", flush=True)


main()
