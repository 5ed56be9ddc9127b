//! The report as one HTML page: no scripts, no outside resources, charts as inline SVG.

use super::Facts;
use super::terminal::{megabytes, microseconds, speed};
use search::{Decision, LayerDecision};
use std::fmt::Write as _;
use std::io::Write;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#1b2430}\
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}table{border-collapse:collapse;font-size:13px;width:100%}\
td,th{padding:3px 8px;border-bottom:1px solid #dde3ea;text-align:right}td:first-child,th:first-child{text-align:left}\
code{background:#eef2f6;padding:1px 4px;border-radius:3px}.big{font-size:1.3em}svg text{font:11px system-ui,sans-serif}";
const BEFORE: &str = "#b9c6d3";
const AFTER: &str = "#1f6fb2";
/// Bars shown in a chart; the table has all layers.
const BARS: usize = 40;

pub fn escape(s: &str) -> String {
    s.chars()
        .map(|c| match c {
            '&' => "&amp;".into(),
            '<' => "&lt;".into(),
            '>' => "&gt;".into(),
            '"' => "&quot;".into(),
            c => c.to_string(),
        })
        .collect()
}

/// Writes the page.
pub fn write(w: &mut impl Write, f: &Facts, d: &Decision) -> std::io::Result<()> {
    let mut page = String::new();
    let title = escape(&f.model.display().to_string());
    let head = format!(
        "<!doctype html><meta charset=\"utf-8\"><title>compress: {title}</title><style>{STYLE}</style><h1>{title}</h1>"
    );
    page += &head;
    page += &summary(f, d);
    page += &format!("<h2>Bytes per layer, before and after</h2>{}", bytes_chart(&d.layers));
    if d.layers.iter().any(|l| l.ns_before.is_some()) {
        page += &format!("<h2>Time per layer, before and after</h2>{}", time_chart(&d.layers));
    }
    page += &format!("<h2>Share of the predicted error per layer</h2>{}", share_chart(&d.layers));
    page += &front_chart(d);
    if d.trials.len() > 1 {
        page += &format!("<h2>Selections tried: bytes against measured drop</h2>{}", trials_chart(d));
    }
    page += &layer_table(&d.layers);
    page += &weights(&d.layers);
    page += &refusals(&d.layers);
    page += &rules(f);
    w.write_all(page.as_bytes())
}

fn summary(f: &Facts, d: &Decision) -> String {
    let mut s = format!(
        "<p class=\"big\">{} → <b>{}</b>, {:.2}× smaller</p><p>Goal: {}. ",
        megabytes(f.input_bytes),
        megabytes(f.output_bytes),
        f.input_bytes as f64 / f.output_bytes.max(1) as f64,
        escape(&f.goal)
    );
    match (&d.metric, &d.held_back) {
        (Some(m), Some(h)) => {
            let _ = write!(
                s,
                "{} on {} held-back samples, which the search did not see: {:.4} before, {:.4} after, expected drop {:.2} points, \
                 at 95 % at most {:.2}. \
                 Samples: {} calibration, {} selection.",
                m.name(),
                d.samples[2],
                h.base,
                h.value,
                h.drop * 100.0,
                h.bound * 100.0,
                d.samples[0],
                d.samples[1]
            );
        }
        _ => {
            s += "<b>No data was given</b>: only methods that need none were used; errors are those of the weights alone."
        }
    }
    if d.gap.is_finite() {
        let _ = write!(
            s,
            " No selection within the same predicted error is more than {:.2}% smaller.",
            d.gap * 100.0
        );
    }
    if let Some((predicted, measured)) = d.prediction() {
        let ratio = measured / predicted.max(f64::MIN_POSITIVE);
        let _ = write!(
            s,
            " Squared output error, relative: predicted {predicted:.2e}, measured {measured:.2e} ({ratio:.2} times)."
        );
    }
    if let Some(r) = d.repair {
        let _ = write!(s, " Repair lowered it from {:.2e} to {:.2e}.", r.before, r.after);
    }
    if let Some(l) = &d.latency {
        let _ = write!(
            s,
            "</p><p class=\"big\">{:.3} ms → <b>{:.3} ms</b>, {:.2}× faster</p><p>Measured in this run: {}. The sum of the layers \
             below had promised {:.3} ms.",
            l.original.median_ms,
            l.compressed.median_ms,
            l.original.median_ms / l.compressed.median_ms.max(1e-9),
            escape(&speed(l)),
            l.predicted_ms
        );
    }
    let _ = write!(
        s,
        "</p><p>Exact rewrites: {} → {} nodes. Input BLAKE3 <code>{}</code>. Seed {}. {:.1} s.</p>",
        f.nodes.0, f.nodes.1, &f.input_hash, f.seed, f.seconds
    );
    for n in &d.notes {
        let _ = write!(s, "<p>Note: {}</p>", escape(n));
    }
    s
}

/// The largest layers first.
fn largest(layers: &[LayerDecision], key: impl Fn(&LayerDecision) -> f64) -> Vec<&LayerDecision> {
    let mut v: Vec<&LayerDecision> = layers.iter().collect();
    v.sort_by(|a, b| key(b).total_cmp(&key(a)).then(a.layer.cmp(&b.layer)));
    v.truncate(BARS);
    v
}

/// Name, bars of (length, colour) and label of one line of a chart.
type Bar<'a> = (&'a str, Vec<(f64, &'static str)>, String);

fn bars(rows: &[Bar]) -> String {
    let max = rows.iter().flat_map(|r| r.1.iter().map(|b| b.0)).fold(f64::MIN_POSITIVE, f64::max);
    let mut s = format!("<svg viewBox=\"0 0 1000 {}\" width=\"100%\" role=\"img\">", rows.len() * 20 + 4);
    for (i, (name, parts, label)) in rows.iter().enumerate() {
        let y = i * 20;
        let short: String = if name.chars().count() > 44 {
            let skip = name.chars().count() - 43;
            format!("…{}", name.chars().skip(skip).collect::<String>())
        } else {
            name.to_string()
        };
        let _ = write!(s, "<text x=\"295\" y=\"{}\" text-anchor=\"end\">{}</text>", y + 14, escape(&short));
        let height = 14 / parts.len();
        for (k, (v, color)) in parts.iter().enumerate() {
            let width = (v / max * 560.0).max(0.5);
            let _ = write!(
                s,
                "<rect x=\"302\" y=\"{}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{color}\"/>",
                y + 3 + k * height
            );
        }
        let widest = parts.iter().map(|p| p.0).fold(0.0, f64::max) / max * 560.0;
        let _ = write!(s, "<text x=\"{:.1}\" y=\"{}\">{}</text>", 308.0 + widest, y + 14, escape(label));
    }
    s + "</svg>"
}

fn bytes_chart(layers: &[LayerDecision]) -> String {
    let rows: Vec<_> = largest(layers, |l| l.bytes_before as f64)
        .into_iter()
        .map(|l| {
            let label = format!("{} → {}", megabytes(l.bytes_before), megabytes(l.bytes_after));
            (l.layer.as_str(), vec![(l.bytes_before as f64, BEFORE), (l.bytes_after as f64, AFTER)], label)
        })
        .collect();
    bars(&rows)
}

fn time_chart(layers: &[LayerDecision]) -> String {
    let rows: Vec<_> = largest(layers, |l| l.ns_before.unwrap_or(0.0))
        .into_iter()
        .filter_map(|l| {
            let (before, after) = (l.ns_before?, l.ns_after?);
            let label = format!("{} → {}", microseconds(before), microseconds(after));
            Some((l.layer.as_str(), vec![(before, BEFORE), (after, AFTER)], label))
        })
        .collect();
    bars(&rows)
}

fn share_chart(layers: &[LayerDecision]) -> String {
    let rows: Vec<_> = largest(layers, |l| l.share)
        .into_iter()
        .filter(|l| l.share > 0.0)
        .map(|l| {
            (l.layer.as_str(), vec![(l.share, AFTER)], format!("{:.1}% {}", l.share * 100.0, l.summary()))
        })
        .collect();
    bars(&rows)
}

fn trials_chart(d: &Decision) -> String {
    let max_bytes = d.trials.iter().map(|t| t.bytes).max().unwrap_or(1).max(1) as f64;
    let max_drop = d.trials.iter().map(|t| t.measured.drop).fold(1e-6, f64::max);
    let mut s = String::from(
        "<svg viewBox=\"0 0 640 300\" width=\"640\" role=\"img\"><path d=\"M50 10V260H630\" fill=\"none\" stroke=\"#889\"/>",
    );
    let _ = write!(
        s,
        "<text x=\"340\" y=\"290\" text-anchor=\"middle\">bytes of layers (up to {})</text>",
        megabytes(max_bytes as u64)
    );
    let _ = write!(s, "<text x=\"54\" y=\"20\">drop (up to {:.2} points)</text>", max_drop * 100.0);
    for t in &d.trials {
        let x = 50.0 + t.bytes as f64 / max_bytes * 570.0;
        let y = 260.0 - t.measured.drop.max(0.0) / max_drop * 230.0;
        let color = if t.passed { AFTER } else { "#c4483c" };
        let _ = write!(s, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"{color}\"/>");
    }
    s + "</svg><p>Blue: inside the budget. Red: outside.</p>"
}

/// The predicted front of bytes and error, what was measured beside it, and the choice.
fn front_chart(d: &Decision) -> String {
    let tried = || d.trials.iter().map(|t| (t.bytes, t.measured.distortion, t.passed)).filter(|t| t.1 > 0.0);
    let points: Vec<(u64, f64)> = d.front.iter().copied().filter(|p| p.1 > 0.0).collect();
    if points.len() < 2 {
        return String::new();
    }
    let errors = || {
        points
            .iter()
            .map(|p| p.1)
            .chain(tried().map(|t| t.1))
            .chain((d.predicted > 0.0).then_some(d.predicted))
    };
    let (low, high) = errors().fold((f64::MAX, f64::MIN), |(a, b), e| (a.min(e.log10()), b.max(e.log10())));
    let (low, high) = (low.floor(), high.ceil().max(low.floor() + 1.0));
    let most = points
        .iter()
        .map(|p| p.0)
        .chain(tried().map(|t| t.0))
        .chain([d.bytes_before])
        .max()
        .unwrap_or(1)
        .max(1);
    let x = |bytes: u64| 70.0 + bytes as f64 / most as f64 * 880.0;
    let y = |error: f64| 20.0 + (high - error.log10()) / (high - low) * 280.0;
    let mut s = String::from(
        "<h2>Front of bytes and error, with the choice</h2><svg viewBox=\"0 0 1000 350\" width=\"100%\" role=\"img\">\
         <path d=\"M70 20V300H950\" fill=\"none\" stroke=\"#889\"/>",
    );
    for power in low as i32..=high as i32 {
        let at = y(10f64.powi(power));
        let _ = write!(s, "<text x=\"62\" y=\"{:.1}\" text-anchor=\"end\">1e{power}</text>", at + 4.0);
    }
    let line: Vec<String> = points.iter().map(|p| format!("{:.1},{:.1}", x(p.0), y(p.1))).collect();
    let _ = write!(
        s,
        "<polyline fill=\"none\" stroke=\"{AFTER}\" stroke-width=\"2\" points=\"{}\"/>",
        line.join(" ")
    );
    for (bytes, error, passed) in tried() {
        let color = if passed { AFTER } else { "#c4483c" };
        let _ = write!(
            s,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"{color}\"><title>{}, measured {error:.1e}</title></circle>",
            x(bytes),
            y(error),
            megabytes(bytes)
        );
    }
    if d.predicted > 0.0 {
        let (cx, cy) = (x(d.bytes_after), y(d.predicted));
        let _ = write!(
            s,
            "<circle cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"8\" fill=\"none\" stroke=\"#111\" stroke-width=\"2\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">chosen: {}, {:.1e}</text>",
            cx + 12.0,
            cy - 8.0,
            megabytes(d.bytes_after),
            d.predicted
        );
    }
    let _ = write!(
        s,
        "<text x=\"510\" y=\"335\" text-anchor=\"middle\">bytes of all layers, 0 to {} (now {})</text></svg>\
         <p>Line: squared output error relative to the output's power that the knapsack predicts for the least bytes. Dots: measured \
         on the samples that chose; blue passed, red did not. Ring: the choice.</p>",
        megabytes(most),
        megabytes(d.bytes_before)
    );
    s
}

/// Histograms of weights, before and after.
fn weights(layers: &[LayerDecision]) -> String {
    let mut rows = String::new();
    for l in largest(layers, |l| l.bytes_before as f64) {
        let Some(h) = &l.weights else { continue };
        let most = h.before.iter().chain(h.after.iter().flatten()).copied().max().unwrap_or(1).max(1);
        // By the root, so that tails show.
        let tall = |n: u32| 60.0 * (f64::from(n) / f64::from(most)).sqrt();
        let bars = |counts: &[u32], color: &str, shift: f64, wide: f64| -> String {
            let bar = |(i, &n): (usize, &u32)| {
                let (at, height) = (i as f64 * 8.0 + shift, tall(n));
                format!(
                    "<rect x=\"{at:.1}\" y=\"{:.1}\" width=\"{wide}\" height=\"{height:.1}\" fill=\"{color}\"/>",
                    64.0 - height
                )
            };
            counts.iter().enumerate().map(bar).collect()
        };
        let after = h
            .after
            .as_deref()
            .map_or("<text x=\"4\" y=\"14\">stored as factors</text>".into(), |a| bars(a, AFTER, 3.5, 3.5));
        let _ = write!(
            rows,
            "<tr><td>{}<br>{}<td><svg viewBox=\"0 0 256 66\" width=\"256\" role=\"img\">{}{after}</svg><br>{:.3} to {:.3}</tr>",
            escape(&l.layer),
            escape(&l.summary()),
            bars(&h.before, BEFORE, 0.0, 7.0),
            h.low,
            h.high
        );
    }
    if rows.is_empty() {
        return String::new();
    }
    format!(
        "<h2>Weights per layer</h2><details><summary>Histograms, grey before and blue after; heights by their root</summary>\
         <table>{rows}</table></details>"
    )
}

fn layer_table(layers: &[LayerDecision]) -> String {
    let timed = layers.iter().any(|l| l.ns_before.is_some());
    let time = |ns: Option<f64>| match (timed, ns) {
        (false, _) => String::new(),
        (true, None) => "<td>-".into(),
        (true, Some(ns)) => format!("<td>{ns:.0}"),
    };
    let (times, its) = if timed { ("<th>ns before<th>ns after", "<th>its ns") } else { ("", "") };
    let mut s = format!(
        "<h2>Layers</h2><table><tr><th>layer<th>op<th>shape<th>method<th>before<th>after{times}<th>error of layer\
         <th>share of loss<th>runner-up<th>its bytes{its}<th>its extra error<th>to fix this choice</tr>",
    );
    for l in layers {
        let (before, after) = (time(l.ns_before), time(l.ns_after));
        let its = time(l.runner_up.as_ref().and_then(|r| r.ns));
        let (next, bytes, extra) = l.runner_up.as_ref().map_or(("-".into(), "-".into(), "-".into()), |r| {
            (escape(&r.recipe), megabytes(r.bytes), format!("{:+.1e}", r.extra_error))
        });
        let _ = write!(
            s,
            "<tr><td>{}<td>{}<td>{:?}<td>{}<td>{}<td>{}{before}{after}<td>{:.2e}<td>{:.1}%<td>{next}<td>{bytes}{its}<td>{extra}<td><code>--layer '{}'</code></tr>",
            escape(&l.layer),
            escape(&l.op),
            l.shape,
            escape(&l.summary()),
            megabytes(l.bytes_before),
            megabytes(l.bytes_after),
            l.relative_error,
            l.share * 100.0,
            escape(&l.pin)
        );
    }
    s + "</table>"
}

fn refusals(layers: &[LayerDecision]) -> String {
    let rows: Vec<String> = layers
        .iter()
        .flat_map(|l| l.refusals.iter().map(move |(m, why)| (l, m, why)))
        .map(|(l, m, why)| format!("<tr><td>{}<td>{}<td>{}</tr>", escape(&l.layer), escape(m), escape(why)))
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    format!(
        "<h2>Why a method did not apply</h2><details><summary>{} rows</summary><table><tr><th>layer<th>method<th>reason</tr>{}</table></details>",
        rows.len(),
        rows.concat()
    )
}

fn rules(f: &Facts) -> String {
    if f.rules.is_empty() {
        return String::new();
    }
    let rows: String = f.rules.iter().map(|(n, k)| format!("<tr><td>{}<td>{k}</tr>", escape(n))).collect();
    format!("<h2>Exact rewrites that fired</h2><table><tr><th>rule<th>times</tr>{rows}</table>")
}
