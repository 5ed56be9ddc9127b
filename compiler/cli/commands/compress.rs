//! `compress MODEL`: the main job.

use crate::args::CompressArgs;
use crate::exit::{Failure, Result, lines};
use crate::progress::Progress;
use crate::report::{self, Facts};
use crate::shelf::Disk;
use crate::states::{Links, Steps};
use crate::{costs, engine, files, judge, limits, model, packed, provenance, robust};
use ir::{Evaluate, Feeds, Graph, Value};
use search::{Allocation, Goal, Options, Override, Status, Time};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Samples on which the written file must give what the search measured.
const SELF_CHECK: usize = 3;
/// Searches where what a file says of its layers takes more room than expected.
const TRIES: usize = 3;

pub fn run(args: CompressArgs) -> Result {
    let path = args.model.clone().ok_or_else(|| Failure::usage("no model given; see compress --help"))?;
    let output = args.output.clone().unwrap_or_else(|| default_output(&path));
    let reports = Reports::beside(&output);
    let bound = limits::set(&path, &args.bounds)?;
    // What is wrong with the arguments is said before anything is read.
    self::options(&args, 0, &output)?;
    if !args.dry_run {
        let front = super::pareto::targets(&output.with_extension(""));
        let targets = if args.pareto {
            front
        } else {
            [output.clone(), reports.html.clone(), reports.json.clone()].to_vec()
        };
        for target in &targets {
            files::check_target(target, Some(&path), args.force)?;
        }
    }
    let started = Instant::now();
    runtime::return_freed_blocks();
    let opened = model::open(&path)?;
    let mut options = self::options(&args, opened.file_bytes, &output)?;
    let (graph, trace) = exact::optimize(&opened.graph, exact::Options::PORTABLE)?;
    // Half-float weights are weights like others; what is kept of them is stored as half floats again, without loss.
    let graph = exact::widen(&graph)?.unwrap_or(graph);
    let threads = args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()));
    options.threads = threads;
    options.memory = Some(bound);
    let input_hash = model::hash(&path)?;
    if let Some(disk) = Disk::near(&output, &identity(&args, &input_hash, opened.file_bytes), args.resume) {
        if args.resume {
            eprintln!("compress: {} layers of an earlier run are used", disk.resumed());
        }
        options.shelf = Box::new(disk);
    }
    let evaluate = engine::frugal(threads);
    let links = Links::parse(&args.state, &graph)?;
    let ways = robust::parse(&args.robust)?;
    let data = robust::opening(&args.data, !ways.is_empty());
    let mut steps = Steps::open(&data, &graph, &links, evaluate.as_ref())?;
    let size: search::Size = if packed::wanted(&output) { &packed::size } else { &model::size };
    let (goal, seed) = (goal_text(&args), args.seed.unwrap_or(0));
    let expected = provenance::expected(&goal, seed, &input_hash, &graph);
    // A size is that of the whole file.
    let whole = |g: &Graph| provenance::size(size, g, &expected);
    let within: search::Size = if let Goal::TargetBytes(_) = options.goal { &whole } else { size };
    if !options.goal.timed() && lossy::layers(&graph).is_empty() && size(&graph)? >= opened.file_bytes {
        let why = "nothing to compress: no product or convolution has constant float weights worth storing otherwise, \
                   and exact rewrites save no bytes; no file written";
        return Err(Failure::no_gain(why));
    }
    if let Some(s) = &mut steps {
        s.put_away(options.shelf.as_ref());
    }
    let adapter = steps.as_ref().map(Adapter);
    let mixed = adapter
        .as_ref()
        .filter(|_| !ways.is_empty())
        .map(|samples| -> Result<robust::Mixed> {
            let pixels = robust::pixels(&args.data, &graph, samples)?;
            Ok(robust::Mixed { samples, pixels, ways, seed: args.seed.unwrap_or(0) })
        })
        .transpose()?;
    let plain = adapter.as_ref().map(|a| a as &dyn search::Samples);
    let samples = mixed.as_ref().map(|m| m as &dyn search::Samples).or(plain);
    let progress = Progress::new(args.quiet || args.json).within(started, args.time);
    if options.goal.timed() && !args.replayed {
        options.clock = Some(Box::new(costs::Stopwatch::new(args.threads.unwrap_or(1), args.costs.clone())));
    }
    if args.pareto {
        let samples = samples.ok_or_else(|| Failure::usage("--pareto needs --data"))?;
        let points = search::front(&graph, samples, &options, evaluate.as_ref(), size, &progress)?;
        progress.finish();
        let data = args.data.path.clone().unwrap_or_default();
        let front = report::front::Front { model: path, data, input_bytes: opened.file_bytes, points };
        return super::pareto::write(&front, &output.with_extension(""), args.quiet);
    }
    let asked = options.goal;
    let mut tries = 0;
    let mut outcome = loop {
        let found = search::compress(&graph, samples, &options, evaluate.as_ref(), within, &progress)?;
        tries += 1;
        let (Goal::TargetBytes(most), Goal::TargetBytes(now), Status::Met) =
            (asked, options.goal, found.decision.status)
        else {
            break found;
        };
        let told = provenance::properties(&goal, seed, &input_hash, &found.decision);
        let over = provenance::size(size, &found.graph, &told)?.saturating_sub(most);
        if over == 0 || tries == TRIES {
            break found;
        }
        options.goal = Goal::TargetBytes(now.saturating_sub(over));
    };
    options.goal = asked;
    progress.finish();
    // Keeps the times of layers.
    options.clock = None;
    outcome.decision.notes.extend(progress.cuts());
    if let (Some(steps), false) = (&steps, links.is_empty()) {
        let drift = steps.drift(&graph, &outcome.graph, &links, evaluate.as_ref())?;
        outcome.decision.notes.push(Steps::told(drift, steps.samples().len()));
    }
    let decision = &outcome.decision;
    let mut facts = Facts {
        model: path.clone(),
        output: output.clone(),
        input_hash,
        input_bytes: opened.file_bytes,
        output_bytes: 0,
        nodes: (trace.nodes_before, trace.nodes_after),
        rules: trace.fired.iter().map(|(k, v)| (k.to_string(), *v)).collect(),
        seconds: 0.0,
        goal,
        seed,
        robust: args.robust.clone(),
    };
    if matches!(
        decision.status,
        Status::NotReached | Status::NothingGained | Status::NotFaster | Status::Unsupported
    ) {
        return Err(Failure::no_gain(report::terminal::refusal(&facts, decision)));
    }
    let properties = provenance::properties(&facts.goal, seed, &facts.input_hash, decision);
    if args.dry_run {
        facts.output_bytes = provenance::size(size, &outcome.graph, &properties)?;
        facts.seconds = started.elapsed().as_secs_f64();
        return show(&args, &facts, decision);
    }
    let pending = model::write(&outcome.graph, &output, &properties, args.force)?;
    facts.output_bytes = pending.bytes();
    if facts.output_bytes >= facts.input_bytes {
        let why = format!(
            "nothing gained: the best file would have {} bytes, the input has {}; no file written",
            facts.output_bytes, facts.input_bytes
        );
        return Err(Failure::no_gain(why));
    }
    if let Goal::TargetBytes(most) = asked
        && facts.output_bytes > most
    {
        let why = format!(
            "goal not reachable: the best file would have {} bytes, {most} are allowed; no file written",
            facts.output_bytes
        );
        return Err(Failure::no_gain(why));
    }
    self_check(&pending, &outcome.graph, adapter.as_ref(), evaluate.as_ref())?;
    facts.seconds = started.elapsed().as_secs_f64();
    let html = files::Pending::write(&reports.html, |w| report::html::write(w, &facts, decision))?;
    let json = files::Pending::write(&reports.json, |w| report::json::write(w, &facts, decision))?;
    pending.commit()?;
    html.commit()?;
    json.commit()?;
    show(&args, &facts, decision)
}

