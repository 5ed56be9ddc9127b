//! Weights as integers of 2 to 8 bits with scales per output row or per block of inputs.
//!
//! 8 and 4 bits are one DequantizeLinear (blocked from opset 21 on). 7 = 4 + 2 + 1 bits, 6 = 4 + 2, 5 = 4 + 1,
//! 3 = 2 + 1: the parts are 4-bit tensors, narrow ones read through a table that gives several codes per index. Rounding is
//! error-compensated when calibration data exist (GPTQ) and, of few bits, learned from there together with the scales
//! (`descent`), else nearest with error-minimising scales. Bound: |w − ŵ| ≤ scale/2 inside the range when not compensated.
//!
//! `int3-columns` and `int4-columns` have a factor per column besides: inputs whose weights are large give them to the factor, so that all share
//! one range. That is cross-layer equalisation (Nagel et al., arXiv 1906.04721; AWQ, arXiv 2306.00978) kept in the layer:
//! exact whatever the layer before is, for 2 bytes a column.

use crate::candidate::Candidate;
use crate::factor::Order;
use crate::fragment::{integers, packing};
use crate::gptq::{Policy, Rounded};
use crate::layer::{Layer, Role};
use crate::method::{Context, Method, Refusal, Serves};
use crate::quant::{Grid, fits_half, grid, refit, stored_scale};
use crate::rounding::{learned, round};
use half::f16;
use ir::Result;
use ndarray::Array2;

/// Roundings of wider integers lose too little for learning to show.
const LEARNED: u32 = 4;

/// Weight-only integers of one width.
pub struct Integer {
    name: &'static str,
    bits: u32,
    /// Columns per scale, tried beside one scale per row.
    blocks: &'static [usize],
    /// With a factor per column.
    columns: bool,
}

pub static INT8_WEIGHT: Integer = Integer { name: "int8-weight", bits: 8, blocks: &[32, 16], columns: false };
pub static INT7: Integer = Integer { name: "int7", bits: 7, blocks: &[], columns: false };
pub static INT6: Integer = Integer { name: "int6", bits: 6, blocks: &[], columns: false };
pub static INT5: Integer = Integer { name: "int5", bits: 5, blocks: &[64], columns: false };
pub static INT4: Integer = Integer { name: "int4", bits: 4, blocks: &[128, 64, 32], columns: false };
pub static INT3: Integer = Integer { name: "int3", bits: 3, blocks: &[64, 32], columns: false };
pub static INT2: Integer = Integer { name: "int2", bits: 2, blocks: &[32, 16], columns: false };

pub static INT4_COLUMNS: Integer = columned("int4-columns", 4);
pub static INT3_COLUMNS: Integer = columned("int3-columns", 3);

const fn columned(name: &'static str, bits: u32) -> Integer {
    Integer { name, bits, blocks: &[], columns: true }
}

/// Exponents of the largest and of the root mean square weight of a column that are tried as its factor.
const FACTORS: [[f64; 2]; 2] = [[0.5, 0.0], [0.0, 1.0]];
/// Rows that make a factor per column cheap.
const ROWS: usize = 16;

impl Method for Integer {
    fn name(&self) -> &'static str {
        self.name
    }

    fn applies(&self, layer: &Layer, _stats: bool) -> Result<(), Refusal> {
        if !layer.view.len().is_multiple_of(packing(self.bits)) {
            return Err(Refusal::new(format!(
                "{} elements do not pack in {} bits",
                layer.view.len(),
                self.bits
            )));
        }
        if layer.role == Role::Constant && self.bits < 8 && layer.view.rows == 1 {
            return Err(Refusal::new("a vector has one range for all entries"));
        }
        if self.columns
            && (layer.view.groups > 1 || layer.view.run < layer.view.cols || layer.view.rows < ROWS)
        {
            return Err(Refusal::new("columns that are shared by few rows need no factors"));
        }
        Ok(())
    }

    fn serves(&self) -> Serves {
        // Products of few rows read packed weights; the narrower forms take more work to unpack.
        if matches!(self.bits, 4 | 8) && !self.columns { Serves::Both } else { Serves::Bytes }
    }

    fn candidates(&self, cx: &Context) -> Result<Vec<Candidate>> {
        if !cx.hopes.allow(self.least()) {
            return Ok(Vec::new());
        }
        let widths = self.widths(cx).into_iter().take_while(|_| cx.hopes.in_time());
        widths.map(|block| self.of(cx, block)).collect()
    }

    fn candidate(&self, cx: &Context, recipe: &str) -> Result<Option<Candidate>> {
        let named = |&block: &usize| {
            let blocked = block < cx.layer.view.cols;
            if blocked { recipe == format!("{} block {block}", self.name) } else { recipe == self.name }
        };
        self.widths(cx).into_iter().find(named).map(|block| self.of(cx, block)).transpose()
    }
}

impl Integer {
    /// The least error of all blocks, as a multiple of that of 5 bits with a scale per row.
    fn least(&self) -> f64 {
        match self.bits {
            4 => 1.2,
            3 => 4.0,
            2 => 12.0,
            _ => 0.0,
        }
    }

    /// Columns per scale that are tried.
    fn widths(&self, cx: &Context) -> Vec<usize> {
        let cols = cx.layer.view.cols;
        let more = self.blocks.iter().copied().filter(|&b| self.fits(cols, b));
        std::iter::once(cols).chain(more).collect()
    }

