//! Convolution of any number of spatial axes: geometry, and evaluation by matrix products over unfolded patches.

use crate::arith::{Number, Strided, by_number};
use crate::typing::{one, tensor_type};
use crate::window::{Run, WindowAttrs, Windows, check_product, for_each_run};
use crate::{Op, schema};
use ir::budget;
use ir::{
    Accuracy, Attrs, Dim, Error, EvalCx, InferCx, Kind, Operator, Result, Shape, Tensor, Value, ValueType,
};

pub static OPERATORS: &[&dyn Operator] =
    &[&Op::new("Conv", &schema::CONV, infer, eval).kind(|_| Kind::Contract).accuracy(Accuracy::Accumulated)];

/// A convolution with all sizes known: X (batch, in_channels, input…) with W (out_channels, in_channels/groups, kernel…).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvGeometry {
    pub batch: usize,
    pub groups: usize,
    pub in_channels: usize,
    pub out_channels: usize,
    /// One window for each spatial axis.
    pub axes: Windows,
}

impl ConvGeometry {
    /// Shape of the result: (batch, out_channels, output…).
    pub fn output(&self) -> Shape {
        [self.batch, self.out_channels].into_iter().chain(self.axes.iter().map(|w| w.output)).collect()
    }
    /// Elements of one input channel.
    pub fn input_plane(&self) -> usize {
        self.axes.iter().map(|w| w.input).product()
    }
    /// Elements of one output channel.
    pub fn output_plane(&self) -> usize {
        self.axes.iter().map(|w| w.output).product()
    }
    /// Taps of one kernel.
    pub fn taps(&self) -> usize {
        self.axes.iter().map(|w| w.kernel).product()
    }
    /// True when the convolution is a matrix product of W and the input as it lies.
    pub fn is_pointwise(&self) -> bool {
        self.axes.iter().all(|w| w.is_identity())
    }
}

/// Geometry of a `Conv`-like node (also ConvInteger, QLinearConv) for concrete shapes; all attributes checked.
pub fn geometry(attrs: &Attrs, x: &[usize], w: &[usize]) -> Result<ConvGeometry> {
    if x.len() < 3 || w.len() != x.len() {
        return Err(Error::model(format!("input {x:?} and weights {w:?} must have one rank of 3 or more")));
    }
    let groups = groups(attrs)?;
    let (in_channels, out_channels) = (x[1], w[0]);
    if in_channels % groups != 0 || out_channels % groups != 0 || w[1] != in_channels / groups {
        return Err(Error::model(format!("weights {w:?} do not fit input {x:?} in {groups} groups")));
    }
    let axes = WindowAttrs::parse(attrs, x.len() - 2, Some(&w[2..]))?.windows(&x[2..])?;
    let g = ConvGeometry { batch: x[0], groups, in_channels, out_channels, axes };
    check_product(g.output())?;
    check_product(x.iter().copied())?;
    check_product(w.iter().copied())?;
    Ok(g)
}

/// The `group` attribute, at least 1.
pub(crate) fn groups(attrs: &Attrs) -> Result<usize> {
    let g = attrs.int_or("group", 1)?;
    usize::try_from(g)
        .ok()
        .filter(|&g| g > 0)
        .ok_or_else(|| Error::model(format!("group {g} must be positive")))
}

/// Symbolic output shape of a `Conv`-like node.
pub fn output_dims(attrs: &Attrs, x: Option<&[Dim]>, w: Option<&[Dim]>) -> Result<Option<Vec<Dim>>> {
    let channels = w.and_then(<[Dim]>::first).cloned().unwrap_or(Dim::Unknown);
    let Some(x) = x else {
        let spatial = w.map_or(0, |w| w.len().saturating_sub(2));
        let unknown = std::iter::repeat_n(Dim::Unknown, spatial);
        return Ok(w.map(|_| [Dim::Unknown, channels].into_iter().chain(unknown).collect()));
    };
    if x.len() < 3 || w.is_some_and(|w| w.len() != x.len()) {
        return Err(Error::model("input and weights must have one rank of 3 or more"));
    }
    if let (Some(x), Some(w)) = (x.iter().map(Dim::known).collect::<Option<Vec<_>>>(), w)
        && let Some(w) = w.iter().map(Dim::known).collect::<Option<Vec<_>>>()
    {
        return Ok(Some(geometry(attrs, &x, &w)?.output().into_iter().map(Dim::Known).collect()));
    }
    let kernel: Option<Vec<usize>> = w.and_then(|w| w[2..].iter().map(Dim::known).collect());
    let mut out = vec![x[0].clone(), channels];
    if kernel.is_none() && attrs.ints("kernel_shape")?.is_none() {
        out.resize(x.len(), Dim::Unknown);
        return Ok(Some(out));
    }
    let windows = WindowAttrs::parse(attrs, x.len() - 2, kernel.as_deref())?;
    for (i, d) in x[2..].iter().enumerate() {
        out.push(windows.output_dim(i, d)?);
    }
    Ok(Some(out))
}

