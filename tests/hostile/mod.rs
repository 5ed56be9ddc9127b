//! Files from a bad world, each through every command: it ends with exit code 0 to 4 and says why in one line; it neither
//! panics, crashes nor hangs, and takes no more than a bounded amount of memory. `cargo test` runs a part; all of it:
//! `cargo test --release --test tests -- --ignored hostile --nocapture --test-threads 1`.
#![cfg(unix)]

mod drive;
mod images;
mod inputs;
mod learned;
mod operators;
mod proto;
mod structures;

use crate::harness::{Dir, arg};
use drive::{each, run};
use ir::{DType, Tensor};
use operators::Row;
use std::path::Path;
use structures::{Beside, File};

/// A model, what it is fed, what lies beside it.
struct Case {
    name: String,
    model: Vec<u8>,
    feeds: Vec<(String, Tensor)>,
    beside: Vec<Beside>,
}

/// Commands that every model goes through; `M` is the model, `I` its inputs.
const COMMANDS: &[&[&str]] = &[
    &["run", "M", "--inputs", "I", "--outputs", "o.npz"],
    &["run", "M", "--inputs", "I", "--outputs", "o.npz", "--reference"],
    &["optimize", "M", "-o", "o.onnx", "--force", "--quiet"],
    &["inspect", "M"],
    &["M", "-o", "c.onnx", "--force", "--quiet"],
    &["build", "M", "--emit", "obj", "-o", "o.o", "--force"],
    &["diff", "M", "M"],
    &["M", "-o", "d.onnx", "--force", "--quiet", "--data", "I"],
    &["bench", "M", "--inputs", "I", "--seconds", "0"],
];

fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for (k, row) in operators::all().iter().chain(&learned::all()).enumerate() {
        let name = format!("{k:04}-{}", row.op.escape_debug());
        all.push(operator(format!("{name}-fed"), row, true));
        if row.inputs.iter().skip(1).any(Option::is_some) || row.inputs.is_empty() {
            all.push(operator(format!("{name}-constant"), row, false));
        }
    }
    for File { name, bytes, beside } in structures::all() {
        let x = Tensor::vector(vec![1f32; 4]);
        all.push(Case { name, model: bytes, feeds: vec![("x".into(), x)], beside });
    }
    all
}

