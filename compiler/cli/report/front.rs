//! A front as table and as plot.

use super::html::escape;
use super::table::Table;
use super::terminal::megabytes;
use search::Point;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::PathBuf;

/// A measured front and what it is of.
#[derive(Debug, Serialize, Deserialize)]
pub struct Front {
    pub model: PathBuf,
    pub data: PathBuf,
    pub input_bytes: u64,
    pub points: Vec<Point>,
}

pub fn text(f: &Front) -> String {
    let mut t = Table::new(&["point", "bytes", "smaller", "quality", "drop", "at 95 %", "predicted error"]);
    for (i, p) in f.points.iter().enumerate() {
        t.row(&[
            &(i + 1).to_string(),
            &megabytes(p.bytes),
            &format!("{:.2}×", f.input_bytes as f64 / p.bytes.max(1) as f64),
            &format!("{:.4}", p.measured.value),
            &format!("{:.2} pt", p.measured.drop * 100.0),
            &format!("{:.2} pt", p.measured.bound * 100.0),
            &format!("{:.1e}", p.predicted),
        ]);
    }
    let name = f.points.first().map_or("", |p| p.metric.name());
    format!("{}  {}  {name}\n{t}", f.model.display(), megabytes(f.input_bytes))
}

/// One page with a plot of bytes against quality: no scripts, no outside resources.
pub fn html(w: &mut impl Write, f: &Front) -> std::io::Result<()> {
    let title = escape(&f.model.display().to_string());
    let most = f.points.iter().map(|p| p.bytes).max().unwrap_or(1).max(1) as f64;
    let deepest = f.points.iter().map(|p| p.measured.drop).fold(1e-3, f64::max);
    let place = |p: &Point| {
        (60.0 + 900.0 * p.bytes as f64 / most, 20.0 + 360.0 * (p.measured.drop.max(0.0) / deepest).sqrt())
    };
    let line: Vec<String> = f.points.iter().map(place).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    writeln!(
        w,
        "<!doctype html><meta charset=\"utf-8\"><title>compress: {title}</title><body style=\"font:15px system-ui,sans-serif;\
         max-width:1100px;margin:2em auto\"><h1>{title}: bytes against quality</h1>\
         <svg viewBox=\"0 0 1000 430\" width=\"100%\" role=\"img\">\
         <polyline fill=\"none\" stroke=\"#1f6fb2\" stroke-width=\"2\" points=\"{}\"/>",
        line.join(" ")
    )?;
    for (i, p) in f.points.iter().enumerate() {
        let (x, y) = place(p);
        writeln!(
            w,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"#1f6fb2\"><title>point {}: {}, drop {:.2} pt</title></circle>\
             <text x=\"{x:.1}\" y=\"{:.1}\" font-size=\"11\">{}</text>",
            i + 1,
            megabytes(p.bytes),
            p.measured.drop * 100.0,
            y - 8.0,
            i + 1
        )?;
    }
    writeln!(
        w,
        "<text x=\"60\" y=\"420\" font-size=\"12\">0 to {} (the original has {}); down: drop, 0 to {:.2} pt, by its root</text></svg><pre>{}</pre>",
        megabytes(most as u64),
        megabytes(f.input_bytes),
        deepest * 100.0,
        escape(&text(f))
    )
}
