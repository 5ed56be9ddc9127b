//! Weights as entries of small tables, learned together with who uses which entry.
//!
//! Rows are first divided by a scale, so that one table serves the whole layer, or one of a few each group of rows (neurons)
//! of like distribution. Tables start as exact 1-D k-means, weighted by how active each input is; then assignments descend
//! on the layer's output error and entries follow them, in turn (jointly learned codebooks and mappings). Codes are 2, 4 or
//! 8 bits and decoding is Gather. Beats an integer grid where weights have heavy tails. Bound without data: half the gap
//! between neighbouring entries.

use crate::candidate::Candidate;
use crate::descent;
use crate::factor::Order;
use crate::fragment::table;
use crate::gptq::{Policy, Rounded};
use crate::kmeans;
use crate::layer::{Layer, Role};
use crate::method::{Context, Method, Refusal};
use crate::rounding::round;
use crate::stats::Stats;
use ir::Result;
use ndarray::Array2;

pub struct Codebook;

/// At most this many weights are looked at when a table is learned.
const LEARN: usize = 1 << 20;
/// (entries of a table, tables).
const FORMS: [(usize, usize); 5] = [(4, 1), (4, 4), (16, 1), (16, 4), (256, 1)];
/// Turns of rows looking for their table, and of assignments and entries.
const GROUPED: usize = 3;
const TURNS: usize = 2;
/// Rows of a group at least.
const FEWEST: usize = 8;

/// Tables, which of them each row reads, and each row's scale.
#[derive(Clone)]
struct Book {
    tables: Vec<Vec<f32>>,
    of: Vec<usize>,
    scales: Vec<f32>,
}

impl Policy for Book {
    fn round(&self, row: usize, _col: usize, x: f32) -> (u8, f32) {
        let (s, table) = (self.scales[row], &self.tables[self.of[row]]);
        let i = kmeans::nearest(table, if s > 0.0 { x / s } else { 0.0 });
        (i as u8, self.value(row, i as u8))
    }
}

impl Book {
    fn value(&self, row: usize, code: u8) -> f32 {
        self.tables[self.of[row]].get(usize::from(code)).copied().unwrap_or(0.0) * self.scales[row]
    }

    fn values(&self, codes: &Array2<u8>) -> Array2<f32> {
        Array2::from_shape_fn(codes.raw_dim(), |(r, c)| self.value(r, codes[[r, c]]))
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
        let least = |k: usize| match k {
            0..=4 => 10.0,
            5..=16 => 1.0,
            _ => 0.0,
        };
        let worth = |f: &&(usize, usize)| fits(&cx.layer.view, **f) && cx.hopes.allow(least(f.0));
        FORMS.iter().filter(worth).take_while(|_| cx.hopes.in_time()).map(|&f| candidate(cx, f)).collect()
    }

    fn candidate(&self, cx: &Context, recipe: &str) -> Result<Option<Candidate>> {
        let form = FORMS.iter().find(|&&f| fits(&cx.layer.view, f) && recipe == named(f));
        form.map(|&f| candidate(cx, f)).transpose()
    }
}

fn fits(view: &crate::view::View, (k, groups): (usize, usize)) -> bool {
    let pays = k * groups * 16 <= view.len() && (groups == 1 || view.rows >= groups * FEWEST);
    pays && (k > 4 || view.len().is_multiple_of(2))
}

fn named((k, groups): (usize, usize)) -> String {
    if groups == 1 {
        format!("codebook {k} entries")
    } else {
        format!("codebook {k} entries {groups} groups")
    }
}

fn candidate(cx: &Context, form: (usize, usize)) -> Result<Candidate> {
    let mut book = start(cx, form);
    let mut rounded = round(cx.matrix, cx.sweep(), Order::Activity, &book);
    if let Some(stats) = cx.sweep().filter(|_| form.0 <= 16) {
        let (other, end) = joined(cx.matrix, stats, &book, &rounded);
        if stats.error(&(cx.matrix - &end.values)) < stats.error(&(cx.matrix - &rounded.values)) {
            (book, rounded) = (other, end);
        }
    }
    let scales = Array2::from_shape_fn((book.scales.len(), 1), |(r, _)| book.scales[r]);
    let (name, view) = (&cx.layer.weight, &cx.layer.view);
    let fragment = table(name, view, &rounded.codes, &book.tables, &book.of, &scales)?;
    Ok(cx.weight("codebook", named(form), fragment, &rounded.values))
}

