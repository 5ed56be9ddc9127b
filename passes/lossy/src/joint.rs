//! Several convolutions of one shape with one pair of factors: 1×1 into r₁ channels and 1×1 out of r₂ are the same for all,
//! each has a kernel of its own between them.
//!
//! Kernels side by side along their taps are one kernel, and its Tucker-2 form is what loses least of all of them together:
//! HOSVD and HOOI are those of `tucker`. With data, kernels are whitened by the mean second moments of all layers' inputs,
//! and count by the share they lose. A layer's own kernel is the best there is between the stored factors, by its own
//! inputs. Wins where residual blocks of one width read and write the same few directions.

use crate::basis::Basis;
use crate::candidate::Candidate;
use crate::layer::{Bias, Layer};
use crate::method::{Context, Method, Refusal};
use crate::product::dot;
use crate::replace::NodeBuild;
use crate::stats::Stats;
use crate::tucker::{
    Factors, SWEEPS, Start, WORK, chain, decoded, emit_core, may_factor, ranks, times_inp, times_out,
};
use crate::whiten::{Modes, left_of_channels, solve, unit};
use ir::{Result, ValueId};
use ndarray::{Array2, Array3, Axis, concatenate};
use rayon::prelude::*;
use std::collections::BTreeMap;

pub struct Joint;

/// Shares of both channel counts that are kept.
const SHARES: [f64; 4] = [0.125, 0.25, 0.4, 0.55];
/// Numbers in the kernels of one group.
const ENTRIES: usize = 1 << 23;
/// Factor by which the estimate of an error may be too large.
const ESTIMATE: f64 = 4.0;

/// A layer that may share factors, with the statistics of its input.
pub type Member<'a> = (&'a Layer, Option<&'a Stats>);

/// Layers that may share factors, by their place among `layers`: at least two of one shape.
pub fn groups(layers: &[Layer]) -> Vec<Vec<usize>> {
    let mut of: BTreeMap<&[usize], Vec<usize>> = BTreeMap::new();
    for (i, l) in layers.iter().enumerate() {
        if l.path.is_empty() && may_factor(l).is_ok() {
            of.entry(&l.view.shape).or_default().push(i);
        }
    }
    let entries = |g: &[usize]| g.iter().map(|&i| layers[i].tensor.len()).sum::<usize>();
    of.into_values().filter(|g| g.len() > 1 && entries(g) <= ENTRIES).collect()
}

