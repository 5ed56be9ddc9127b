//! A convolution as three: 1×1 into r₁ channels, the kernel from r₁ to r₂, 1×1 out (Tucker-2; Kim et al., arXiv
//! 1511.06530).
//!
//! Factors start as the leading singular vectors of the two channel unfoldings (HOSVD) and are improved in turn
//! (HOOI), which never raises the error. With data that happens in the norm of the inputs (`whiten`), and the kernel and the
//! last factor are the best there are for the first one under the full Gram matrix (reduced-rank regression). Stored as
//! floats or as int8. Wins on wide k×k kernels.

use crate::candidate::Candidate;
use crate::layer::{Layer, Role};
use crate::low_rank::WIDEST;
use crate::method::{Context, Method, Refusal, Serves};
use crate::product::dot;
use crate::replace::{NodeBuild, emit, splits};
use crate::spectrum::eigen;
use crate::view::View;
use crate::whiten::{Modes, left_of_channels, unit};
use ir::{Attrs, Result, ValueId};
use ndarray::{Array2, Array3, s};

pub struct Tucker;

/// Shares of both channel counts that are kept.
const SHARES: [f64; 5] = [0.25, 0.4, 0.55, 0.7, 0.85];
pub const SWEEPS: usize = 3;
/// Multiplications that a fit to the data may take.
pub const WORK: usize = 2_000_000_000;

/// `core ×₁ out ×₂ inp`: kernel (O × I × taps) ≈ Σ out·core·inpᵀ.
pub struct Factors {
    /// O × r₂, orthonormal columns.
    pub out: Array2<f64>,
    /// I × r₁, orthonormal columns.
    pub inp: Array2<f64>,
    /// r₂ × r₁ × taps.
    pub core: Array3<f64>,
}

/// All singular vectors of both unfoldings.
#[derive(Default)]
pub struct Start {
    out: Array2<f64>,
    inp: Array2<f64>,
}

impl Start {
    pub fn of(w: &Array3<f64>) -> Result<Start> {
        let (o, i, _) = w.dim();
        Ok(Start { out: leading(&unfold_out(w), o)?, inp: leading(&unfold_inp(w), i)? })
    }
}

impl Factors {
    /// Truncated HOSVD followed by `sweeps` of HOOI.
    #[cfg(test)]
    pub fn of(w: &Array3<f64>, r2: usize, r1: usize, sweeps: usize) -> Result<Factors> {
        Factors::from(w, &Start::of(w)?, r2, r1, sweeps)
    }

    /// As `Factors::of` from what is the same for all ranks.
    pub fn from(w: &Array3<f64>, start: &Start, r2: usize, r1: usize, sweeps: usize) -> Result<Factors> {
        let first = |u: &Array2<f64>, r: usize| u.slice(s![.., ..r.min(u.ncols())]).to_owned();
        let (mut out, mut inp) = (first(&start.out, r2), first(&start.inp, r1));
        for _ in 0..sweeps {
            out = leading(&unfold_out(&times_inp(w, &inp)), r2)?;
            inp = leading(&unfold_inp(&times_out(w, &out)), r1)?;
        }
        let core = times_inp(&times_out(w, &out), &inp);
        Ok(Factors { out, inp, core })
    }

    /// The kernel they stand for.
    pub fn product(&self) -> Array3<f64> {
        let up_out = times_out(&self.core, &self.out.t().to_owned());
        times_inp(&up_out, &self.inp.t().to_owned())
    }
}

/// Σ_o m[o, r]·w[o, ·, ·]
pub fn times_out(w: &Array3<f64>, m: &Array2<f64>) -> Array3<f64> {
    let (o, i, t) = w.dim();
    let flat = w.to_shape((o, i * t)).map(|f| dot(m.t(), f.view())).unwrap_or_default();
    flat.into_shape_with_order((m.ncols(), i, t)).unwrap_or_default()
}

/// Σ_i m[i, r]·w[·, i, ·]
pub fn times_inp(w: &Array3<f64>, m: &Array2<f64>) -> Array3<f64> {
    let (o, _, t) = w.dim();
    let mut y = Array3::zeros((o, m.ncols(), t));
    for k in 0..t {
        y.slice_mut(s![.., .., k]).assign(&dot(w.slice(s![.., .., k]), m.view()));
    }
    y
}