fn rms<'a>(row: impl Iterator<Item = &'a f32>) -> f32 {
    let (mut n, mut sum) = (0u32, 0f64);
    for &x in row {
        n += 1;
        sum += f64::from(x).powi(2);
    }
    (sum / f64::from(n.max(1))).sqrt() as f32
}

/// Tables by k-means on rows divided by their scale.
fn start(cx: &Context, (k, groups): (usize, usize)) -> Book {
    let scales: Vec<f32> = cx.matrix.rows().into_iter().map(|r| rms(r.iter())).collect();
    let mut book = Book { tables: Vec::new(), of: vec![0; scales.len()], scales };
    if groups > 1 {
        // The tail of a row against its bulk tells most of its distribution.
        let tail = |r: usize| {
            let s = f64::from(book.scales[r]).powi(2);
            let fourth = cx.matrix.row(r).iter().map(|&x| f64::from(x).powi(4)).sum::<f64>();
            if s > 0.0 { fourth / (s * s) } else { 0.0 }
        };
        let tails: Vec<f64> = (0..book.of.len()).map(tail).collect();
        let mut order: Vec<usize> = (0..tails.len()).collect();
        order.sort_by(|&a, &b| tails[a].total_cmp(&tails[b]).then(a.cmp(&b)));
        for (i, &r) in order.iter().enumerate() {
            book.of[r] = i * groups / order.len();
        }
    }
    for turn in 0..if groups > 1 { GROUPED } else { 1 } {
        if turn > 0 {
            regroup(cx, &mut book);
        }
        book.tables = (0..groups).map(|g| learn(cx, &book, g, k)).collect();
    }
    if k <= 16 {
        book.tables.iter_mut().for_each(|t| snap(t));
    }
    book
}

/// Every row to the table that serves it best.
fn regroup(cx: &Context, book: &mut Book) {
    let diagonals = cx.diagonals();
    for (r, row) in cx.matrix.rows().into_iter().enumerate() {
        let s = book.scales[r];
        if s <= 0.0 {
            continue;
        }
        let values: Vec<f32> = row.iter().map(|x| x / s).collect();
        let weights: Option<Vec<f32>> = diagonals
            .as_deref()
            .map(|d| group_of(d, r, cx.matrix.nrows()).iter().map(|&d| d as f32).collect());
        let cost = |t: &Vec<f32>| kmeans::cost(&values, weights.as_deref(), t);
        let costs: Vec<f64> = book.tables.iter().map(cost).collect();
        let best = (0..costs.len()).min_by(|&a, &b| costs[a].total_cmp(&costs[b]));
        book.of[r] = best.unwrap_or(book.of[r]);
    }
}

/// The weights of the columns that row `r` of `rows` reads.
fn group_of(diagonals: &[Vec<f64>], r: usize, rows: usize) -> &[f64] {
    let per = (rows / diagonals.len().max(1)).max(1);
    &diagonals[(r / per).min(diagonals.len() - 1)]
}

fn learn(cx: &Context, book: &Book, group: usize, k: usize) -> Vec<f32> {
    let (rows, cols) = cx.matrix.dim();
    let diagonals = cx.diagonals();
    let step = (rows * cols).div_ceil(LEARN).max(1);
    let (mut values, mut weights) = (Vec::new(), Vec::new());
    for at in (0..rows * cols).step_by(step) {
        let (r, c) = (at / cols, at % cols);
        if book.scales[r] > 0.0 && book.of[r] == group {
            let d = diagonals.as_deref().map_or(1.0, |d| group_of(d, r, rows)[c]);
            values.push(cx.matrix[[r, c]] / book.scales[r]);
            weights.push((d * f64::from(book.scales[r]).powi(2)) as f32);
        }
    }
    let mut levels = kmeans::centres(&values, Some(&weights), k);
    if levels.is_empty() {
        levels = kmeans::centres(&values, None, k);
    }
    if levels.is_empty() { vec![0.0] } else { levels }
}

/// Assignments and entries in turn, each moved only where the output error falls.
fn joined(w: &Array2<f32>, stats: &Stats, book: &Book, rounded: &Rounded) -> (Book, Rounded) {
    let mut book = book.clone();
    let mut end = descent::codes(w, stats, &book, rounded, false);
    for turn in 1..=TURNS {
        follow(w, stats, &mut book, &end);
        if turn == TURNS {
            book.tables.iter_mut().for_each(|t| snap(t));
        }
        end.values = book.values(&end.codes);
        end = descent::codes(w, stats, &book, &end, false);
    }
    (book, end)
}

