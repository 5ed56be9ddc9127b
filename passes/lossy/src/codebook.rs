//! Weights as entries of a small table: exact 1-D k-means, weighted by how active each input is.
//!
//! Rows are first divided by a scale, so one table serves the whole layer; codes are 2, 4 or 8 bits and decoding is
//! Gather. Beats an integer grid where weights have heavy tails. Bound: half the gap between neighbouring entries.

use crate::candidate::Candidate;
use crate::factor::Order;
use crate::fragment::table;
use crate::gptq::Policy;
use crate::kmeans;
use crate::layer::{Layer, Role};
use crate::method::{Context, Method, Refusal};
use crate::rounding::round;
use ir::Result;
use ndarray::Array2;

pub struct Codebook;

/// At most this many weights are looked at when the table is learned.
const LEARN: usize = 1 << 20;

struct Levels<'a> {
    levels: &'a [f32],
    scales: &'a [f32],
}

impl Policy for Levels<'_> {
    fn round(&self, row: usize, _col: usize, x: f32) -> (u8, f32) {
        let s = self.scales[row];
        let i = kmeans::nearest(self.levels, if s > 0.0 { x / s } else { 0.0 });
        (i as u8, self.levels.get(i).copied().unwrap_or(0.0) * s)
    }
}

impl Method for Codebook {
    fn name(&self) -> &'static str {
        "codebook"
    }

    fn applies(&self, layer: &Layer, _stats: bool) -> Result<(), Refusal> {
        if layer.role == Role::Constant && layer.view.rows == 1 {
            return Err(Refusal::new("a vector is not a layer's weight"));
        }
        Ok(())
    }

    fn candidates(&self, cx: &Context) -> Result<Vec<Candidate>> {
        let counts = [4, 16, 256].into_iter().filter(|&k| k * 16 <= cx.layer.view.len());
        counts.filter(|&k| k > 4 || cx.layer.view.len().is_multiple_of(2)).map(|k| candidate(cx, k)).collect()
    }

    fn candidate(&self, cx: &Context, recipe: &str) -> Result<Option<Candidate>> {
        let count = [4, 16, 256].into_iter().find(|&k| recipe == named(k));
        count.map(|k| candidate(cx, k)).transpose()
    }
}

fn named(k: usize) -> String {
    format!("codebook {k} entries")
}

fn candidate(cx: &Context, k: usize) -> Result<Candidate> {
    let scales: Vec<f32> = cx.matrix.rows().into_iter().map(|r| rms(r.iter())).collect();
    let levels = learn(cx, &scales, k);
    let rounded = round(cx.matrix, cx.sweep(), Order::Activity, &Levels { levels: &levels, scales: &scales });
    let scales = Array2::from_shape_fn((scales.len(), 1), |(r, _)| scales[r]);
    let fragment = table(&cx.layer.weight, &cx.layer.view, &rounded.codes, &levels, &scales)?;
    Ok(cx.weight("codebook", named(k), fragment, &rounded.values))
}

fn rms<'a>(row: impl Iterator<Item = &'a f32>) -> f32 {
    let (mut n, mut sum) = (0u32, 0f64);
    for &x in row {
        n += 1;
        sum += f64::from(x).powi(2);
    }
    (sum / f64::from(n.max(1))).sqrt() as f32
}

fn learn(cx: &Context, scales: &[f32], k: usize) -> Vec<f32> {
    let (rows, cols) = cx.matrix.dim();
    let diagonals = cx.diagonals();
    let per = diagonals.as_ref().map_or(rows, |d| rows / d.len().max(1)).max(1);
    let step = (rows * cols).div_ceil(LEARN).max(1);
    let (mut values, mut weights) = (Vec::new(), Vec::new());
    for at in (0..rows * cols).step_by(step) {
        let (r, c) = (at / cols, at % cols);
        if scales[r] > 0.0 {
            let d = diagonals.as_ref().and_then(|d| d.get(r / per)).map_or(1.0, |d| d[c]);
            values.push(cx.matrix[[r, c]] / scales[r]);
            weights.push((d * f64::from(scales[r]).powi(2)) as f32);
        }
    }
    let mut levels = kmeans::centres(&values, Some(&weights), k);
    if levels.is_empty() {
        levels = kmeans::centres(&values, None, k);
    }
    if k <= 16 {
        snap(&mut levels);
    }
    levels
}

/// Makes few entries whole multiples of 1/127 of the largest: nothing against the gaps between them, and the runtime
/// multiplies such entries as bytes.
fn snap(levels: &mut [f32]) {
    let unit = levels.iter().fold(0f32, |m, x| m.max(x.abs())) / 127.0;
    if unit > 0.0 {
        levels.iter_mut().for_each(|x| *x = (*x / unit).round() * unit);
    }
}