    fn fits(&self, cols: usize, block: usize) -> bool {
        cols >= 2 * block && (self.bits == 4 || cols.is_multiple_of(block))
    }

    fn of(&self, cx: &Context, block: usize) -> Result<Candidate> {
        let view = &cx.layer.view;
        let mut grid =
            if self.columns { columns_grid(cx, self.bits) } else { grouped_grid(cx, self.bits, block) };
        let mut rounded;
        match cx.sweep().filter(|_| self.bits <= LEARNED) {
            Some(stats) => (rounded, grid) = learned(cx.matrix, stats, grid),
            None => {
                rounded = round(cx.matrix, cx.sweep(), Order::Activity, &grid);
                if grid.scales.ncols() == 1 && !self.columns && cx.measure.is_some() {
                    rescale(cx, &mut grid, &mut rounded);
                }
            }
        }
        let fragment = integers(&cx.layer.weight, view, &rounded, &grid)?;
        let recipe = match grid.scales.ncols() {
            1 => self.name.to_string(),
            _ => format!("{} block {block}", self.name),
        };
        Ok(cx.weight(self.name, recipe, fragment, &rounded.values))
    }
}

/// A scale per row and a factor per column, of those that are tried the ones of least weighted error.
fn columns_grid(cx: &Context, bits: u32) -> Grid {
    let (rows, cols) = cx.matrix.dim();
    let diagonal = cx.diagonals().and_then(|d| d.first().cloned());
    let weight = |c: usize| diagonal.as_ref().map_or(1.0, |d| d[c]);
    let (mut top, mut rms) = (vec![0f64; cols], vec![0f64; cols]);
    for ((_, c), &w) in cx.matrix.indexed_iter() {
        top[c] = top[c].max(f64::from(w.abs()));
        rms[c] += f64::from(w).powi(2) / rows as f64;
    }
    let mut best: Option<(f64, Grid)> = None;
    for [of_top, of_rms] in FACTORS {
        let raw: Vec<f64> = (0..cols).map(|c| top[c].powf(of_top) * rms[c].sqrt().powf(of_rms)).collect();
        let some: Vec<f64> = raw.iter().filter(|f| **f > 0.0).map(|f| f.ln()).collect();
        let middle = (some.iter().sum::<f64>() / some.len().max(1) as f64).exp();
        let factor = |f: &f64| f16::from_f64((f / middle).clamp(1e-3, 1e3)).to_f32();
        let columns: Vec<f32> = raw.iter().map(factor).collect();
        let even = Array2::from_shape_fn((rows, cols), |(r, c)| cx.matrix[[r, c]] / columns[c]);
        let d: Vec<f64> = (0..cols).map(|c| weight(c) * f64::from(columns[c]).powi(2)).collect();
        let g = Grid { columns, ..grid(even.view(), bits, cols, Some(&d), false) };
        let loss =
            |((r, c), &w): ((usize, usize), &f32)| weight(c) * f64::from(w - g.round(r, c, w).1).powi(2);
        let loss: f64 = cx.matrix.indexed_iter().map(loss).sum();
        if best.as_ref().is_none_or(|b| loss < b.0) {
            best = Some((loss, g));
        }
    }
    best.map_or_else(|| grouped_grid(cx, bits, cols), |b| b.1)
}

/// Scales of least error under each group's input statistics; stored in half precision where they are many.
fn grouped_grid(cx: &Context, bits: u32, block: usize) -> Grid {
    let want_half = block < 64;
    let make = |half: bool| {
        let Some(diagonals) = cx.diagonals() else { return grid(cx.matrix.view(), bits, block, None, half) };
        let per = cx.matrix.nrows() / diagonals.len().max(1);
        let parts: Vec<Grid> = diagonals
            .iter()
            .enumerate()
            .map(|(i, d)| {
                grid(cx.matrix.slice(ndarray::s![i * per..(i + 1) * per, ..]), bits, block, Some(d), half)
            })
            .collect();
        let cols = parts.first().map_or(1, |g| g.scales.ncols());
        let scales = Array2::from_shape_fn((cx.matrix.nrows(), cols), |(r, b)| {
            parts[r / per.max(1)].scales[[r % per.max(1), b]]
        });
        Grid { bits, block: block.clamp(1, cx.matrix.ncols().max(1)), scales, half, columns: Vec::new() }
    };
    let g = make(want_half);
    if want_half && !fits_half(&g.scales) { make(false) } else { g }
}

/// Refits each row's scale to the codes and keeps it when the measured error falls.
fn rescale(cx: &Context, grid: &mut Grid, rounded: &mut Rounded) {
    let Some(stats) = cx.measure else { return };
    let offset = grid.offset() as f32;
    let codes = rounded.codes.mapv(|c| f32::from(c) - offset);
    let old: Vec<f32> = grid.scales.iter().copied().collect();
    let new: Vec<f32> = refit(cx.matrix.view(), &codes, &stats.apply(&codes), &old)
        .into_iter()
        .map(|s| stored_scale(s, grid.half))
        .collect();
    let values = Array2::from_shape_fn(codes.raw_dim(), |(r, c)| codes[[r, c]] * new[r]);
    if stats.error(&(cx.matrix - &values)) < stats.error(&(cx.matrix - &rounded.values)) {
        rounded.values = values;
        grid.scales.column_mut(0).iter_mut().zip(&new).for_each(|(s, &n)| *s = n);
    }
}
