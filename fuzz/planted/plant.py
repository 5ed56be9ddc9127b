#!/usr/bin/env python3
"""Does fuzzing find bugs? Copies the sources, plants the bugs of bugs.toml in the copy, builds it once, and fuzzes with one
bug switched on at a time.

    plant.py check                      every bug still has its place in the sources
    plant.py build FOLDER               the copy with all bugs, each switched on by PLANTED=name, built in FOLDER (or in
                                        CARGO_TARGET_DIR, which saves building other crates again)
    plant.py run FOLDER SECONDS [-- compress fuzz options]
                                        finds each; a table for RESULTS.md on stdout

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


def run(folder, seconds, options):
    binary = folder / "compress"
    only = os.environ.get("ONLY", "").split()
    rows, found = [], 0
    for b in BUGS:
        if only and b["name"] not in only:
            continue
        start, by, runs = time.monotonic(), "not found", 0
        for target in TARGETS[b["area"]] if not any(o == "--target" for o in options) else [None]:
            pick = ["--target", target] if target else []
            command = [binary, "fuzz", "--time", f"{seconds}s", "--json", "--raw", "-o", folder / "findings", *pick, *options]
            done = subprocess.run(command, env={**os.environ, "PLANTED": b["name"]}, capture_output=True, text=True)
            out = json.loads(done.stdout) if done.stdout.startswith("{") else {"findings": [], "executions": 0}
            runs += out["executions"]
            if done.returncode == 4 and out["findings"]:
                by = f"{target or 'joint'}: {out['findings'][0].split(':')[0]}"
            elif done.returncode not in (0, 4):
                by = f"{target or 'joint'}: ended with {done.returncode}"
            else:
                continue
            found += 1
            break
        rows.append(f"| {b['name']} | {b['area']} | {by} | {time.monotonic() - start:.1f} | {runs} |")
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
        case ["run", folder, seconds, *_]:
            run(pathlib.Path(folder).resolve(), float(seconds), options)
        case _:
            sys.exit(__doc__)