fn infer(cx: &InferCx) -> Result<Vec<ValueType>> {
    let dtype = cx.dtype(0)?.or(cx.dtype(1)?);
    Ok(vec![tensor_type(dtype, output_dims(cx.attrs, cx.shape(0), cx.shape(1))?)])
}

fn eval(cx: &EvalCx) -> Result<Vec<Value>> {
    let (x, w, b) = (cx.tensor(0)?, cx.tensor(1)?, cx.optional(2)?);
    let g = geometry(cx.attrs, x.shape(), w.shape())?;
    Ok(one(conv_tensors(x, w, b, &g)?))
}

/// The convolution of tensors of one type with an optional bias (out_channels); integers wrap.
pub fn conv_tensors(x: &Tensor, w: &Tensor, b: Option<&Tensor>, g: &ConvGeometry) -> Result<Tensor> {
    by_number!(x.dtype(), typed(x, w, b, g))
}

fn typed<T: Number>(x: &Tensor, w: &Tensor, b: Option<&Tensor>, g: &ConvGeometry) -> Result<Tensor> {
    let bias = b.map(|b| T::read(b)).transpose()?;
    let y = conv::<T>(&T::read(x)?, &T::read(w)?, bias.as_deref(), g)?;
    T::write(x.dtype(), &g.output(), y)
}

/// Elements of the unfolded patches held at once; about the size of a second-level cache.
const PATCH_ELEMENTS: usize = 1 << 18;

/// The convolution of row-major slices: x (batch, in_channels, input…), w (out_channels, in_channels/groups, kernel…),
/// bias (out_channels). `f32`, `f64`, and wrapping `i32` and `i64` for integer convolutions.
pub fn conv<T: Number>(x: &[T], w: &[T], bias: Option<&[T]>, g: &ConvGeometry) -> Result<Vec<T>> {
    let (cin, cout) = (g.in_channels / g.groups, g.out_channels / g.groups);
    let (plane_in, plane_out, taps) = (g.input_plane(), g.output_plane(), g.taps());
    let sizes = (g.batch * g.in_channels * plane_in, g.out_channels * cin * taps);
    if sizes != (x.len(), w.len()) || bias.is_some_and(|b| b.len() != g.out_channels) {
        return Err(Error::model("input, weights and bias do not fit the convolution"));
    }
    let mut y = budget::filled(budget::elements(&g.output())?, T::ZERO)?;
    if y.is_empty() {
        return Ok(y);
    }
    if let Some(b) = bias {
        y.chunks_exact_mut(plane_out).zip(b.iter().cycle()).for_each(|(y, &b)| y.fill(b));
    }
    for (i, y) in y.chunks_exact_mut(cout * plane_out).enumerate() {
        let group = i % g.groups;
        let x = &x[i * cin * plane_in..][..cin * plane_in];
        let w = &w[group * cout * cin * taps..][..cout * cin * taps];
        if g.is_pointwise() {
            T::gemm([cout, cin, plane_out], Strided(w, cin, 1), Strided(x, plane_in, 1), y, plane_out)?;
        } else if cin == 1 && cout <= 4 {
            by_taps(x, w, y, g);
        } else {
            by_patches(x, w, y, g)?;
        }
    }
    Ok(y)
}

/// One input channel: each tap adds a scaled run of the input to a run of the output.
fn by_taps<T: Number>(x: &[T], w: &[T], y: &mut [T], g: &ConvGeometry) {
    let taps = g.taps();
    for (y, w) in y.chunks_exact_mut(g.output_plane()).zip(w.chunks_exact(taps)) {
        for_each_run(&g.axes, 0..usize::MAX, |r| {
            let (k, y) = (w[r.tap], &mut y[r.output..][..r.len]);
            if r.stride == 1 {
                y.iter_mut().zip(&x[r.input..]).for_each(|(y, &x)| *y = y.plus(k.times(x)));
            } else {
                let x = x[r.input..].iter().step_by(r.stride);
                y.iter_mut().zip(x).for_each(|(y, &x)| *y = y.plus(k.times(x)));
            }
        });
    }
}

/// A band of windows at a time: patches unfolded to (in_channels·taps, windows), then one matrix product.
fn by_patches<T: Number>(x: &[T], w: &[T], y: &mut [T], g: &ConvGeometry) -> Result<()> {
    let (plane_in, plane_out) = (g.input_plane(), g.output_plane());
    let rows = x.len() / plane_in.max(1) * g.taps();
    let outer = g.axes[0].output;
    let row = plane_out / outer;
    let band = (PATCH_ELEMENTS / rows.max(1) / row).clamp(1, outer);
    let out_channels = y.len() / plane_out;
    let size = rows.checked_mul(band * row).ok_or_else(|| Error::limit("patches overflow"))?;
    let mut patches = budget::filled(size, T::ZERO)?;
    for first in (0..outer).step_by(band) {
        let count = band.min(outer - first);
        let n = count * row;
        let patches = &mut patches[..rows * n];
        patches.fill(T::ZERO);
        for (c, patches) in patches.chunks_exact_mut(g.taps() * n).enumerate() {
            let x = &x[c * plane_in..][..plane_in];
            for_each_run(&g.axes, first..first + count, |r| {
                copy_run(&x[r.input..], &mut patches[r.tap * n + r.output - first * row..], r);
            });
        }
        let y = &mut y[first * row..];
        T::gemm([out_channels, rows, n], Strided(w, rows, 1), Strided(patches, n, 1), y, plane_out)?;
    }
    Ok(())
}