/// Entries take one step towards the least output error of these assignments: along the slope over the curvature of each,
/// as far as pays for all together and no two entries change places.
fn follow(w: &Array2<f32>, stats: &Stats, book: &mut Book, end: &Rounded) {
    let slope = stats.apply(&(w - &end.values));
    let diagonals = stats.diagonals();
    let mut sums: Vec<Vec<[f64; 2]>> = book.tables.iter().map(|t| vec![[0.0; 2]; t.len()]).collect();
    for ((r, c), &code) in end.codes.indexed_iter() {
        let s = f64::from(book.scales[r]);
        if let Some(sum) = sums[book.of[r]].get_mut(usize::from(code)) {
            sum[0] += s * f64::from(slope[[r, c]]);
            sum[1] += s * s * group_of(&diagonals, r, w.nrows())[c];
        }
    }
    let way: Vec<Vec<f32>> = sums
        .iter()
        .map(|t| t.iter().map(|s| if s[1] > 0.0 { (s[0] / s[1]) as f32 } else { 0.0 }).collect())
        .collect();
    let along = Book { tables: way, ..book.clone() };
    let moved = along.values(&end.codes);
    let sum = |a: &Array2<f32>| a.iter().zip(&moved).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    let far = (sum(&slope) / sum(&stats.apply(&moved))) as f32;
    if !far.is_finite() {
        return;
    }
    // Any part of the way goes down too.
    for far in [far, 0.5 * far, 0.25 * far] {
        let step = |(t, w): (&f32, &f32)| t + far * w;
        let moved =
            |(table, way): (&Vec<f32>, &Vec<f32>)| table.iter().zip(way).map(step).collect::<Vec<f32>>();
        let new: Vec<Vec<f32>> = book.tables.iter().zip(&along.tables).map(moved).collect();
        if new.iter().all(|t| t.windows(2).all(|p| p[0] < p[1]) && t.iter().all(|x| x.is_finite())) {
            book.tables = new;
            return;
        }
    }
}

/// Makes few entries whole multiples of 1/127 of the largest: nothing against the gaps between them, and the runtime
/// multiplies such entries as bytes.
fn snap(levels: &mut [f32]) {
    let unit = levels.iter().fold(0f32, |m, x| m.max(x.abs())) / 127.0;
    if unit > 0.0 {
        levels.iter_mut().for_each(|x| *x = (*x / unit).round() * unit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gptq::nearest;
    use crate::gram::Gram;
    use crate::testing::{correlated, matrix};
    use proptest::prelude::*;

    fn book(rows: usize, entries: usize) -> Book {
        let table: Vec<f32> = (0..entries).map(|i| (i as f32 - entries as f32 / 2.0) * 0.6 + 0.1).collect();
        let other = table.iter().map(|x| x * 1.5).collect();
        Book { tables: vec![table, other], of: (0..rows).map(|r| r % 2).collect(), scales: vec![0.9; rows] }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn entries_follow_only_downhill(rows in 2usize..40, cols in 4usize..60, k in 2usize..12, seed in 0u64..9) {
            let w = matrix(rows, cols, seed);
            let mut g = Gram::new(cols, 4096);
            g.push(correlated(4 * cols, cols, seed).view());
            let stats = Stats::of(vec![g]);
            let mut book = book(rows, k);
            let mut end = nearest(w.view(), &book);
            let before = stats.error(&(&w - &end.values));
            let with_codes = |book: &Book, end: &Rounded| stats.error(&(&w - &book.values(&end.codes)));
            follow(&w, &stats, &mut book, &end);
            let after = with_codes(&book, &end);
            prop_assert!(after <= before * (1.0 + 1e-4), "{before} {after}");
            (book, end) = joined(&w, &stats, &book, &end);
            prop_assert!(end.codes.iter().all(|&c| usize::from(c) < k));
            prop_assert_eq!(&book.values(&end.codes), &end.values);
        }
    }

    #[test]
    fn learning_together_beats_k_means_and_compensation() {
        let w = matrix(64, 96, 3);
        let mut g = Gram::new(96, 4096);
        g.push(correlated(700, 96, 4).view());
        let stats = Stats::of(vec![g]);
        let table = kmeans::centres(&w.iter().copied().collect::<Vec<_>>(), None, 4);
        let book = Book { tables: vec![table], of: vec![0; 64], scales: vec![1.0; 64] };
        let start = round(&w, Some(&stats), Order::Activity, &book);
        let (_, end) = joined(&w, &stats, &book, &start);
        let error = |r: &Rounded| stats.error(&(&w - &r.values));
        assert!(error(&end) < 0.9 * error(&start), "{} of {}", error(&end), error(&start));
    }
}