fn unfold_out(w: &Array3<f64>) -> Array2<f64> {
    let (o, i, t) = w.dim();
    w.to_shape((o, i * t)).map(|f| f.to_owned()).unwrap_or_default()
}

fn unfold_inp(w: &Array3<f64>) -> Array2<f64> {
    let (o, i, t) = w.dim();
    Array2::from_shape_fn((i, o * t), |(c, j)| w[[j / t, c, j % t]])
}

/// The first `r` left singular vectors.
fn leading(m: &Array2<f64>, r: usize) -> Result<Array2<f64>> {
    let (u, _) = eigen(&dot(m.view(), m.t()))?;
    Ok(u.slice(s![.., ..r.min(u.ncols())]).to_owned())
}

impl Method for Tucker {
    fn name(&self) -> &'static str {
        "tucker"
    }

    fn applies(&self, layer: &Layer, _stats: bool) -> Result<(), Refusal> {
        may_factor(layer)
    }

    fn serves(&self) -> Serves {
        Serves::Both
    }

    fn candidates(&self, cx: &Context) -> Result<Vec<Candidate>> {
        let (w, modes, white) = kernels(cx);
        let mut found = Vec::new();
        let starts = [Start::of(&w)?, white.as_ref().map_or(Ok(Start::default()), Start::of)?];
        for share in SHARES.into_iter().take_while(|_| cx.hopes.in_time()) {
            let of = Ranked { cx, w: &w, white: white.as_ref(), modes: &modes, starts: &starts, share };
            found.extend(of.forms(&[true, false])?);
        }
        Ok(found)
    }

    fn candidate(&self, cx: &Context, recipe: &str) -> Result<Option<Candidate>> {
        let named = |&share: &f64| {
            let [o, i] = ranks(&cx.layer.view, share);
            [false, true].iter().any(|&int8| recipe == recipe_of([o, i], int8))
        };
        let Some(share) = SHARES.into_iter().find(named) else { return Ok(None) };
        let (w, modes, white) = kernels(cx);
        let starts = [Start::of(&w)?, white.as_ref().map_or(Ok(Start::default()), Start::of)?];
        let of = Ranked { cx, w: &w, white: white.as_ref(), modes: &modes, starts: &starts, share };
        let int8 = recipe.ends_with("int8");
        Ok(of.forms(&[int8])?.into_iter().find(|c| c.recipe == recipe))
    }
}

/// Whether a layer can be factored like this.
pub fn may_factor(layer: &Layer) -> Result<(), Refusal> {
    let taps: usize = layer.view.shape.iter().skip(2).product();
    if layer.role != Role::Conv || !splits(layer) || taps < 2 {
        return Err(Refusal::new("only ungrouped convolutions with a kernel above 1×1 have this form"));
    }
    if layer.view.shape[0].min(layer.view.shape[1]) < 8 {
        return Err(Refusal::new("too few channels to factor"));
    }
    if layer.view.shape[0].max(layer.view.shape[1]) > WIDEST {
        return Err(Refusal::new(format!("factoring more than {WIDEST} channels takes too long")));
    }
    Ok(())
}

fn recipe_of([o, i]: [usize; 2], int8: bool) -> String {
    format!("tucker {i}×{o}{}", if int8 { " int8" } else { "" })
}

/// Channels of outputs and of inputs that are kept.
pub fn ranks(view: &View, share: f64) -> [usize; 2] {
    [view.shape[0], view.shape[1]].map(|n| ((n as f64 * share).round() as usize).clamp(1, n))
}

/// The kernel, how its data are whitened, and the whitened kernel where there are data.
fn kernels(cx: &Context) -> (Array3<f64>, Modes, Option<Array3<f64>>) {
    let (o, i) = (cx.layer.view.shape[0], cx.layer.view.shape[1]);
    let taps = cx.layer.view.cols / i.max(1);
    let w = Array3::from_shape_fn((o, i, taps), |(a, b, c)| f64::from(cx.matrix[[a, b * taps + c]]));
    let stats = cx.node_stats().filter(|s| s.grams.len() == 1);
    let modes = Modes::of(stats, i, taps);
    let white = stats.map(|_| modes.whitened(&w)).filter(|w| w.iter().all(|v| v.is_finite()));
    (w, modes, white)
}