fn show(args: &CompressArgs, facts: &Facts, decision: &search::Decision) -> Result {
    if args.json {
        println!("{:#}", report::json::value(facts, decision));
    } else if !args.quiet {
        print!("{}", lines(&report::terminal::text(facts, decision, args.dry_run)));
    }
    Ok(())
}

/// `model.onnx` becomes `model.compressed.onnx` in the current folder.
fn default_output(model: &Path) -> PathBuf {
    let stem = model.file_stem().map_or_else(|| OsString::from("model"), OsString::from);
    let mut name = stem;
    name.push(".compressed.onnx");
    PathBuf::from(name)
}

struct Reports {
    html: PathBuf,
    json: PathBuf,
}

impl Reports {
    fn beside(output: &Path) -> Reports {
        let base = output.with_extension("");
        let with = |suffix: &str| {
            let mut s = base.clone().into_os_string();
            s.push(suffix);
            PathBuf::from(s)
        };
        Reports { html: with(".report.html"), json: with(".report.json") }
    }
}

/// What decides the candidates of each layer: runs with the same may continue each other.
fn identity(args: &CompressArgs, hash: &str, bytes: u64) -> String {
    let data =
        args.data.path.as_ref().map(|p| (p, std::fs::metadata(p).ok().and_then(|m| m.modified().ok())));
    let version = env!("CARGO_PKG_VERSION");
    let container = args.output.as_deref().is_some_and(packed::wanted);
    let options =
        (args.data.options(), &args.methods, &args.layer, args.seed, container, &args.robust, &args.ablate);
    format!("{version} {hash} {bytes} {data:?} {options:?}")
}

