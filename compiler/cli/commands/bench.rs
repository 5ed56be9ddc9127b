//! `compress bench`: latency, load time, peak memory; per group with `--profile`.

use crate::args::{BenchArgs, Precision};
use crate::exit::{Result, lines};
use crate::report::table::Table;
use crate::{feeds, limits, model};
use serde_json::json;
use std::time::{Duration, Instant};

const WARM_RUNS: usize = 3;
const MIN_RUNS: usize = 10;
/// Groups listed as farthest from their roof.
const FARTHEST: usize = 5;

pub fn run(args: BenchArgs) -> Result {
    limits::set(&args.model, &args.bounds)?;
    let shapes = feeds::parse_shapes(&args.shape)?;
    let start = Instant::now();
    let session = model::session(&args.model, args.threads.max(1), args.cache.as_deref())?;
    let session = Precision::set(args.precision, session);
    let load = start.elapsed();
    let declared = session.declared();
    let inputs = match &args.inputs {
        Some(p) => super::run::read_inputs(&declared, p)?,
        None => feeds::random(&declared, &shapes, 0)?,
    };
    let start = Instant::now();
    session.evaluate(&inputs)?;
    let first = start.elapsed();
    let mut times = Vec::new();
    let warm = if args.seconds > 0.0 { WARM_RUNS } else { 0 };
    for _ in 0..warm {
        session.evaluate(&inputs)?;
    }
    let start = Instant::now();
    while warm > 0 && (times.len() < MIN_RUNS || start.elapsed().as_secs_f64() < args.seconds) {
        let t = Instant::now();
        session.evaluate(&inputs)?;
        times.push(t.elapsed().as_secs_f64() * 1e3);
    }
    if times.is_empty() {
        times.push(first.as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let at = |p: f64| times[((times.len() - 1) as f64 * p) as usize];
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    let peak = peak_rss_mb();
    let mut result = json!({
        "median_ms": at(0.5), "p10_ms": at(0.1), "p90_ms": at(0.9), "runs": times.len(),
        "load_ms": ms(load), "first_run_ms": ms(first), "peak_rss_mb": peak, "threads": args.threads,
    });
    let profile = if args.profile { Some(session.profile(&inputs)?) } else { None };
    if args.json {
        if let Some(p) = &profile {
            let rows: Vec<_> = p
                .steps
                .iter()
                .map(|s| {
                    json!({"name": s.name, "kind": s.kind, "us": s.ns / 1e3, "share": s.share,
                           "flops": s.flops, "bytes": s.bytes, "lost_us": s.lost_ns() / 1e3,
                           "roof": s.roof.map(|r| r.1), "bound": s.roof.map(|r| r.0.to_string())})
                })
                .collect();
            let names: Vec<_> = p.farthest(FARTHEST).into_iter().map(|s| &s.name).collect();
            result["farthest"] = json!(names);
            result["profile"] = json!(rows);
            result["roof"] = json!({
                "gflops": p.roofs.flops / 1e9,
                "int8_gops": p.roofs.int8 / 1e9,
                "l2_gbytes_per_s": p.roofs.l2 / 1e9,
                "l3_gbytes_per_s": p.roofs.l3 / 1e9,
                "dram_gbytes_per_s": p.roofs.memory / 1e9,
            });
        }
        println!("{result:#}");
        return Ok(());
    }
    println!(
        "{}: median {:.3} ms  p10 {:.3}  p90 {:.3}  ({} runs, {} thread{})",
        args.model.display(),
        at(0.5),
        at(0.1),
        at(0.9),
        times.len(),
        args.threads,
        if args.threads == 1 { "" } else { "s" }
    );
    println!("load {:.1} ms  first run {:.1} ms  peak memory {:.1} MB", ms(load), ms(first), peak);
    if let Some(p) = profile {
        let r = &p.roofs;
        println!(
            "measured roofs: {:.0} GFLOP/s, {:.0} GOP/s of 8-bit integers, {:.0} GB/s from L2, {:.0} from L3, {:.0} from DRAM",
            r.flops / 1e9,
            r.int8 / 1e9,
            r.l2 / 1e9,
            r.l3 / 1e9,
            r.memory / 1e9
        );
        print!("{}", lines(&steps(p.steps.iter()).to_string()));
        println!("\nfarthest from their roof, by time lost to it:");
        print!("{}", lines(&steps(p.farthest(FARTHEST).into_iter()).to_string()));
    }
    Ok(())
}

fn steps<'a>(steps: impl Iterator<Item = &'a runtime::Step>) -> Table {
    let mut table = Table::new(&["group", "kind", "µs", "share", "of roof", "roof", "µs lost"]);
    for s in steps {
        let share = format!("{:.1}%", s.share * 100.0);
        let (reached, roof) = match s.roof {
            Some((roof, reached)) => (format!("{:.0}%", reached * 100.0), roof.to_string()),
            None if s.kind.starts_with("reference") => ("-".into(), "by reference".into()),
            None => ("-".into(), "unknown".into()),
        };
        let (us, lost) = (format!("{:.1}", s.ns / 1e3), format!("{:.1}", s.lost_ns() / 1e3));
        table.row(&[&s.name, &s.kind, &us, &share, &reached, &roof, &lost]);
    }
    table
}

/// Largest resident size of this process so far, in MB.
fn peak_rss_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM:"));
    let kb = line.and_then(|l| l.split_whitespace().nth(1)).and_then(|s| s.parse::<f64>().ok());
    kb.map_or(f64::NAN, |k| k / 1024.0)
}