/// One share of the channels.
struct Ranked<'a> {
    cx: &'a Context<'a>,
    w: &'a Array3<f64>,
    white: Option<&'a Array3<f64>>,
    modes: &'a Modes,
    starts: &'a [Start; 2],
    share: f64,
}

impl Ranked<'_> {
    /// As int8 and as floats, in this order, floats where they may be worth it.
    fn forms(&self, int8: &[bool]) -> Result<Vec<Candidate>> {
        let (cx, (_, i, taps)) = (self.cx, self.w.dim());
        let [r2, r1] = ranks(&cx.layer.view, self.share);
        let fits = r1 * taps * (i * taps).pow(2) <= WORK;
        let aware = match self.white.filter(|_| fits) {
            Some(white) => {
                let inp = Factors::from(white, &self.starts[1], r2, r1, SWEEPS)?.inp;
                let mut inp = self.modes.unwhitened(&inp, &Array2::eye(taps)).0;
                unit(&mut inp);
                Some(inp)
            }
            None => None,
        };
        // Without data, or where those cannot be used.
        let plain = match &aware {
            None => Some(Factors::from(self.w, &self.starts[0], r2, r1, SWEEPS)?),
            Some(_) => None,
        };
        let mut found: Vec<Candidate> = Vec::new();
        for &int8 in int8 {
            if !int8 && found.iter().any(|c| !cx.hopes.floats(c.error)) {
                continue;
            }
            let one = match (&aware, &plain) {
                (Some(inp), _) => candidate(cx, inp, int8, |inp| regressed(cx, inp, r2, taps))?,
                (None, Some(p)) => {
                    candidate(cx, &p.inp, int8, |_| Ok(Some((p.out.clone(), p.core.clone()))))?
                }
                (None, None) => None,
            };
            found.extend(one);
        }
        found.reverse();
        Ok(found)
    }
}

/// The last factor and the kernel, as in [`Factors`].
type Rest = (Array2<f64>, Array3<f64>);

/// The last factor and the kernel that lose least behind this first one; `None` where numbers overflow.
fn regressed(cx: &Context, inp: &Array2<f32>, rank: usize, taps: usize) -> Result<Option<Rest>> {
    let (r1, i) = inp.dim();
    debug_assert_eq!(i * taps, cx.matrix.ncols());
    let Some((all, own)) = left_of_channels(cx.matrix, inp, taps, cx.node_stats()) else { return Ok(None) };
    let outputs = dot(dot(all.view(), own.view()).view(), all.t());
    if outputs.iter().any(|v| !v.is_finite()) {
        return Ok(None);
    }
    let (u, _) = eigen(&outputs)?;
    let out = u.slice(s![.., ..rank.min(u.ncols())]).to_owned();
    let core = dot(out.t(), all.view());
    let core = Array3::from_shape_fn((out.ncols(), r1, taps), |(a, b, c)| core[[a, b * taps + c]]);
    Ok(Some((out, core)))
}

/// The first factor (I × r₁), stored, and what `rest` makes of it (r₁ × I): the last factor and the kernel.
fn candidate(
    cx: &Context,
    inp: &Array2<f64>,
    int8: bool,
    rest: impl Fn(&Array2<f32>) -> Result<Option<Rest>>,
) -> Result<Option<Candidate>> {
    let Some(mut n) = NodeBuild::new(cx)? else { return Ok(None) };
    let axes = cx.layer.view.shape.len();
    let first = inp.t().mapv(|v| v as f32).as_standard_layout().into_owned();
    let (inp_id, inp) = emit(&mut n.b, "i", &pointwise(axes, inp.ncols(), inp.nrows()), first, int8)?;
    let Some((out, core)) = rest(&inp)? else { return Ok(None) };
    let (r2, r1, _) = core.dim();
    let (core_id, core) = emit_core(cx, &mut n, &core, int8)?;
    let out = out.mapv(|v| v as f32);
    let (out_id, out) = emit(&mut n.b, "o", &pointwise(axes, out.nrows(), r2), out, int8)?;
    let y = chain(cx, &mut n, inp_id, core_id, out_id)?;
    let fragment = n.b.finish(&[y])?;
    let decoded = decoded(&inp, core, &out);
    Ok(Some(cx.node("tucker", recipe_of([r2, r1], int8), fragment, &decoded)))
}

