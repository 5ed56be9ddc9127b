//! The report on a terminal.

use super::Facts;
use super::table::Table;
use search::{Decision, Latency, LayerDecision, Measured};

/// Layers listed on the terminal; the report has all.
const SHOWN: usize = 24;

/// `1234567` as `1.23 MB`.
pub fn megabytes(b: u64) -> String {
    match b {
        0..=9_999 => format!("{b} B"),
        10_000..=999_999 => format!("{:.1} kB", b as f64 / 1e3),
        _ => format!("{:.2} MB", b as f64 / 1e6),
    }
}

fn measured(m: &Measured) -> String {
    let (expected, bound) = (m.drop * 100.0, m.bound * 100.0);
    format!("{:.4} → {:.4} (drop {expected:.2} pt, at 95 % at most {bound:.2} pt)", m.base, m.value)
}

/// `1234.5` nanoseconds as `1.2 µs`.
pub fn microseconds(ns: f64) -> String {
    format!("{:.1} µs", ns / 1e3)
}

/// One run of both models: medians, spreads, and how that was measured.
pub fn speed(l: &Latency) -> String {
    let (a, b) = (&l.original, &l.compressed);
    format!(
        "one run on {} thread{}: {:.3} ms → {:.3} ms ({:.2}× faster; 10 to 90 % of {} and {} runs in turns: {:.3} to {:.3} ms, \
         {:.3} to {:.3} ms)",
        l.threads,
        if l.threads == 1 { "" } else { "s" },
        a.median_ms,
        b.median_ms,
        a.median_ms / b.median_ms.max(1e-9),
        a.runs,
        b.runs,
        a.p10_ms,
        a.p90_ms,
        b.p10_ms,
        b.p90_ms
    )
}

pub fn text(f: &Facts, d: &Decision, dry: bool) -> String {
    let mut s = String::new();
    s += &format!(
        "{}  {} → {}  ({:.2}× smaller)  {} → {} nodes by exact rewrites\n",
        f.model.display(),
        megabytes(f.input_bytes),
        megabytes(f.output_bytes),
        f.input_bytes as f64 / f.output_bytes.max(1) as f64,
        f.nodes.0,
        f.nodes.1
    );
    match (&d.metric, &d.held_back) {
        (Some(m), Some(h)) => {
            s += &format!("{} on {} held-back samples: {}\n", m.name(), d.samples[2], measured(h));
        }
        _ => {
            s += "no data given: only methods that need none were used, errors are those of the weights alone\n"
        }
    }
    d.latency.iter().for_each(|l| s += &format!("{}\n", speed(l)));
    if !d.gap.is_finite() {
        s += "\n";
    } else {
        s += &format!(
            "no selection within the same error budget is more than {:.2}% smaller\n\n",
            d.gap * 100.0
        );
    }
    let mut layers: Vec<&LayerDecision> = d.layers.iter().collect();
    layers.sort_by(|a, b| b.bytes_before.cmp(&a.bytes_before).then(a.layer.cmp(&b.layer)));
    let timed = layers.iter().any(|l| l.ns_before.is_some());
    let mut head = vec!["layer", "op", "method", "before", "after", "error share", "runner-up"];
    if timed {
        head.splice(5..5, ["time before", "time after"]);
    }
    let mut table = Table::new(&head);
    for l in layers.iter().take(SHOWN) {
        let next = l.runner_up.as_ref().map_or("-".into(), |r| {
            let price = r.ns.map_or_else(|| megabytes(r.bytes), microseconds);
            format!("{} ({price}, {:+.1e})", r.recipe, r.extra_error)
        });
        let time = |ns: Option<f64>| ns.map_or("-".into(), microseconds);
        let mut cells = vec![
            l.layer.clone(),
            l.op.clone(),
            l.summary(),
            megabytes(l.bytes_before),
            megabytes(l.bytes_after),
            format!("{:.1}%", l.share * 100.0),
            next,
        ];
        if timed {
            cells.splice(5..5, [time(l.ns_before), time(l.ns_after)]);
        }
        table.row(&cells.iter().map(String::as_str).collect::<Vec<_>>());
    }
    s += &table.to_string();
    if layers.len() > SHOWN {
        s += &format!("… and {} smaller layers, all in the report\n", layers.len() - SHOWN);
    }
    d.notes.iter().for_each(|n| s += &format!("note: {n}\n"));
    if dry {
        s += &format!("dry run: nothing written ({:.1} s)\n", f.seconds);
    } else {
        s += &format!(
            "wrote {} and its .report.html and .report.json in {:.1} s\n",
            f.output.display(),
            f.seconds
        );
    }
    s
}

/// One line for exit code 3: the goal and the closest that was reached.
pub fn refusal(f: &Facts, d: &Decision) -> String {
    if let (search::Status::Unsupported, Some(why)) = (d.status, d.notes.first()) {
        return format!(
            "{why}; --unproven writes what is expected to hold, --target-size promises a size; no file written"
        );
    }
    let reached = match (&d.metric, &d.held_back) {
        (Some(m), Some(h)) => {
            format!("closest: {} {} with {} of weights", m.name(), measured(h), megabytes(d.bytes_after))
        }
        _ => format!("closest: {} of weights", megabytes(d.bytes_after)),
    };
    let what = match d.status {
        search::Status::NothingGained => "nothing gained",
        search::Status::NotFaster => "not faster than the original",
        _ => "goal not reachable",
    };
    let reached = match &d.latency {
        Some(l) => format!("{reached}, {}", speed(l)),
        None => reached,
    };
    // Where the result is not smaller, what the smaller ones lost says more.
    let gains = d.status != search::Status::NothingGained;
    let smaller: Vec<_> = d.trials.iter().filter(|t| !gains && t.bytes < d.bytes_before).collect();
    let reached = match smaller.iter().min_by(|a, b| a.measured.bound.total_cmp(&b.measured.bound)) {
        Some(t) => format!(
            "{reached}; the least lossy of {} smaller ones tried: {} with {} of weights, on {} samples",
            smaller.len(),
            measured(&t.measured),
            megabytes(t.bytes),
            t.measured.samples
        ),
        None => reached,
    };
    let reached = match d.notes.iter().find(|n| n.contains("--time")) {
        Some(cut) => format!("{reached}; {cut}"),
        None => reached,
    };
    format!(
        "{what} ({}, {} of weights in the input); {reached}; no file written",
        f.goal,
        megabytes(d.bytes_before)
    )
}