/// Factors for these layers of one shape, in pairs: as int8, then as floats.
pub fn bases(members: &[Member]) -> Result<Vec<Basis>> {
    let Some((first, _)) = members.first() else { return Ok(Vec::new()) };
    let shape = &first.view.shape;
    let (i, taps) = (shape[1], shape[2..].iter().product());
    let modes = modes(members, i, taps);
    let mut kernels = Vec::new();
    for (layer, _) in members {
        let white = modes.whitened(&kernel(&layer.view.matrix(&layer.tensor)?, taps));
        layer.tensor.release();
        let power: f64 = white.iter().map(|v| v * v).sum();
        if !power.is_finite() {
            return Ok(Vec::new());
        }
        kernels.push(if power > 0.0 { white / power.sqrt() } else { white });
    }
    let all = side_by_side(&kernels);
    let start = Start::of(&all)?;
    let mut pairs: Vec<[usize; 2]> = SHARES.iter().map(|&s| ranks(&first.view, s)).collect();
    pairs.dedup();
    let found = pairs.par_iter().map(|&[r2, r1]| -> Result<Vec<Basis>> {
        let f = Factors::from(&all, &start, r2, r1, SWEEPS)?;
        let left_out: BTreeMap<ValueId, f64> =
            members.iter().zip(&kernels).map(|((l, _), k)| (l.value, left_out(k, &f))).collect();
        let mut inp = modes.unwhitened(&f.inp, &Array2::eye(taps)).0;
        unit(&mut inp);
        let single = |m: Array2<f64>| m.mapv(|v| v as f32).as_standard_layout().into_owned();
        let stored = [single(inp.reversed_axes()), single(f.out)];
        if stored.iter().flatten().any(|v| !v.is_finite()) {
            return Ok(Vec::new());
        }
        let store = |int8: bool| {
            let mut b = Basis::store(&first.weight, members.len(), shape.len(), stored.clone(), int8)?;
            b.left_out.clone_from(&left_out);
            Ok(b)
        };
        [true, false].into_iter().map(store).collect()
    });
    Ok(found.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// How all inputs are whitened: not at all where those of one layer are not known.
fn modes(members: &[Member], channels: usize, taps: usize) -> Modes {
    let mut seen = Vec::new();
    for (layer, stats) in members {
        match (stats, layer.bias) {
            (None, _) => return Modes::of(None, channels, taps),
            (Some(s), Some(Bias::Constant(_))) => seen.push(s.centered()),
            (Some(s), _) => seen.push(*s),
        }
    }
    Modes::over(&seen, channels, taps)
}

fn kernel(matrix: &Array2<f32>, taps: usize) -> Array3<f64> {
    let (o, cols) = matrix.dim();
    Array3::from_shape_fn((o, cols / taps, taps), |(a, b, c)| f64::from(matrix[[a, b * taps + c]]))
}

/// Kernels of one shape as one with the taps of all.
fn side_by_side(kernels: &[Array3<f64>]) -> Array3<f64> {
    let views: Vec<_> = kernels.iter().map(|k| k.view()).collect();
    concatenate(Axis(2), &views).unwrap_or_default()
}

/// Share of a kernel's power outside of the factors, which are orthonormal here.
fn left_out(kernel: &Array3<f64>, f: &Factors) -> f64 {
    let square = |m: &Array3<f64>| m.iter().map(|v| v * v).sum::<f64>();
    let whole = square(kernel);
    let inside = square(&times_inp(&times_out(kernel, &f.out), &f.inp));
    if whole > 0.0 { (1.0 - inside / whole).max(0.0) } else { 0.0 }
}

impl Method for Joint {
    fn name(&self) -> &'static str {
        "joint"
    }

    fn applies(&self, layer: &Layer, _stats: bool) -> Result<(), Refusal> {
        if !layer.path.is_empty() {
            return Err(Refusal::new("layers of subgraphs share no factors"));
        }
        may_factor(layer)
    }

    fn shares(&self) -> bool {
        true
    }

    fn candidates(&self, cx: &Context) -> Result<Vec<Candidate>> {
        if cx.bases.is_empty() {
            return Ok(Vec::new());
        }
        let power = cx.node_power();
        let (mut found, mut int8) = (Vec::new(), f64::INFINITY);
        for basis in cx.bases.iter().take_while(|_| cx.hopes.in_time()) {
            let left = basis.left_out.get(&cx.layer.value).copied().unwrap_or(0.0);
            let worth = if basis.int8 { true } else { cx.hopes.floats(int8) };
            int8 = f64::INFINITY;
            if !worth || left * power > ESTIMATE * cx.hopes.most {
                continue;
            }
            let c = candidate(cx, basis)?;
            int8 = c.as_ref().map_or(f64::INFINITY, |c| c.error);
            found.extend(c);
        }
        Ok(found)
    }

    fn candidate(&self, cx: &Context, recipe: &str) -> Result<Option<Candidate>> {
        let basis = cx.bases.iter().find(|b| recipe_of(b) == recipe);
        Ok(basis.map(|b| candidate(cx, b)).transpose()?.flatten())
    }
}

fn recipe_of(b: &Basis) -> String {
    let [i, o] = b.ranks();
    format!("joint tucker {i}×{o}{}", if b.int8 { " int8" } else { "" })
}

fn candidate(cx: &Context, basis: &Basis) -> Result<Option<Candidate>> {
    let Some(core) = core(cx, basis) else { return Ok(None) };
    let Some(mut n) = NodeBuild::new(cx)? else { return Ok(None) };
    let [inp, out] = basis.emit(&mut n.b)?;
    let (core_id, core) = emit_core(cx, &mut n, &core, basis.int8)?;
    let y = chain(cx, &mut n, inp, core_id, out)?;
    let fragment = n.b.finish(&[y, inp, out])?;
    let decoded = decoded(&basis.inp, core, &basis.out);
    let c = cx.node("joint", recipe_of(basis), fragment, &decoded);
    let bytes = c.bytes.saturating_sub(basis.common.bytes) + basis.common.part();
    Ok(Some(Candidate { bytes, common: Some(basis.common), ..c }))
}

/// The kernel that loses least between stored factors; `None` where numbers overflow.
fn core(cx: &Context, basis: &Basis) -> Option<Array3<f64>> {
    let ([r1, r2], i) = (basis.ranks(), basis.inp.ncols());
    let taps = cx.matrix.ncols() / i.max(1);
    let fits = r1 * taps * (i * taps).pow(2) <= WORK;
    let stats = cx.node_stats().filter(|s| fits && s.grams.len() == 1);
    let (all, _) = left_of_channels(cx.matrix, &basis.inp, taps, stats)?;
    let out = basis.out.mapv(f64::from);
    let own = dot(out.t(), out.view());
    let core = solve(&dot(all.t(), out.view()), &own, 1e-9)?;
    Some(Array3::from_shape_fn((r2, r1, taps), |(a, b, c)| core[[b * taps + c, a]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::matrix;

    fn random(o: usize, i: usize, t: usize, seed: u64) -> Array3<f64> {
        kernel(&matrix(o, i * t, seed), t)
    }

    fn error(kernels: &[Array3<f64>], f: &Factors) -> f64 {
        (&side_by_side(kernels) - &f.product()).iter().map(|d| d * d).sum()
    }

    #[test]
    fn factors_that_are_shared_are_found_exactly() {
        let flat = |m: Array3<f64>| m.index_axis(Axis(2), 0).to_owned();
        let (out, inp) = (flat(random(14, 4, 1, 1)), flat(random(12, 3, 1, 2)));
        let of = |seed| Factors { out: out.clone(), inp: inp.clone(), core: random(4, 3, 9, seed) }.product();
        let kernels: Vec<_> = (3..8).map(of).collect();
        let f = Factors::of(&side_by_side(&kernels), 4, 3, 1).unwrap();
        let power: f64 = kernels.iter().flatten().map(|v| v * v).sum();
        assert!(error(&kernels, &f) < 1e-10 * power);
        assert!(kernels.iter().all(|k| left_out(k, &f) < 1e-10));
    }

    #[test]
    fn sweeps_never_worsen_and_factors_of_ones_own_are_no_worse() {
        let kernels: Vec<_> = (1..5).map(|seed| random(10, 12, 9, seed)).collect();
        let all = side_by_side(&kernels);
        let errors: Vec<f64> =
            (0..4).map(|n| error(&kernels, &Factors::of(&all, 5, 4, n).unwrap())).collect();
        assert!(errors.windows(2).all(|e| e[1] <= e[0] + 1e-9) && errors[3] < errors[0], "{errors:?}");
        // Each by itself may do at least what it does with the others.
        let f = Factors::of(&all, 5, 4, SWEEPS).unwrap();
        let whole: f64 = kernels.iter().flatten().map(|v| v * v).sum();
        let left: f64 = kernels.iter().map(|k| left_out(k, &f) * k.iter().map(|v| v * v).sum::<f64>()).sum();
        assert!((left / error(&kernels, &f) - 1.0).abs() < 1e-9 && left < whole);
        let own: f64 = kernels
            .iter()
            .map(|k| {
                let f = Factors::of(k, 5, 4, SWEEPS).unwrap();
                (k - &f.product()).iter().map(|d| d * d).sum::<f64>()
            })
            .sum();
        assert!(own <= left, "{own} {left}");
    }
}
