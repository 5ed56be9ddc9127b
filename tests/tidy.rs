//! The house rules that a machine can check.

use std::path::{Path, PathBuf};

/// Which crate may depend on which, besides crates from outside.
const EDGES: &[(&str, &[&str])] = &[
    ("compiler/ir", &[]),
    ("compiler/kernels", &[]),
    ("compiler/ops", &["ir"]),
    ("compiler/onnx", &["ir", "ops"]),
    ("compiler/container", &[]),
    ("compiler/data", &["ir"]),
    ("compiler/artefact", &["kernels"]),
    ("compiler/codegen", &["ir", "ops", "kernels", "artefact", "tally"]),
    ("passes/exact", &["ir", "ops", "tally"]),
    ("passes/gradient", &["ir", "ops"]),
    ("passes/lossy", &["ir", "ops", "container"]),
    ("passes/search", &["ir", "ops", "exact", "gradient", "lossy"]),
    ("runtime", &["ir", "ops", "onnx", "container", "exact", "codegen", "kernels"]),
    ("runtime/capi", &["ir", "runtime"]),
    ("fuzz/tally", &[]),
    (
        "fuzz/harness",
        &[
            "ir",
            "ops",
            "onnx",
            "container",
            "exact",
            "lossy",
            "search",
            "codegen",
            "kernels",
            "runtime",
            "tally",
        ],
    ),
];
const MEMBERS: &[&str] = &[
    "ir",
    "ops",
    "onnx",
    "container",
    "data",
    "kernels",
    "artefact",
    "codegen",
    "exact",
    "gradient",
    "lossy",
    "search",
    "runtime",
    "harness",
    "tally",
];
/// Crates in which `unsafe` has its place.
const UNSAFE: &[&str] =
    &["compiler/kernels", "compiler/artefact", "compiler/codegen", "runtime", "compiler/onnx/src/mmap.rs"];

fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
    for e in std::fs::read_dir(dir).unwrap().flatten() {
        let p = e.path();
        if p.is_dir() && p.file_name().is_some_and(|n| n != "target") {
            sources(&p, out);
        } else if p.extension().is_some_and(|x| x == "rs") {
            out.push(p);
        }
    }
}

fn all() -> Vec<PathBuf> {
    let mut v = Vec::new();
    for d in ["compiler", "passes", "runtime", "fuzz", "tests"] {
        sources(Path::new(d), &mut v);
    }
    v.sort();
    v
}

#[test]
fn crates_depend_as_the_plan_says() {
    for (dir, allowed) in EDGES {
        let manifest = std::fs::read_to_string(Path::new(dir).join("Cargo.toml")).unwrap();
        let normal = manifest.split("[dev-dependencies]").next().unwrap_or_default();
        for m in MEMBERS {
            let depends =
                normal.lines().any(|l| l.starts_with(&format!("{m}.")) || l.starts_with(&format!("{m} ")));
            assert!(!depends || allowed.contains(m), "{dir} must not depend on {m}");
        }
    }
}

#[test]
fn files_are_short_or_say_why_not() {
    let mut long = Vec::new();
    for p in all() {
        let text = std::fs::read_to_string(&p).unwrap();
        let excused = text.starts_with("//! table") || text.starts_with("//! kernel");
        if text.lines().count() > 600 && !excused {
            long.push(format!("{} ({})", p.display(), text.lines().count()));
        }
    }
    assert!(long.is_empty(), "over 600 lines without a reason in line 1: {long:?}");
}

#[test]
fn unsafe_has_an_address_and_an_argument() {
    for p in all() {
        let text = std::fs::read_to_string(&p).unwrap();
        let allowed = UNSAFE.iter().any(|u| p.starts_with(u));
        let lines: Vec<&str> = text.lines().collect();
        for (i, l) in lines.iter().enumerate() {
            let code = l.split("//").next().unwrap_or_default();
            if code.contains("unsafe {") && !p.starts_with("tests") {
                assert!(allowed, "{}:{}: unsafe outside its crates", p.display(), i + 1);
            }
        }
    }
}

#[test]
fn nothing_is_left_unfinished() {
    let marks = ["todo", "unimplemented"].map(|m| format!("{m}!("));
    for p in all() {
        let text = std::fs::read_to_string(&p).unwrap();
        for m in &marks {
            assert!(!text.contains(m.as_str()), "{} has {m}", p.display());
        }
    }
}

/// Where a planted bug goes is found by its text: a change that moves it away would take the bug out of the hunt in silence.
#[test]
fn planted_bugs_have_their_place() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("fuzz/planted/bugs.toml")).unwrap();
    let table: toml::Table = text.parse().unwrap();
    let bugs = table["bug"].as_array().unwrap();
    assert!(bugs.len() >= 30, "{}", bugs.len());
    for bug in bugs {
        let at = |key: &str| bug[key].as_str().unwrap();
        let source = std::fs::read_to_string(root.join(at("file"))).unwrap();
        assert_eq!(source.matches(at("find")).count(), 1, "{} in {}", at("name"), at("file"));
    }
}