fn options(args: &CompressArgs, file_bytes: u64, output: &Path) -> Result<Options> {
    let mut o = Options::new(goal(args, file_bytes)?);
    if packed::wanted(output) {
        o = o.priced(packed::tensor_bytes);
    }
    match args.metric.as_deref().map(judge::parse).transpose()? {
        Some(judge::Wanted::Named(m)) => o.metric = Some(m),
        Some(judge::Wanted::Command(c)) => o.judge = Some(judge::of(c, output.to_path_buf())),
        None => {}
    }
    o.unproven = args.unproven;
    o.repairs = args.repairs;
    if args.metric.is_some() && args.data.path.is_none() {
        return Err(Failure::usage("--metric needs --data, which also calibrates"));
    }
    let usage = |e: ir::Error| Failure::usage(e.to_string());
    for word in &args.ablate {
        match Allocation::NAMED.iter().find(|(n, _)| n == word) {
            _ if word == "no-compensation" => o.compensate = false,
            _ if word == "no-interactions" => o.interactions = false,
            _ if word == "no-regain" => o.again = false,
            _ if word == "no-tune" => o.tune = false,
            _ if word == "no-rivals" => o.rivals = false,
            _ if word == "no-repair" => o.repairs = search::Repairs::Never,
            Some((_, Allocation::Global)) if args.target_sparsity.is_none() => {
                return Err(Failure::usage("--ablate global needs --target-sparsity"));
            }
            Some((_, a)) => o.allocation = *a,
            None => {
                let names = "no-compensation, no-interactions, no-regain, no-repair, no-tune, no-rivals, greedy, uniform, global";
                return Err(Failure::usage(format!("--ablate '{word}' is none of {names}")));
            }
        }
    }
    if args.target_sparsity.is_some() {
        o.methods = search::select("sparse").map_err(usage)?;
    }
    if let Some(list) = &args.methods {
        o.methods = search::select(&list.join(",")).map_err(usage)?;
    }
    o.overrides = args.layer.iter().map(|l| Override::parse(l)).collect::<ir::Result<_>>().map_err(usage)?;
    Ok(o)
}

fn goal(args: &CompressArgs, file_bytes: u64) -> Result<Goal> {
    if (args.fastest || args.target_latency.is_some()) && args.data.path.is_none() {
        return Err(Failure::usage("goals of speed need --data: runs are timed and judged on samples"));
    }
    if let Some(s) = &args.target_latency {
        return parse_latency(s)
            .map(Goal::TargetLatency)
            .ok_or_else(|| Failure::usage(format!("--target-latency '{s}' is not 5ms or 60%")));
    }
    if let Some(s) = &args.target_sparsity {
        let share = parse_drop(s).filter(|x| (0.0..0.99).contains(x));
        return share.map(Goal::TargetSparsity).ok_or_else(|| {
            Failure::usage(format!("--target-sparsity '{s}' is no share below 99 %, such as 70%"))
        });
    }
    if let Some(s) = &args.target_size {
        let bytes = match s.trim().strip_suffix('%') {
            Some(p) => p
                .trim()
                .parse::<f64>()
                .ok()
                .filter(|p| (0.0..=100.0).contains(p))
                .map(|p| (file_bytes as f64 * p / 100.0) as u64),
            None => limits::parse_bytes(s),
        };
        return bytes
            .map(Goal::TargetBytes)
            .ok_or_else(|| Failure::usage(format!("--target-size '{s}' is not 25% or 5MB")));
    }
    if let Some(r) = args.target_ratio {
        if !(r.is_finite() && r >= 1.0) {
            return Err(Failure::usage(format!("--target-ratio {r} must be at least 1")));
        }
        return Ok(Goal::TargetBytes((file_bytes as f64 / r) as u64));
    }
    let text = args.max_drop.as_deref().unwrap_or("1%");
    parse_drop(text)
        .map(if args.fastest { Goal::Fastest } else { Goal::MaxDrop })
        .ok_or_else(|| Failure::usage(format!("--max-drop '{text}' is not 1%, 0.5pt or 0.01")))
}

/// `1%`, `0.5pt` and `0.01` as a fraction.
pub fn parse_drop(s: &str) -> Option<f64> {
    let s = s.trim();
    let (number, scale) = match (s.strip_suffix('%'), s.strip_suffix("pt")) {
        (Some(n), _) | (_, Some(n)) => (n, 0.01),
        _ => (s, 1.0),
    };
    number.trim().parse::<f64>().ok().map(|x| x * scale).filter(|x| (0.0..=1.0).contains(x))
}

