//! Outlier smoothing: factors per channel that even out activations at the cost of weights (SmoothQuant; Xiao et al., arXiv
//! 2211.10438), the exponent chosen by the error of both once they are rounded to 8 bits.
//!
//! Multiplying weights by f and dividing activations by it is exact. With one step for all activations their error is
//! `step²/12·Σ f²·w²`, and rounded weights lose `step²/12·E[x²]/f²` per row and column.

use crate::layer::Role;
use crate::method::Context;
use crate::range::Choice;
use crate::stats::Stats;

/// Factors of channels, and the range of activations divided by them.
pub struct Smoothing {
    pub factors: Vec<f32>,
    /// Columns of the weight per channel.
    pub run: usize,
    pub range: [f32; 2],
}

/// Exponents of the largest activation of a channel against its largest weight.
const SHARES: [f64; 5] = [0.35, 0.5, 0.65, 0.8, 1.0];
/// Error that is left of one range for all channels for smoothing to be offered.
const PAYS: f64 = 0.7;

/// The factors of least error of weights and activations rounded to 8 bits, where it is much below that without factors.
pub fn smoothing(cx: &Context, stats: &Stats) -> Option<Smoothing> {
    let run = match cx.layer.role {
        Role::Conv if cx.layer.view.groups == 1 => {
            cx.layer.view.shape.iter().skip(2).product::<usize>().max(1)
        }
        Role::MatMul | Role::Gemm => 1,
        _ => return None,
    };
    let seen = stats.extremes(run).filter(|e| e.len() * run == cx.matrix.ncols())?;
    let top: Vec<f64> = seen.iter().map(|e| f64::from(e[1].max(-e[0]))).collect();
    let (mut weight, mut squares) = (vec![0f64; top.len()], vec![0f64; top.len()]);
    for ((_, c), &w) in cx.matrix.indexed_iter() {
        weight[c / run] = weight[c / run].max(f64::from(w.abs()));
        squares[c / run] += f64::from(w).powi(2);
    }
    let diagonal = stats.diagonals().into_iter().next()?;
    let activity: Vec<f64> = diagonal.chunks(run).map(|d| d.iter().sum()).collect();
    let range = |f: &[f64]| {
        let ends = seen.iter().zip(f).map(|(e, f)| e.map(|e| f64::from(e) / f));
        ends.fold([0f64; 2], |a, e| [a[0].min(e[0]), a[1].max(e[1])])
    };
    let loss = |f: &[f64]| {
        let [lo, hi] = range(f);
        let activations =
            ((hi - lo) / 255.0).powi(2) * squares.iter().zip(f).map(|(q, f)| q * f * f).sum::<f64>();
        let steps: f64 = cx
            .matrix
            .rows()
            .into_iter()
            .map(|r| r.indexed_iter().fold(0f64, |m, (c, &w)| m.max(f64::from(w.abs()) * f[c / run])))
            .map(|top| (top / 127.0).powi(2))
            .sum();
        activations + steps * activity.iter().zip(f).map(|(a, f)| a / (f * f)).sum::<f64>()
    };
    let usual = |v: &[f64]| v.iter().sum::<f64>() / v.len().max(1) as f64;
    let (least, small) = (1e-3 * usual(&top), 1e-3 * usual(&weight));
    if least <= 0.0 || small <= 0.0 {
        return None;
    }
    let factors = |share: f64| -> Vec<f64> {
        let of = |(t, w): (&f64, &f64)| t.max(least).powf(share) / w.max(small).powf(1.0 - share);
        let raw: Vec<f64> = top.iter().zip(&weight).map(of).collect();
        let middle = (raw.iter().map(|f| f.ln()).sum::<f64>() / raw.len().max(1) as f64).exp();
        raw.iter().map(|f| f64::from((f / middle) as f32)).collect()
    };
    let all = SHARES.map(|s| (loss(&factors(s)), s));
    let (best, share) = all.into_iter().min_by(|a, b| a.0.total_cmp(&b.0))?;
    let pays = best < PAYS * loss(&vec![1.0; top.len()]);
    let f = factors(share);
    // The extremes of channels are of some vectors only, those of the whole input of all.
    let (whole, found) = (stats.range.range(Choice::MinMax), range(&vec![1.0; top.len()]));
    let more = |all: f32, seen: f64| if seen != 0.0 { (f64::from(all) / seen).max(1.0) } else { 1.0 };
    let more = [more(whole.0, found[0]), more(whole.1, found[1])];
    let ends = range(&f);
    let range = [0, 1].map(|i| (ends[i] * more[i]) as f32);
    (pays && range.iter().all(|e| e.is_finite()) && f.iter().all(|f| f.is_finite() && *f > 0.0))
        .then(|| Smoothing { factors: f.into_iter().map(|f| f as f32).collect(), run, range })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::layers;
    use crate::method::Hopes;
    use crate::testing::{correlated, matrix};
    use ir::{Attrs, DType, Graph, Tensor, ValueType};

    fn smoothing_of(outlier: f32) -> Option<Smoothing> {
        let mut g = Graph::new("g");
        let x = g.add_input("x", ValueType::known(DType::F32, &[200, 24]));
        let w = matrix(24, 32, 1).into_raw_vec_and_offset().0;
        let w = g.add_initializer("w", Tensor::new(&[24, 32], w).unwrap());
        let y = g.apply("m", ops::standard("MatMul").unwrap(), Attrs::new(), &[x, w]);
        g.add_output("y", y);
        ir::infer(&mut g).unwrap();
        let layer = layers(&g).remove(0);
        let mut data = correlated(200, 24, 2);
        data.column_mut(5).mapv_inplace(|v| v * outlier);
        let mut stats = Stats::new(1, 24, 24);
        let data = data.into_raw_vec_and_offset().0;
        stats.push(&Tensor::new(&[200, 24], data).unwrap(), &layer.inputs[0].1, 24, 0).unwrap();
        let matrix = layer.view.matrix(&layer.tensor).unwrap();
        let stats_ref = Some(&stats);
        let cx = Context {
            graph: &g,
            layer: &layer,
            matrix: &matrix,
            stats: stats_ref,
            measure: stats_ref,
            compensate: true,
            hopes: Hopes::ALL,
            bases: &[],
        };
        smoothing(&cx, &stats)
    }

    #[test]
    fn an_outlier_is_divided_and_even_channels_are_left_alone() {
        let s = smoothing_of(60.0).unwrap();
        let usual = s.factors.iter().sum::<f32>() / 24.0;
        assert!(s.factors[5] > 3.0 * usual, "{:?}", s.factors);
        assert!(smoothing_of(1.0).is_none());
    }
}