/// A model of one operator. Its inputs are given at run time, in shapes the model does not know, or (but for the first) are
/// constants.
fn operator(name: String, row: &Row, fed: bool) -> Case {
    let (mut inputs, mut constants, mut feeds, mut names) = (vec![], vec![], vec![], vec![]);
    for (k, t) in row.inputs.iter().enumerate() {
        let Some(t) = t else {
            names.push(String::new());
            continue;
        };
        let input = format!("i{k}");
        if fed || k == 0 {
            let rank: Vec<Option<i64>> = vec![None; t.rank()];
            inputs.push(proto::info(&input, &proto::typed(t.dtype().onnx().into(), Some(&rank))));
            if t.dtype() != DType::String {
                feeds.push((input.clone(), data::to_array(t).unwrap()));
            } else {
                feeds.push((input.clone(), t.clone()));
            }
        } else {
            constants.push(proto::honest(&input, t));
        }
        names.push(input);
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let outs: Vec<String> = (0..row.outputs).map(|k| format!("y{k}")).collect();
    let outs: Vec<&str> = outs.iter().map(String::as_str).collect();
    let results: Vec<proto::Msg> = outs.iter().map(|o| proto::Msg::default().text(1, o)).collect();
    let mut node = proto::node(row.op, &names, &outs, &row.attrs);
    let mut domains = proto::Msg::default();
    if let Some(version) = row.learned {
        node = node.text(7, "ai.onnx.ml");
        domains = domains.msg(8, &proto::Msg::default().text(1, "ai.onnx.ml").int(2, version));
    }
    let g = proto::graph(&[node], &constants, &inputs, &results);
    let model = [proto::model(&g, 24).0, domains.0].concat();
    Case { name, model, feeds, beside: Vec::new() }
}

/// Writes a case into its folder: the model and its inputs.
fn write(dir: &Dir, case: &Case) {
    dir.write("m.onnx", &case.model);
    let mut f = std::fs::File::create(dir.path("i.npz")).unwrap();
    data::npz::write(&mut f, &case.feeds).unwrap();
    for b in &case.beside {
        match b {
            Beside::Weights => drop(dir.write("weights.bin", &[0; 64])),
            Beside::Symlink => std::os::unix::fs::symlink("weights.bin", dir.path("link.bin")).unwrap(),
            Beside::Hardlink => std::fs::hard_link(dir.path("weights.bin"), dir.path("hard.bin")).unwrap(),
            Beside::Folder => std::fs::create_dir(dir.path("folder")).unwrap(),
            Beside::Pipe => {
                let made = std::process::Command::new("mkfifo").arg(dir.path("pipe.bin")).status();
                assert!(made.unwrap().success());
            }
        }
    }
}

fn through(dir: &Dir, case: &Case, commands: &[&[&str]], record: &dyn Fn(&str, drive::End)) {
    write(dir, case);
    for c in commands {
        let args: Vec<&str> = c
            .iter()
            .map(|a| match *a {
                "M" => "m.onnx",
                "I" => "i.npz",
                other => other,
            })
            .collect();
        record(&format!("{} {}", case.name, c.join(" ")), run(dir.path("").as_path(), &args));
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as usize % n.max(1)
    }
}

/// Models with a few bytes changed, moved or cut off.
fn damaged(n: usize) -> Vec<Case> {
    let mut random = Random(7);
    let mut seeds = cases();
    seeds.retain(|c| (20..4000).contains(&c.model.len()) && c.beside.is_empty());
    let digits = std::fs::read(crate::harness::model()).unwrap();
    let made = |k: usize| {
        let seed = &seeds[random.below(seeds.len())];
        let whole = if k.is_multiple_of(8) { &digits } else { &seed.model };
        let mut model = whole.clone();
        for _ in 0..1 + random.below(4) {
            // Structure sits at the start and the end of a file with weights.
            let near = random.below(model.len().min(2000));
            let at = if random.below(2) == 0 { near } else { model.len() - 1 - near };
            match random.below(6) {
                0 => model.truncate(at.max(1)),
                1 => model[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
                2 => {
                    let len = random.below(16).min(model.len() - at);
                    let part = model[at..at + len].to_vec();
                    let to = random.below(model.len());
                    model.splice(to..to, part);
                }
                3 => drop(model.drain(at..(at + random.below(8)).min(model.len()))),
                _ => model[at] ^= 1 << random.below(8),
            }
            if model.is_empty() {
                model.push(0);
            }
        }
        Case { name: format!("damaged-{k}"), model, feeds: seed.feeds.clone(), beside: Vec::new() }
    };
    (0..n).map(made).collect()
}

fn data_run(dir: &Dir, d: &inputs::Data, record: &dyn Fn(&str, drive::End)) {
    let path = dir.path(d.name);
    std::fs::create_dir_all(if d.name.ends_with('/') { &path } else { path.parent().unwrap() }).unwrap();
    if !d.name.ends_with('/') {
        std::fs::write(&path, &d.bytes).unwrap();
    }
    let model = std::fs::canonicalize(crate::harness::model()).unwrap();
    // Where the file lies in a folder, the folder is the data.
    let given = Path::new(d.name.split('/').next().unwrap());
    let (m, g) = (arg(&model), arg(given));
    for args in [
        &["run", m, "--inputs", g, "--outputs", "o.npz"][..],
        &["bench", m, "--inputs", g, "--seconds", "0"],
        &["diff", m, m, "--data", g],
        &[m, "-o", "c.onnx", "--force", "--quiet", "--data", g],
    ] {
        record(&format!("{} {}", d.name, args[0]), run(dir.path("").as_path(), args));
    }
}

fn image_run(dir: &Dir, case: &images::Data, commands: usize, record: &dyn Fn(&str, drive::End)) {
    let table = images::write(dir, case);
    let model = std::fs::canonicalize(crate::harness::model()).unwrap();
    let m = arg(&model);
    let labels: &[&str] = if table.is_some() { &["--labels", "labels.csv"] } else { &[] };
    let all: [&[&str]; 5] = [
        &["eval", m, m, "--data", "d"],
        &["diff", m, m, "--data", "d"],
        &["eval", m, "--data", "d"],
        &[m, "-o", "c.onnx", "--force", "--quiet", "--data", "d"],
        &["eval", m, m, "--data", "d", "--robust", "jpeg", "--image-size", "28", "--mean", "0.5"],
    ];
    for args in all.iter().take(commands) {
        let args = [args, labels].concat();
        record(&format!("{} {}", case.name, args[0]), run(dir.path("").as_path(), &args));
    }
}

/// A part of the cases that takes seconds.
#[test]
fn some_of_every_kind() {
    let all: Vec<Case> =
        cases().into_iter().enumerate().filter(|(k, _)| k % 9 == 0).map(|(_, c)| c).collect();
    each("some", &all, |dir, case, record| through(dir, case, &COMMANDS[..7], record)).judge(all.len());
}

#[test]
fn some_damaged_models() {
    let all = damaged(60);
    each("damaged-some", &all, |dir, case, record| through(dir, case, &COMMANDS[..4], record))
        .judge(all.len());
}

#[test]
fn all_data_files() {
    let all = inputs::all();
    each("data", &all, data_run).judge(all.len());
}

#[test]
fn folders_of_images_and_tables_of_labels() {
    let all = images::all();
    assert!(all.len() >= 100);
    each("images", &all, |dir, case, record| image_run(dir, case, 1, record)).judge(all.len());
}

#[test]
#[ignore = "takes minutes"]
fn folders_of_images_through_every_command() {
    let all = images::all();
    each("images-all", &all, |dir, case, record| image_run(dir, case, 5, record)).judge(5 * all.len());
}

#[test]
#[ignore = "takes minutes"]
fn all_of_every_kind() {
    let all = cases();
    assert!(all.len() >= 300);
    each("all", &all, |dir, case, record| through(dir, case, COMMANDS, record)).judge(all.len());
}

/// Small models for the fuzzer to start from, into the folder that FUZZ_SEEDS names or one beside other scratch files.
#[test]
#[ignore = "writes files"]
fn seeds_of_the_fuzzer() {
    let scratch = concat!(env!("CARGO_TARGET_TMPDIR"), "/fuzz-seeds").to_string();
    let folder = std::path::PathBuf::from(std::env::var("FUZZ_SEEDS").unwrap_or(scratch));
    std::fs::create_dir_all(&folder).unwrap();
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for c in cases().into_iter().filter(|c| (1..1200).contains(&c.model.len())) {
        // One of each operator and each kind of structure.
        let kind = c.name.trim_start_matches(|x: char| x.is_ascii_digit() || x == '-');
        let kind = kind.trim_end_matches("-fed").trim_end_matches("-constant").to_string();
        let n = seen.entry(kind).or_default();
        *n += 1;
        if *n <= 2 {
            let name: String = c.name.chars().filter(|x| x.is_ascii_alphanumeric() || *x == '-').collect();
            std::fs::write(folder.join(name), &c.model).unwrap();
        }
    }
    assert!(seen.len() >= 300, "{} kinds", seen.len());
}

#[test]
#[ignore = "takes minutes"]
fn many_damaged_models() {
    let n = std::env::var("HOSTILE_DAMAGED").ok().and_then(|n| n.parse().ok()).unwrap_or(2000);
    let all = damaged(n);
    each("damaged", &all, |dir, case, record| through(dir, case, &COMMANDS[..5], record)).judge(all.len());
}
