#!/usr/bin/env python3
"""Does fuzzing find bugs? Copies the sources, plants the bugs of bugs.toml in the copy, builds it once, and fuzzes with one
bug switched on at a time.

    plant.py check                      every bug still has its place in the sources
    plant.py build FOLDER               the copy with all bugs, each switched on by PLANTED=name, built in FOLDER (or in
                                        CARGO_TARGET_DIR, which saves building other crates again)
    plant.py run FOLDER SECONDS [-- compress fuzz options]
                                        finds each; a table for RESULTS.md on stdout, with core-seconds last
    plant.py ways FOLDER CORE-SECONDS   finds each by each way of fuzzing; a table for RESULTS.md on stdout

ONLY="name name" leaves the other bugs out.

The sources themselves stay as they are: no build of this tree contains a planted bug.
"""
import json, os, pathlib, shutil, subprocess, sys, time, tomllib

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUGS = tomllib.loads((HERE / "bugs.toml").read_text())["bug"]
# True while the environment names the bug; asked once.
SWITCH = (
    '{ static ON: std::sync::OnceLock<bool> = std::sync::OnceLock::new(); '
    '*ON.get_or_init(|| std::env::var("PLANTED").as_deref() == Ok("%s")) }'
)
# Where to look: rules and planner in whole pipelines, methods by themselves, bytes by themselves.
TARGETS = {"rules": ["joint"], "methods": ["lossy"], "planner": ["codegen"], "codegen": ["codegen"], "kernels": ["codegen"]}


def check():
    lost = [b["name"] for b in BUGS if (ROOT / b["file"]).read_text().count(b["find"]) != 1]
    for name in lost:
        print(f"{name}: its place is not there once", file=sys.stderr)
    print(f"{len(BUGS) - len(lost)} of {len(BUGS)} bugs have their place")
    return lost


def build(folder):
    lost = set(check())
    copy = folder / "tree"
    for name in ["Cargo.toml", "Cargo.lock", "build.rs", "compiler", "passes", "runtime", "fuzz", "tests", "include"]:
        source, target = ROOT / name, copy / name
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("target", "seeds"))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    for b in BUGS:
        if b["name"] in lost:
            continue
        path = copy / b["file"]
        path.write_text(path.read_text().replace(b["find"], b["put"].replace("PLANTED", SWITCH % b["name"])))
    target = os.environ.get("CARGO_TARGET_DIR", str(folder / "target"))
    env = {**os.environ, "COMPRESS_NO_ARTEFACTS": "1", "CARGO_TARGET_DIR": target}
    subprocess.run(["cargo", "build", "--release", "--bin", "compress", "--features", "instrumented"], cwd=copy, env=env, check=True)
    (folder / "compress").unlink(missing_ok=True)
    shutil.copy2(pathlib.Path(target) / "release/compress", folder / "compress")


def chosen():
    only = os.environ.get("ONLY", "").split()
    return [b for b in BUGS if not only or b["name"] in only]


WAYS = {"both": ["--mutate", "both"], "graph": ["--mutate", "graph"], "passes": ["--mutate", "passes"], "blind": ["--blind"]}


def ways(folder, most):
    print(f"| bug | area | {' | '.join(WAYS)} |")
    totals = {w: [0, 0.0] for w in WAYS}
    for b in chosen():
        cells = []
        for way, options in WAYS.items():
            target = TARGETS[b["area"]][0]
            command = [folder / "compress", "fuzz", "--core-time", f"{most}s", "--seed", "1", "--json", "--raw", "--target", target]
            command += ["-o", folder / "findings", *options]
            done = subprocess.run(command, env={**os.environ, "PLANTED": b["name"]}, capture_output=True, text=True)
            out = json.loads(done.stdout) if done.stdout.startswith("{") else {"executions": 0, "core_seconds": 0.0}
            found = done.returncode not in (0, 1, 2)
            totals[way][0] += found
            totals[way][1] += out["core_seconds"]
            cells.append(f"{out['core_seconds']:.1f} ({out['executions']:,})" if found else f"not in {most:.0f}")
        print(f"| {b['name']} | {b['area']} | {' | '.join(cells)} |", flush=True)
    print(f"| **found, of {len(chosen())}** | | {' | '.join(f'**{n}**' for n, _ in totals.values())} |")
    print(f"| core-seconds in all | | {' | '.join(f'{s:.1f}' for _, s in totals.values())} |")


def run(folder, seconds, options):
    binary = folder / "compress"
    rows, found = [], 0
    for b in chosen():
        start, by, runs, core = time.monotonic(), "not found", 0, 0.0
        for target in TARGETS[b["area"]] if not any(o == "--target" for o in options) else [None]:
            pick = ["--target", target] if target else []
            command = [binary, "fuzz", "--time", f"{seconds}s", "--json", "--raw", "-o", folder / "findings", *pick, *options]
            done = subprocess.run(command, env={**os.environ, "PLANTED": b["name"]}, capture_output=True, text=True)
            out = json.loads(done.stdout) if done.stdout.startswith("{") else {"findings": [], "executions": 0}
            runs += out["executions"]
            core += out.get("core_seconds", 0.0)
            if done.returncode == 4 and out["findings"]:
                by = f"{target or 'joint'}: {out['findings'][0].split(':')[0]}"
            elif done.returncode not in (0, 4):
                by = f"{target or 'joint'}: ended with {done.returncode}"
            else:
                continue
            found += 1
            break
        rows.append(f"| {b['name']} | {b['area']} | {by} | {time.monotonic() - start:.1f} | {runs} | {core:.1f} |")
        print(rows[-1], flush=True)
    print(f"\n{found} of {len(rows)} found, at most {seconds} s each")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    options = arguments[arguments.index("--") + 1 :] if "--" in arguments else []
    match arguments:
        case ["check"]:
            sys.exit(bool(check()))
        case ["build", folder]:
            build(pathlib.Path(folder).resolve())
        case ["ways", folder, most]:
            ways(pathlib.Path(folder).resolve(), float(most))
        case ["run", folder, seconds, *_]:
            run(pathlib.Path(folder).resolve(), float(seconds), options)
        case _:
            sys.exit(__doc__)