/// Stores a kernel between factors and returns what it decodes to.
pub fn emit_core(
    cx: &Context,
    n: &mut NodeBuild,
    core: &Array3<f64>,
    int8: bool,
) -> Result<(ValueId, Array3<f64>)> {
    let (r2, r1, taps) = core.dim();
    let flat = Array2::from_shape_fn((r2, r1 * taps), |(a, b)| core[[a, b / taps, b % taps]] as f32);
    let mut shape = cx.layer.view.shape.clone();
    (shape[0], shape[1]) = (r2, r1);
    let (id, flat) = emit(&mut n.b, "c", &View::leading(&shape, 1), flat, int8)?;
    Ok((id, Array3::from_shape_fn((r2, r1, taps), |(a, b, c)| f64::from(flat[[a, b * taps + c]]))))
}

/// The matrix that stored factors (r₁ × I and O × r₂) stand for with the kernel between them.
pub fn decoded(inp: &Array2<f32>, core: Array3<f64>, out: &Array2<f32>) -> Array2<f32> {
    let taps = core.dim().2;
    let stored = Factors { out: out.mapv(f64::from), inp: inp.t().mapv(f64::from), core };
    let product = stored.product();
    Array2::from_shape_fn((out.nrows(), inp.ncols() * taps), |(a, b)| product[[a, b / taps, b % taps]] as f32)
}

/// A factor as the weight of a convolution of 1×1, in a tensor of so many axes.
pub fn pointwise(axes: usize, rows: usize, cols: usize) -> View {
    let mut shape = vec![1; axes];
    (shape[0], shape[1]) = (rows, cols);
    View::leading(&shape, 1)
}

/// The node as three; returns its output.
pub fn chain(cx: &Context, n: &mut NodeBuild, inp: ValueId, core: ValueId, out: ValueId) -> Result<ValueId> {
    let node = cx.graph.node(cx.layer.node)?;
    let a = n.b.op("Conv", "h1", Attrs::new(), &[n.x, inp])?;
    let b = n.b.op("Conv", "h2", node.attrs.clone(), &[a, core])?;
    let inputs: Vec<ValueId> = [b, out].into_iter().chain(n.bias).collect();
    n.b.op("Conv", "y", Attrs::new(), &inputs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::matrix;

    fn kernel(o: usize, i: usize, t: usize) -> Array3<f64> {
        let m = matrix(o, i * t, 3);
        Array3::from_shape_fn((o, i, t), |(a, b, c)| f64::from(m[[a, b * t + c]]))
    }

    fn error(w: &Array3<f64>, f: &Factors) -> f64 {
        (w - &f.product()).iter().map(|d| d * d).sum()
    }

    #[test]
    fn full_rank_is_exact_and_hooi_never_worsens() {
        let w = kernel(10, 8, 9);
        assert!(error(&w, &Factors::of(&w, 10, 8, 0).unwrap()) < 1e-18);
        let errors: Vec<f64> = (0..4).map(|n| error(&w, &Factors::of(&w, 5, 3, n).unwrap())).collect();
        assert!(errors.windows(2).all(|e| e[1] <= e[0] + 1e-9), "{errors:?}");
        assert!(errors[3] < errors[0]);
    }

    #[test]
    fn a_kernel_of_low_rank_is_found_exactly() {
        let f = Factors {
            out: kernel(12, 3, 1).index_axis(ndarray::Axis(2), 0).to_owned(),
            inp: kernel(9, 2, 1).index_axis(ndarray::Axis(2), 0).to_owned(),
            core: kernel(3, 2, 9),
        };
        let w = f.product();
        let power: f64 = w.iter().map(|v| v * v).sum();
        assert!(error(&w, &Factors::of(&w, 3, 2, 1).unwrap()) < 1e-10 * power);
    }
}