fn copy_run<T: Copy>(from: &[T], to: &mut [T], r: Run) {
    if r.stride == 1 {
        to[..r.len].copy_from_slice(&from[..r.len]);
    } else {
        to[..r.len].iter_mut().zip(from.iter().step_by(r.stride)).for_each(|(t, &f)| *t = f);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition of the operator, element by element.
    fn direct(x: &[i64], w: &[i64], g: &ConvGeometry) -> Vec<i64> {
        let (cin, cout) = (g.in_channels / g.groups, g.out_channels / g.groups);
        let kernel: Vec<usize> = g.axes.iter().map(|a| a.kernel).collect();
        let out: Vec<usize> = g.axes.iter().map(|a| a.output).collect();
        let mut y = vec![];
        for (n, m) in (0..g.batch).flat_map(|n| (0..g.out_channels).map(move |m| (n, m))) {
            for o in ndarray::indices(out.clone()) {
                let mut sum = 0;
                for c in 0..cin {
                    for (t, tap) in ndarray::indices(kernel.clone()).into_iter().enumerate() {
                        let src = g
                            .axes
                            .iter()
                            .enumerate()
                            .try_fold(0, |at, (i, a)| a.source(o[i], tap[i]).map(|s| at * a.input + s));
                        let channel = n * g.in_channels + m / cout * cin + c;
                        sum += src.map_or(0, |s| x[channel * g.input_plane() + s])
                            * w[(m * cin + c) * g.taps() + t];
                    }
                }
                y.push(sum);
            }
        }
        y
    }

    proptest! {
        #[test]
        fn equals_the_definition(
            size in prop::collection::vec(3usize..7, 1..4), k in 1usize..4, s in 1i64..3, d in 1i64..3, p in 0i64..3,
            groups in 1usize..3, cin in 1usize..3, cout in 1usize..6, batch in 1usize..3
        ) {
            let n = size.len();
            let attrs = Attrs::new().with("group", groups as i64).with("strides", vec![s; n])
                .with("dilations", vec![d; n]).with("pads", vec![p; 2 * n]);
            let x: Vec<usize> = [batch, groups * cin].into_iter().chain(size).collect();
            let w: Vec<usize> = [groups * cout, cin].into_iter().chain(std::iter::repeat_n(k, n)).collect();
            let Ok(g) = geometry(&attrs, &x, &w) else { return Ok(()) };
            let fill = |s: &[usize]| (0..s.iter().product::<usize>() as i64).map(|i| i * 7 % 11 - 5).collect::<Vec<_>>();
            let (x, w) = (fill(&x), fill(&w));
            prop_assert_eq!(conv(&x, &w, None, &g).unwrap(), direct(&x, &w, &g));
            let float = |v: &[i64]| v.iter().map(|&x| x as f32).collect::<Vec<_>>();
            let y = conv::<f32>(&float(&x), &float(&w), None, &g).unwrap();
            prop_assert_eq!(y, float(&direct(&x, &w, &g)));
        }
    }

    #[test]
    fn bad_geometry_is_an_error() {
        let a = Attrs::new();
        assert!(geometry(&a.clone().with("group", 0i64), &[1, 2, 5], &[2, 2, 3]).is_err());
        assert!(geometry(&a.clone().with("group", -1i64), &[1, 2, 5], &[2, 2, 3]).is_err());
        assert!(geometry(&a, &[1, 3, 5], &[2, 2, 3]).is_err());
        assert!(geometry(&a, &[1, 2], &[2, 2]).is_err());
        assert!(geometry(&a, &[1, 2, 5], &[2, 2, 6]).is_err());
        assert!(geometry(&a, &[1, 2, 5], &[2, 2, 0]).is_err());
    }

    #[test]
    fn symbolic_sizes_survive_same_convolutions() {
        let a = Attrs::new().with("pads", vec![1, 1]);
        let (n, l) = (Dim::symbol("n"), Dim::symbol("l"));
        let w = [8.into(), 3.into(), 3.into()];
        let y = output_dims(&a, Some(&[n.clone(), 3.into(), l.clone()]), Some(&w)).unwrap().unwrap();
        assert_eq!(y, [n, 8.into(), l]);
    }
}
