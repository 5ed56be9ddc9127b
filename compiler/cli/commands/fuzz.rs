//! `compress fuzz` and `compress reduce`: looking for bugs in what happens to models, and making what was found small.

use crate::args::{FuzzArgs, FuzzMutate, ReduceArgs};
use crate::exit::{Failure, Result};
use crate::{files, model};
use harness::check::Finding;
use harness::engine::{self, Event, Mutate, Outcome, Point, Settings};
use harness::pair::Pair;
use harness::passes::{Pass, Pipeline};
use harness::targets::{self, Target};
use harness::{container, random_bytes, reduce};
use serde_json::json;
use std::fs::File;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long where nothing is said.
const TIME: Duration = Duration::from_secs(60);
/// Time to make a finding small.
const REDUCING: Duration = Duration::from_secs(120);
/// Most pairs that `--keep` writes.
const KEPT: usize = 60;

/// `90`, `90s`, `10m`, `2h`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.find(|c: char| c.is_ascii_alphabetic()) {
        Some(i) => text.split_at(i),
        None => (text, "s"),
    };
    let seconds = match unit {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => 0.0,
    };
    let n = number.trim().parse::<f64>().ok().map(|n| n * seconds).filter(|n| (0.001..1e8).contains(n));
    n.map(Duration::from_secs_f64).ok_or_else(|| format!("'{text}' is not a time such as 90s, 10m or 2h"))
}

fn pipeline(path: &Path) -> Result<Pipeline> {
    let bad = |e: &dyn std::fmt::Display| Failure::bad(format!("{}: {e}", path.display()));
    let bytes = files::read(path)?;
    let text = std::str::from_utf8(&bytes).map_err(|e| bad(&e))?;
    let p = Pipeline::parse(text).map_err(|e| bad(&e))?;
    if p.passes.is_empty() {
        return Err(bad(&"has no [[pass]]"));
    }
    Ok(p)
}

pub fn fuzz(args: FuzzArgs) -> Result {
    let Some(target) = Target::named(&args.target) else { return bytes(&args) };
    let time = args.time.unwrap_or(if args.core_time.is_some() { Duration::MAX } else { TIME });
    let mut settings = Settings::new(target, time, args.seed);
    settings.executions = args.executions.unwrap_or(u64::MAX);
    settings.core_time = args.core_time;
    settings.feedback = !args.blind;
    settings.findings = args.findings.max(1);
    settings.mutate = match args.mutate {
        FuzzMutate::Both => Mutate::Both,
        FuzzMutate::Graph => Mutate::Graph,
        FuzzMutate::Drawn => Mutate::Drawn,
        FuzzMutate::Passes => Mutate::Passes,
        FuzzMutate::Nothing => Mutate::Nothing,
    };
    if let Some(p) = &args.pipeline {
        settings.passes = Some(pipeline(p)?.passes);
    }
    if let Some(path) = &args.model {
        let mut graph = model::open(path)?.graph;
        ir::infer(&mut graph).map_err(|e| Failure::from(e).on(path.display()))?;
        if let Some(name) = reduce::untyped(&graph) {
            return Err(Failure::bad(format!("{}: input '{name}' has no declared rank", path.display())));
        }
        settings.model = Some(graph);
    }
    if let Some(folder) = &args.seeds {
        settings.seeds = files_of(folder)?.iter().filter_map(|b| target.pair(b)).collect();
    }
    let mut trace = args.trace.then(|| Trace::new(&args.output)).transpose()?;
    let out = engine::fuzz(settings, &mut |event| {
        if let Some(t) = &mut trace {
            t.tell(&event);
        }
    });
    if args.trace {
        drop(std::fs::remove_file(args.output.join(CURRENT)));
    }
    if let Some(folder_path) = &args.keep {
        folder(folder_path)?;
        for bytes in out.smallest(KEPT) {
            let name = format!("{:016x}", tally_name(&bytes));
            write(&folder_path.join(name), &bytes)?;
        }
    }
    tell(&args, &out);
    if out.end.late > 0 {
        let most = harness::check::LIMIT.as_secs();
        eprintln!(
            "compress: {} pairs took more than {most} s and were not judged to their end",
            out.end.late
        );
    }
    if let Some((pair, seconds)) = &out.slowest {
        eprintln!(
            "compress: {} took {seconds:.1} s on {} nodes",
            pair.pipeline.names(),
            pair.graph.node_count()
        );
        if args.trace || out.end.late > 0 {
            folder(&args.output)?;
            write(&args.output.join("slowest.pair"), &pair.encode()?)?;
        }
    }
    let mut first = None;
    for (pair, finding) in &out.findings {
        let name = found(&args.output, pair, finding, args.raw)?;
        first.get_or_insert(format!("{finding}; {name}"));
    }
    first.map_or(Ok(()), |f| Err(Failure::self_check(format!("{} findings: {f}", out.findings.len()))))
}

