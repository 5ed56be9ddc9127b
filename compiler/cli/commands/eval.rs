//! `compress eval`: the quality of one file, or of one beside another, with confidence bounds.

use crate::args::EvalArgs;
use crate::exit::{Failure, Result, lines};
use crate::report::table::Table;
use crate::robust::{self, Degraded};
use crate::states::{Links, Steps};
use crate::{engine, judge, limits, model, progress::Progress};
use ir::Graph;
use search::{Comparison, Metric, Pair, Quality};
use serde_json::json;

pub fn run(args: EvalArgs) -> Result {
    limits::set(&args.original, &args.bounds)?;
    let ways = robust::parse(&args.robust)?;
    let metric = match args.metric.as_deref().map(judge::parse).transpose()? {
        Some(judge::Wanted::Command(c)) if ways.is_empty() => return by_command(&args, &c),
        Some(judge::Wanted::Command(_)) => {
            return Err(Failure::usage("--robust needs samples that compress can degrade, not a command"));
        }
        Some(judge::Wanted::Named(m)) => Some(m),
        None => None,
    };
    if args.data.path.is_none() {
        return Err(Failure::usage("eval needs --data"));
    }
    let open = |p: &std::path::Path| -> Result<Graph> { Ok(model::open(p)?.graph) };
    let original = open(&args.original)?;
    let other = args.compressed.as_deref().map(open).transpose()?;
    let threads = args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()));
    let engine = engine::frugal(threads);
    let data = robust::opening(&args.data, !ways.is_empty());
    let links = Links::parse(&args.state, &original)?;
    let steps = Steps::open(&data, &original, &links, engine.as_ref())?;
    let steps = steps.ok_or_else(|| Failure::usage("eval needs --data"))?;
    let samples = super::compress::Adapter(&steps);
    let labelled = steps.samples().labels().is_some();
    if other.is_none() && ways.is_empty() && !labelled {
        return Err(Failure::usage(
            "one file is judged by labels, and the data have none; name a second file",
        ));
    }
    let pixels = match ways.is_empty() {
        true => None,
        false => Some(robust::pixels(&args.data, &original, &samples)?),
    };
    let mut versions = Vec::new();
    if let Some(pixels) = &pixels {
        let one = |&how| Degraded { samples: &samples, pixels, how, seed: args.seed.unwrap_or(0) };
        versions.extend(ways.iter().map(one));
    }
    let others: Vec<&dyn search::Samples> = versions.iter().map(|v| v as &dyn search::Samples).collect();
    let progress = Progress::new(args.json);
    let found =
        search::compare(&original, other.as_ref(), &samples, &others, metric, engine.as_ref(), &progress)?;
    let drift = match &other {
        Some(g) if !links.is_empty() => Some(steps.drift(&original, g, &links, engine.as_ref())?),
        _ => None,
    };
    progress.finish();
    let names: Vec<String> = ways.iter().map(|w| w.describe()).collect();
    if args.json {
        let mut all = as_json(&args, &found, &ways);
        all["drift"] = json!(drift.map(|[all, late]| json!({"all_steps": all, "last_tenth": late})));
        println!("{all:#}");
    } else {
        print!("{}", lines(&text(&args, &found, &names, search::Samples::len(&samples))));
        drift.iter().for_each(|d| println!("{}", Steps::told(*d, search::Samples::len(&samples))));
    }
    Ok(())
}

/// The numbers that a command gives each file.
fn by_command(args: &EvalArgs, command: &str) -> Result {
    let a = judge::judge(command, &args.original)?;
    let b = args.compressed.as_deref().map(|p| judge::judge(command, p)).transpose()?;
    let drop = b.map(|b| (a - b) / a.abs().max(f64::MIN_POSITIVE));
    if args.json {
        println!(
            "{:#}",
            json!({"metric": Metric::Judged.name(), "original": a, "compressed": b, "relative_drop": drop})
        );
    } else {
        println!("original {a}");
        if let (Some(b), Some(d)) = (b, drop) {
            println!(
                "compressed {b} (drop {:.2} % of the original's; one number has no confidence bound)",
                d * 100.0
            );
        }
    }
    Ok(())
}

fn as_json(args: &EvalArgs, c: &Comparison, ways: &[data::degrade::Degradation]) -> serde_json::Value {
    let robust: Vec<serde_json::Value> = ways
        .iter()
        .zip(&c.versions)
        .map(|(w, p)| json!({"degradation": w.name(), "strength": w.describe(), "quality": p}))
        .collect();
    json!({
        "original": args.original, "compressed": args.compressed, "metric": c.metric.name(), "samples": c.samples,
        "distinct_samples": c.distinct, "groups": c.groups, "confidence": 0.95, "clean": c.clean, "robust": robust,
        "others": c.others.iter().map(|(name, kept)| json!({"output": name, "variance_kept": kept})).collect::<Vec<_>>(),
    })
}

fn text(args: &EvalArgs, c: &Comparison, names: &[String], given: usize) -> String {
    let mut s = format!("{} on {} samples", c.metric.name(), c.samples);
    if c.samples < given {
        s += &format!(" of {given} (outputs are large)");
    }
    if c.distinct < c.samples {
        s += &format!(", {} of them different", c.distinct);
    }
    if c.groups < c.distinct {
        s += &format!(", in {} groups that resemble each other", c.groups);
    }
    let what = if args.compressed.is_some() { "compressed" } else { "" };
    let mut t = Table::new(&["samples", "original (95 %)", what, "drop", "at 95 % at most"]);
    let quality = |q: &Quality| match q.low.is_finite() {
        true => format!("{:.4} ({:.4}–{:.4})", q.value, q.low, q.high),
        false => format!("{:.4}", q.value),
    };
    let points = |x: Option<f64>| match x {
        Some(x) if x.is_finite() => format!("{:.2} pt", x * 100.0),
        _ => "-".into(),
    };
    let row = |name: &str, p: &Pair, t: &mut Table| {
        let other = p.compressed.as_ref().map_or_else(String::new, quality);
        let (drop, bound) = match p.compressed {
            Some(_) => (points(p.drop), points(p.bound)),
            None => Default::default(),
        };
        t.row(&[name, &quality(&p.original), &other, &drop, &bound]);
    };
    row("clean", &c.clean, &mut t);
    names.iter().zip(&c.versions).for_each(|(n, p)| row(n, p, &mut t));
    s += &format!("\n{t}");
    for (name, kept) in &c.others {
        s += &format!("not judged: output '{name}' keeps {kept:.4} of its variance\n");
    }
    if !names.is_empty() && !matches!(c.metric, Metric::Top1 | Metric::Top5) {
        s += "without labels, the original's answers on clean samples are taken for right\n";
    }
    s
}
