//! The report on a terminal.

use super::Facts;
use super::table::Table;
use search::{Decision, LayerDecision, Measured};

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
    if d.gap.is_finite() {
        s += &format!(
            "no selection within the same error budget is more than {:.2}% smaller\n\n",
            d.gap * 100.0
        );
    }
    let mut layers: Vec<&LayerDecision> = d.layers.iter().collect();
    layers.sort_by(|a, b| b.bytes_before.cmp(&a.bytes_before).then(a.layer.cmp(&b.layer)));
    let mut table = Table::new(&["layer", "op", "method", "before", "after", "error share", "runner-up"]);
    for l in layers.iter().take(SHOWN) {
        let next = l
            .runner_up
            .as_ref()
            .map_or("-".into(), |r| format!("{} ({}, +{:.1e})", r.recipe, megabytes(r.bytes), r.extra_error));
        table.row(&[
            &l.layer,
            &l.op,
            &l.summary(),
            &megabytes(l.bytes_before),
            &megabytes(l.bytes_after),
            &format!("{:.1}%", l.share * 100.0),
            &next,
        ]);
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
    let reached = match (&d.metric, &d.held_back) {
        (Some(m), Some(h)) => {
            format!("closest: {} {} with {} of weights", m.name(), measured(h), megabytes(d.bytes_after))
        }
        _ => format!("closest: {} of weights", megabytes(d.bytes_after)),
    };
    let what = match d.status {
        search::Status::NothingGained => "nothing gained",
        _ => "goal not reachable",
    };
    format!(
        "{what} ({}, {} of weights in the input); {reached}; no file written",
        f.goal,
        megabytes(d.bytes_before)
    )
}