const CURRENT: &str = "current.pair";

/// What `--trace` writes while a run goes on: the pair at hand, a line for each point of the curve, what was found.
struct Trace {
    folder: PathBuf,
    current: File,
    curve: File,
}

impl Trace {
    fn new(output: &Path) -> Result<Trace> {
        folder(output)?;
        let create = |name: &str| {
            let path = output.join(name);
            File::create(&path).map_err(|e| Failure::bad(format!("{}: {e}", path.display())))
        };
        Ok(Trace { current: create(CURRENT)?, curve: create("curve.jsonl")?, folder: output.to_path_buf() })
    }

    /// What cannot be written is left out: the run goes on.
    fn tell(&mut self, event: &Event) {
        drop(match event {
            Event::Begin(pair) => replace(&mut self.current, &pair.encode().unwrap_or_default()),
            Event::At(p) => writeln!(self.curve, "{}", coordinates(p)),
            Event::Found(pair, finding) => {
                let bytes = pair.encode().unwrap_or_default();
                let path = self.folder.join(format!("found-{:08x}.pair", tally_name(&bytes) as u32));
                writeln!(self.curve, "{}", json!({"found": finding.to_string(), "pair": path}))
                    .and_then(|()| std::fs::write(path, bytes))
            }
        });
    }
}

/// Makes `bytes` all that a file holds. Its blocks stay, as giving them back each time takes longer than checking a pair.
fn replace(file: &mut File, bytes: &[u8]) -> std::io::Result<()> {
    file.rewind()?;
    file.write_all(bytes)?;
    file.set_len(bytes.len() as u64)
}

/// A point of a curve: core-seconds, executions, features, counters above 0.
fn coordinates(p: &Point) -> serde_json::Value {
    json!([p.core_seconds, p.executions, p.features, p.events])
}

fn tally_name(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

fn tell(args: &FuzzArgs, out: &Outcome) {
    let e = out.end;
    if args.json {
        let curve: Vec<_> = out.curve.iter().map(coordinates).collect();
        let findings: Vec<_> = out.findings.iter().map(|(_, f)| f.to_string()).collect();
        println!(
            "{}",
            json!({"target": args.target, "seconds": e.seconds, "core_seconds": e.core_seconds,
                   "executions": e.executions, "graphs": e.graphs, "late": e.late, "features": e.features,
                   "events": e.events, "counters": out.counters, "new_graphs_passes": out.kinds, "findings": findings, "curve": curve})
        );
    } else {
        let rate = e.graphs as f64 / e.seconds.max(1e-9);
        println!(
            "{}: {} executions, {} graphs ({rate:.0}/s), {} features, {} findings in {:.1} s, {:.1} core-s",
            args.target,
            e.executions,
            e.graphs,
            e.features,
            out.findings.len(),
            e.seconds,
            e.core_seconds
        );
    }
}

/// Targets whose input is bytes.
fn bytes(args: &FuzzArgs) -> Result {
    let check: fn(&[u8]) = match args.target.as_str() {
        "prescan_import" => harness::bytes::prescan_import,
        "container" => targets::container,
        "runtime_quant" => targets::runtime_quant,
        other => return Err(Failure::usage(format!("there is no target '{other}'"))),
    };
    let seeds = match &args.seeds {
        Some(folder) => files_of(folder)?,
        None if args.target == "container" => (0..40).map(container::example).collect(),
        None if args.target == "prescan_import" => models(args.seed),
        None => (0..40).map(random_bytes).collect(),
    };
    if args.core_time.is_some() {
        return Err(Failure::usage(format!("--core-time is for targets of graphs, not for {}", args.target)));
    }
    let (start, time) = (Instant::now(), args.time.unwrap_or(TIME));
    let most = args.executions.unwrap_or(u64::MAX);
    let (n, found) = engine::fuzz_bytes(check, &seeds, time, most, args.seed);
    let seconds = start.elapsed().as_secs_f64();
    let findings = usize::from(found.is_some());
    if args.json {
        println!(
            "{}",
            json!({"target": args.target, "seconds": seconds, "executions": n, "findings": findings})
        );
    } else {
        let rate = n as f64 / seconds.max(1e-9);
        println!("{}: {n} executions ({rate:.0}/s), {findings} findings in {seconds:.1} s", args.target);
    }
    let Some((bytes, message)) = found else { return Ok(()) };
    folder(&args.output)?;
    let path = args.output.join(format!("{}.bytes", args.target));
    write(&path, &bytes)?;
    Err(Failure::self_check(format!("{message}; the input is {}", path.display())))
}

/// Small model files to change.
fn models(seed: u64) -> Vec<Vec<u8>> {
    let cases = (0..200).filter_map(|i| targets::generated(&random_bytes(seed.wrapping_add(i))));
    cases.filter_map(|c| onnx::to_bytes(&c.graph, &ops::Standard).ok()).filter(|b| b.len() < 4096).collect()
}

fn files_of(folder: &Path) -> Result<Vec<Vec<u8>>> {
    let bad = |e: std::io::Error| Failure::bad(format!("{}: {e}", folder.display()));
    let entries = std::fs::read_dir(folder).map_err(bad)?;
    let mut paths: Vec<PathBuf> =
        entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.is_file()).collect();
    paths.sort();
    paths.iter().map(|p| files::read(p)).collect()
}

