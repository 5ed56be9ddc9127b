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
    if d.trials.len() > 1 {
        page += &format!("<h2>Selections tried: bytes against measured drop</h2>{}", trials_chart(d));
    }
    page += &layer_table(&d.layers);
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
