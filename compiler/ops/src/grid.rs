//! Sampling at fractional positions: GridSample, and AffineGrid that makes its grids.

use crate::arith::{Real, by_real};
use crate::index::strides;
use crate::typing::{one, tensor_type};
use crate::window::check_product;
use crate::{Op, schema};
use ir::{
    Accuracy, Attrs, Dim, Error, EvalCx, InferCx, Operator, Result, Shape, Tensor, Value, ValueType, budget,
};
use smallvec::SmallVec;

pub static OPERATORS: &[&dyn Operator] = &[
    &Op::new("GridSample", &schema::GRID_SAMPLE, infer_sample, eval_sample).accuracy(Accuracy::Accumulated),
    &Op::new("AffineGrid", &schema::AFFINE_GRID, infer_affine, eval_affine),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Nearest,
    Linear,
    Cubic,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Padding {
    Zeros,
    Border,
    Reflection,
}

/// Elements of one axis and their weights.
type Taps = SmallVec<[(usize, f64); 4]>;
/// Points that are sampled together.
const POINTS: usize = 512;

/// How positions become weighted elements.
#[derive(Debug, Clone, Copy)]
struct Sampler {
    mode: Mode,
    padding: Padding,
    align_corners: bool,
}

/// Elements that one sample may read; beyond this the rank is refused.
const MAX_TAPS: usize = 1 << 12;

impl Sampler {
    fn parse(attrs: &Attrs) -> Result<Sampler> {
        let mode = match attrs.str_or("mode", "linear")? {
            "nearest" => Mode::Nearest,
            "linear" | "bilinear" => Mode::Linear,
            "cubic" | "bicubic" => Mode::Cubic,
            m => return Err(Error::model(format!("mode '{}' is not known", m.escape_debug()))),
        };
        let padding = match attrs.str_or("padding_mode", "zeros")? {
            "zeros" => Padding::Zeros,
            "border" => Padding::Border,
            "reflection" => Padding::Reflection,
            p => return Err(Error::model(format!("padding_mode '{}' is not known", p.escape_debug()))),
        };
        Ok(Sampler { mode, padding, align_corners: attrs.int_or("align_corners", 0)? != 0 })
    }

    /// Element coordinate of a normalised one along an axis of `n` elements.
    fn denormalize(self, x: f64, n: usize) -> f64 {
        let n = n as f64;
        if self.align_corners { (x + 1.0) / 2.0 * (n - 1.0) } else { ((x + 1.0) * n - 1.0) / 2.0 }
    }

    fn borders(self, n: usize) -> (f64, f64) {
        let n = n as f64;
        if self.align_corners { (0.0, n - 1.0) } else { (-0.5, n - 0.5) }
    }

    /// Elements and weights at element coordinate `x` of an axis of `n` elements.
    fn taps(self, x: f64, n: usize) -> Taps {
        // Indices of far coordinates must stay computable.
        let x = x.clamp(-1e15, 1e15);
        let x = if self.mode == Mode::Nearest { x.round_ties_even() } else { x };
        let (low, high) = self.borders(n);
        let x = match self.padding {
            _ if (low..=high).contains(&x) => x,
            Padding::Zeros => x,
            Padding::Border => x.clamp(0.0, n as f64 - 1.0),
            Padding::Reflection => reflect(x, low, high),
        };
        let floor = x.floor();
        let weights: &[f64] = match self.mode {
            Mode::Nearest => &[1.0],
            Mode::Linear => &[1.0 - (x - floor), x - floor],
            Mode::Cubic => &cubic(x - floor),
        };
        let first = floor as i64 - i64::from(self.mode == Mode::Cubic);
        let tap = |(k, &w): (usize, &f64)| Some((self.pixel(first + k as i64, n)?, w));
        weights.iter().enumerate().filter_map(tap).collect()
    }

    /// The element that stands for index `i`, or none where zero does.
    fn pixel(self, i: i64, n: usize) -> Option<usize> {
        let last = n as i64 - 1;
        match self.padding {
            Padding::Zeros => usize::try_from(i).ok().filter(|&i| i < n),
            Padding::Border => Some(i.clamp(0, last) as usize),
            Padding::Reflection => {
                let (low, high) = self.borders(n);
                Some((reflect(i as f64, low, high) as i64).clamp(0, last) as usize)
            }
        }
    }
}

fn reflect(x: f64, low: f64, high: f64) -> f64 {
    let range = high - low;
    if range <= 0.0 {
        return low;
    }
    let (outside, below) = if x < low { (low - x, true) } else { (x - high, false) };
    if outside <= 0.0 {
        return x;
    }
    let flips = (outside / range).floor();
    let rest = outside - flips * range;
    if (flips % 2.0 == 0.0) == below { low + rest } else { high - rest }
}

/// Weights of the four neighbours (Keys, 1981, a = −0.75).
fn cubic(x: f64) -> [f64; 4] {
    const A: f64 = -0.75;
    let near = |x: f64| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    [far(x + 1.0), near(x), near(1.0 - x), far(2.0 - x)]
}

/// Elements and weights of two axes, of which the inner one has the step 1, as [`combine`] gives them.
fn plane_taps(outer: &Taps, inner: &Taps, step: usize, to: &mut Vec<(usize, f64)>) {
    for &(i, w) in outer {
        to.extend(inner.iter().map(|&(j, v)| (i * step + j, w * v)));
    }
}

/// Products of the axes' taps: element offsets and weights.
fn combine(axes: &[Taps], steps: &[usize]) -> Result<Vec<(usize, f64)>> {
    let mut out = vec![(0, 1.0)];
    for (taps, step) in axes.iter().zip(steps) {
        if out.len() * taps.len() > MAX_TAPS {
            return Err(Error::unsupported(format!("sampling over {} spatial axes", axes.len())));
        }
        out =
            out.iter().flat_map(|&(at, w)| taps.iter().map(move |&(i, v)| (at + i * step, w * v))).collect();
    }
    Ok(out)
}

/// Elements and weights of multilinear interpolation at a position of a plane, zero outside.
pub(crate) fn linear_taps(position: &[f64], dims: &[usize], steps: &[usize]) -> Result<Vec<(usize, f64)>> {
    let s = Sampler { mode: Mode::Linear, padding: Padding::Zeros, align_corners: true };
    let axes: Vec<_> = position.iter().zip(dims).map(|(&x, &n)| s.taps(x, n)).collect();
    combine(&axes, steps)
}

fn infer_sample(cx: &InferCx) -> Result<Vec<ValueType>> {
    Sampler::parse(cx.attrs)?;
    let shape = match (cx.shape(0), cx.shape(1)) {
        (Some(x), Some(g)) if x.len() == g.len() && x.len() >= 3 => {
            Some(x[..2].iter().chain(&g[1..g.len() - 1]).cloned().collect())
        }
        (Some(x), Some(g)) => {
            return Err(Error::model(format!(
                "input of rank {} and grid of rank {} differ",
                x.len(),
                g.len()
            )));
        }
        (Some(x), None) => {
            Some(x.iter().take(2).cloned().chain(x.iter().skip(2).map(|_| Dim::Unknown)).collect())
        }
        _ => None,
    };
    Ok(vec![tensor_type(cx.dtype(0)?, shape)])
}

fn eval_sample(cx: &EvalCx) -> Result<Vec<Value>> {
    let (x, grid, sampler) = (cx.tensor(0)?, cx.tensor(1)?, Sampler::parse(cx.attrs)?);
    let bad = || Error::model(format!("input {:?} and grid {:?} do not fit", x.shape(), grid.shape()));
    let ([batch, channels, dims @ ..], [gb, out @ .., axes]) = (x.shape(), grid.shape()) else {
        return Err(bad());
    };
    if gb != batch
        || dims.is_empty()
        || *axes != dims.len()
        || out.len() != dims.len()
        || !grid.dtype().is_float()
    {
        return Err(bad());
    }
    let shape: Shape = [*batch, *channels].into_iter().chain(out.iter().copied()).collect();
    let n = budget::elements(&shape)?;
    check_product(x.shape().iter().copied())?;
    check_product(shape.iter().copied())?;
    let points: usize = out.iter().product();
    let plane: usize = dims.iter().product();
    if plane == 0 && n > 0 {
        return Err(bad());
    }
    let (data, grid) = (x.to_f64s()?, grid.to_f64s()?);
    let steps = strides(dims);
    let mut y = budget::filled(n, 0f64)?;
    if n > 0 {
        // Some points at a time, so that their taps are made once for all channels and stay in the cache.
        let (mut taps, mut ends) = (Vec::new(), Vec::new());
        for (b, first) in (0..*batch).flat_map(|b| (0..points).step_by(POINTS).map(move |p| (b, p))) {
            let count = POINTS.min(points - first);
            taps.clear();
            ends.clear();
            for position in grid[(b * points + first) * axes..].chunks_exact(*axes).take(count) {
                // Positions list the innermost axis first.
                let along =
                    |a: usize| sampler.taps(sampler.denormalize(position[axes - 1 - a], dims[a]), dims[a]);
                match *axes {
                    2 => plane_taps(&along(0), &along(1), steps[0], &mut taps),
                    n => taps.extend(combine(&(0..n).map(along).collect::<Vec<_>>(), &steps)?),
                }
                ends.push(taps.len());
            }
            for c in b * channels..(b + 1) * channels {
                let from = &data[c * plane..(c + 1) * plane];
                let mut start = 0;
                for (y, &end) in y[c * points + first..].iter_mut().zip(&ends) {
                    *y = taps[start..end].iter().map(|&(at, w)| w * from[at]).sum();
                    start = end;
                }
            }
        }
    }
    Ok(one(match x.dtype() {
        d if d.is_float() => Tensor::from_f64s(d, &shape, y)?,
        d => Tensor::from_i64s(d, &shape, y.into_iter().map(|v| v as i64).collect())?,
    }))
}

fn infer_affine(cx: &InferCx) -> Result<Vec<ValueType>> {
    let dtype = cx.dtype(0)?;
    let n = cx.shape(0).and_then(<[Dim]>::first).cloned().unwrap_or(Dim::Unknown);
    let shape = match cx.dims(1) {
        Some(size) if (4..=5).contains(&size.len()) => {
            let axes = Dim::Known(size.len() - 2);
            Some(std::iter::once(n).chain(size[2..].iter().cloned()).chain([axes]).collect())
        }
        Some(size) => return Err(Error::model(format!("size must hold 4 or 5 values, not {}", size.len()))),
        None => None,
    };
    Ok(vec![tensor_type(dtype, shape)])
}

fn eval_affine(cx: &EvalCx) -> Result<Vec<Value>> {
    let theta = cx.tensor(0)?;
    let align = cx.attrs.int_or("align_corners", 0)? != 0;
    Ok(one(by_real!(theta.dtype(), affine(theta, &cx.ints(1)?, align))?))
}

fn affine<T: Real>(theta: &Tensor, size: &[i64], align: bool) -> Result<Tensor> {
    let bad = || Error::model(format!("theta {:?} and size {size:?} do not fit", theta.shape()));
    let size: Vec<usize> =
        size.iter().map(|&n| usize::try_from(n).map_err(|_| bad())).collect::<Result<_>>()?;
    let [batch, _, dims @ ..] = &size[..] else { return Err(bad()) };
    let axes = dims.len();
    if !(2..=3).contains(&axes) || theta.shape() != [*batch, axes, axes + 1] {
        return Err(bad());
    }
    let shape: Shape = std::iter::once(*batch).chain(dims.iter().copied()).chain([axes]).collect();
    let mut y = budget::vec(budget::elements(&shape)?)?;
    let at = |i: usize, n: usize| match (align, n) {
        (true, 1) => -1.0,
        (true, n) => -1.0 + 2.0 * i as f64 / (n as f64 - 1.0),
        (false, n) => (2 * i + 1) as f64 / n as f64 - 1.0,
    };
    let (dtype, theta) = (theta.dtype(), T::read(theta)?);
    if !shape.contains(&0) {
        for m in theta.chunks_exact(axes * (axes + 1)) {
            for index in ndarray::indices(dims) {
                for row in m.chunks_exact(axes + 1) {
                    let turned =
                        (0..axes).map(|j| row[j].f64() * at(index[axes - 1 - j], dims[axes - 1 - j]));
                    y.push(T::of(turned.sum::<f64>() + row[axes].f64()));
                }
            }
        }
    }
    T::write(dtype, &shape, y)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reflection_folds_until_inside() {
        assert_eq!(reflect(-3.5, -1.0, 1.0), 0.5);
        assert_eq!(reflect(1.25, -0.5, 1.0), 0.75);
        assert_eq!(reflect(7.0, 0.0, 0.0), 0.0);
    }

    #[test]
    fn cubic_weights_sum_to_one() {
        for x in [0.0, 0.25, 0.5, 0.9] {
            assert!((cubic(x).iter().sum::<f64>() - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn far_positions_are_harmless() {
        for padding in [Padding::Zeros, Padding::Border, Padding::Reflection] {
            for mode in [Mode::Nearest, Mode::Linear, Mode::Cubic] {
                let s = Sampler { mode, padding, align_corners: false };
                for x in [f64::MAX, f64::MIN, f64::INFINITY, f64::NAN] {
                    assert!(s.taps(x, 3).iter().all(|t| t.0 < 3));
                }
            }
        }
    }
}