fn folder(path: &Path) -> Result {
    std::fs::create_dir_all(path).map_err(|e| Failure::bad(format!("{}: {e}", path.display())))
}

fn write(path: &Path, bytes: &[u8]) -> Result {
    std::fs::write(path, bytes).map_err(|e| Failure::bad(format!("{}: {e}", path.display())))
}

/// Reduces a finding and writes model and passes; says where.
fn found(output: &Path, pair: &Pair, finding: &Finding, raw: bool) -> Result<String> {
    folder(output)?;
    let name =
        format!("{}-{}-{:08x}", finding.oracle, finding.pass, tally_name(finding.message.as_bytes()) as u32)
            .replace(' ', "-");
    let reduced = if raw { None } else { reduce::reduce(pair.clone(), REDUCING) };
    let small = reduced.as_ref().map_or(pair, |r| &r.0);
    let (m, p) = (output.join(format!("{name}.onnx")), output.join(format!("{name}.toml")));
    write(&m, &onnx::to_bytes(&small.graph, &ops::Standard)?)?;
    write(&p, small.pipeline.print().as_bytes())?;
    Ok(format!(
        "{} nodes and {} passes are in {} and {}",
        small.graph.node_count(),
        small.pipeline.passes.len(),
        m.display(),
        p.display()
    ))
}

pub fn reduce(args: ReduceArgs) -> Result {
    harness::check::set_limits();
    let mut graph = model::open(&args.model)?.graph;
    ir::infer(&mut graph).map_err(|e| Failure::from(e).on(args.model.display()))?;
    if let Some(name) = reduce::untyped(&graph) {
        return Err(Failure::bad(format!("{}: input '{name}' has no declared rank", args.model.display())));
    }
    let output = args.output.clone().unwrap_or_else(|| args.model.with_extension("min.onnx"));
    let passes = output.with_extension("toml");
    for target in [&output, &passes] {
        files::check_target(target, Some(&args.model), args.force)?;
    }
    let pair = Pair { graph, pipeline: pipeline(&args.pipeline)? };
    let before = (pair.graph.node_count(), pair.pipeline.passes.len());
    let Some((small, finding)) = reduce::reduce(pair, args.time) else {
        let names = pipeline(&args.pipeline)?.names();
        return Err(Failure::no_gain(format!("nothing to reduce: {} passes {names}", args.model.display())));
    };
    model::write(&small.graph, &output, &[], args.force)?.commit()?;
    files::Pending::write(&passes, |w| w.write_all(small.pipeline.print().as_bytes()))?.commit()?;
    eprintln!(
        "{} → {} nodes, {} → {} passes: {finding}\nwrote {} and {}",
        before.0,
        small.graph.node_count(),
        before.1,
        small.pipeline.passes.len(),
        output.display(),
        passes.display()
    );
    let name = test_name(&small.pipeline.passes, &finding);
    let file = output.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    print!("{}", reduce::regression(&small, &finding, &name, &file));
    Ok(())
}

/// What failed, after what, as the name of a test.
fn test_name(passes: &[Pass], f: &Finding) -> String {
    let all: Vec<&str> = passes.iter().map(Pass::name).collect();
    format!("{}_after_{}", f.oracle.replace(' ', "_"), all.join("_"))
}