fn goal_text(args: &CompressArgs) -> String {
    if let Some(s) = &args.target_sparsity {
        return format!("target sparsity {s}");
    }
    let drop = args.max_drop.as_deref().unwrap_or("1%");
    match (&args.target_size, args.target_ratio, &args.target_latency) {
        (Some(s), _, _) => format!("target size {s}"),
        (_, Some(r), _) => format!("target ratio {r}"),
        (_, _, Some(l)) => format!("target latency {l}"),
        _ if args.fastest => format!("fastest, max drop {drop}"),
        _ => format!("max drop {drop}"),
    }
}

/// `5ms`, `5` and `60%`.
fn parse_latency(s: &str) -> Option<Time> {
    let s = s.trim();
    let number = |n: &str| n.trim().parse::<f64>().ok().filter(|x| x.is_finite() && *x > 0.0);
    match s.strip_suffix('%') {
        Some(p) => number(p).map(|p| Time::Share(p / 100.0)),
        None => number(s.strip_suffix("ms").unwrap_or(s)).map(Time::Milliseconds),
    }
}

pub struct Adapter<'a>(pub &'a Steps);

impl search::Samples for Adapter<'_> {
    fn len(&self) -> usize {
        self.0.samples().len()
    }
    fn feeds(&self, i: usize) -> ir::Result<Feeds> {
        self.0.feeds(i)
    }
    fn label(&self, i: usize) -> Option<i64> {
        self.0.samples().labels()?.get(i).copied()
    }
}

/// Reads the written file back and compares it with the graph it came from.
fn self_check(
    file: &files::Pending,
    graph: &Graph,
    samples: Option<&Adapter>,
    evaluate: &dyn Evaluate,
) -> Result {
    let wrong = |why: String| {
        Failure::self_check(format!("self-check of the written file failed: {why}; no file written"))
    };
    let back = model::reopen(file).map_err(|e| wrong(e.to_string()))?;
    let Some(samples) = samples else { return Ok(()) };
    let outputs = |g: &Graph| {
        let run = |i| Ok(evaluate.run(g, &search::Samples::feeds(samples, i)?, &[])?.outputs);
        (0..search::Samples::len(samples).min(SELF_CHECK)).map(run).collect::<ir::Result<Vec<_>>>()
    };
    // One graph after the other, so that one compiled form exists at a time.
    let a = outputs(graph).map_err(|e| wrong(e.to_string()))?;
    evaluate.forget();
    let b = outputs(&back).map_err(|e| wrong(e.to_string()))?;
    for (i, (a, b)) in a.iter().zip(&b).enumerate() {
        for (o, (x, y)) in graph.outputs().iter().zip(a.iter().zip(b)) {
            let distance = distance(x, y)?;
            if distance > 1e-3 {
                return Err(wrong(format!("output '{}' differs by {distance:.2e} on sample {i}", o.name)));
            }
        }
    }
    Ok(())
}

/// Relative distance of two values; infinite when types differ.
fn distance(x: &Value, y: &Value) -> Result<f64> {
    let (Value::Tensor(x), Value::Tensor(y)) = (x, y) else {
        return Ok(if x == y { 0.0 } else { f64::INFINITY });
    };
    if x.shape() != y.shape() || x.dtype() != y.dtype() {
        return Ok(f64::INFINITY);
    }
    if x.dtype() == ir::DType::String {
        return Ok(if x == y { 0.0 } else { f64::INFINITY });
    }
    let (mut noise, mut signal) = (0.0, 0.0);
    for (p, q) in x.to_f64s()?.into_iter().zip(y.to_f64s()?) {
        if p.is_finite() && q.is_finite() {
            noise += (p - q) * (p - q);
            signal += p * p;
        } else if p.is_nan() != q.is_nan() || (p.is_infinite() && p != q) {
            return Ok(f64::INFINITY);
        }
    }
    Ok(if noise == 0.0 { 0.0 } else { (noise / f64::max(signal, f64::MIN_POSITIVE)).sqrt() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops() {
        assert_eq!(parse_drop("1%"), Some(0.01));
        assert_eq!(parse_drop("0.5pt"), Some(0.005));
        assert_eq!(parse_drop("0.01"), Some(0.01));
        assert_eq!(parse_drop("-1%"), None);
        assert_eq!(parse_drop("x"), None);
    }

    #[test]
    fn latencies() {
        assert_eq!(parse_latency("2.5ms"), Some(Time::Milliseconds(2.5)));
        assert_eq!(parse_latency("3"), Some(Time::Milliseconds(3.0)));
        assert_eq!(parse_latency("60 %"), Some(Time::Share(0.6)));
        assert!(["", "-1ms", "5s", "nan", "%"].iter().all(|s| parse_latency(s).is_none()));
    }

    #[test]
    fn default_names() {
        assert_eq!(default_output(Path::new("a/b/model.onnx")), Path::new("model.compressed.onnx"));
        assert_eq!(Reports::beside(Path::new("out/m.onnx")).html, Path::new("out/m.report.html"));
    }
}
