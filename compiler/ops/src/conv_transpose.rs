//! Transposed convolution of any number of spatial axes: a matrix product followed by scattering patches.

use crate::arith::{Number, Strided, by_number};
use crate::conv::groups;
use crate::typing::{one, tensor_type};
use crate::window::{AutoPad, Window, Windows, auto_pad, check_product, for_each_run, list};
use crate::{Op, schema};
use ir::budget;
use ir::{
    Accuracy, Attrs, Dim, Error, EvalCx, InferCx, Kind, Operator, Result, Shape, Tensor, Value, ValueType,
};

pub static OPERATORS: &[&dyn Operator] = &[&Op::new("ConvTranspose", &schema::CONV_TRANSPOSE, infer, eval)
    .kind(|_| Kind::Contract)
    .accuracy(Accuracy::Accumulated)];

/// A transposed convolution with all sizes known: X (batch, in_channels, input…) with
/// W (in_channels, out_channels/groups, kernel…).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvTransposeGeometry {
    pub batch: usize,
    pub groups: usize,
    pub in_channels: usize,
    pub out_channels: usize,
    /// The windows of the convolution this transposes: their `output` is this operator's input and their `input` its
    /// output.
    pub axes: Windows,
}

impl ConvTransposeGeometry {
    /// Shape of the result: (batch, out_channels, output…).
    pub fn output(&self) -> Shape {
        [self.batch, self.out_channels].into_iter().chain(self.axes.iter().map(|w| w.input)).collect()
    }
    /// Elements of one input channel.
    pub fn input_plane(&self) -> usize {
        self.axes.iter().map(|w| w.output).product()
    }
    /// Elements of one output channel.
    pub fn output_plane(&self) -> usize {
        self.axes.iter().map(|w| w.input).product()
    }
    /// Taps of one kernel.
    pub fn taps(&self) -> usize {
        self.axes.iter().map(|w| w.kernel).product()
    }
}

/// The side of square windows that lie side by side and cover the output, of weights (in_channels, out_channels, k, k) of one
/// group: such a convolution gives each pixel's products with all taps their own place.
pub fn side_by_side(attrs: &Attrs, weight: &[usize]) -> Option<usize> {
    let &[_, _, side, other] = weight else { return None };
    let a = TransposeAttrs::parse(attrs, 2).ok()?;
    let whole = a.strides == [side, side] && a.dilations == [1, 1] && a.output_padding == [0, 0];
    let bare = a.output_shape.is_none() && (a.auto_pad != AutoPad::Explicit || a.pads == [0; 4]);
    let square = side == other && side > 1 && attrs.int_or("group", 1).ok()? == 1;
    (whole && bare && square).then_some(side)
}

/// The attributes of one node, checked: one value for each spatial axis.
struct TransposeAttrs {
    strides: Vec<usize>,
    dilations: Vec<usize>,
    pads: Vec<usize>,
    output_padding: Vec<usize>,
    output_shape: Option<Vec<usize>>,
    auto_pad: AutoPad,
}

impl TransposeAttrs {
    fn parse(attrs: &Attrs, axes: usize) -> Result<TransposeAttrs> {
        let ones = || vec![1; axes];
        Ok(TransposeAttrs {
            strides: list(attrs, "strides", axes, 1)?.unwrap_or_else(ones),
            dilations: list(attrs, "dilations", axes, 1)?.unwrap_or_else(ones),
            pads: list(attrs, "pads", 2 * axes, 0)?.unwrap_or_else(|| vec![0; 2 * axes]),
            output_padding: list(attrs, "output_padding", axes, 0)?.unwrap_or_else(|| vec![0; axes]),
            output_shape: list(attrs, "output_shape", axes, 1)?,
            auto_pad: auto_pad(attrs)?,
        })
    }

    /// The window of axis `i` with `input` elements of this operator's input and `kernel` taps.
    fn window(&self, i: usize, input: usize, kernel: usize) -> Result<Window> {
        let (stride, dilation) = (self.strides[i] as i128, self.dilations[i] as i128);
        let full = stride * (input as i128 - 1)
            + self.output_padding[i] as i128
            + (kernel as i128 - 1) * dilation
            + 1;
        let (mut begin, mut end) = (self.pads[i] as i128, self.pads[self.strides.len() + i] as i128);
        let same = matches!(self.auto_pad, AutoPad::SameUpper | AutoPad::SameLower);
        // Padding only ever removes elements: a kernel shorter than its stride gives less than input·stride.
        let wanted = match &self.output_shape {
            Some(s) => Some(s[i] as i128),
            None if same => Some((input as i128 * stride).min(full)),
            None => None,
        };
        if self.auto_pad == AutoPad::Valid {
            (begin, end) = (0, 0);
        }
        if let Some(wanted) = wanted {
            let total = (full - wanted).max(0);
            begin = if self.auto_pad == AutoPad::SameUpper { total / 2 } else { total - total / 2 };
            end = total - begin;
        }
        let output = wanted.unwrap_or(full - begin - end);
        if kernel == 0 || !(0..=1 << 56).contains(&output) || input > 1 << 56 {
            return Err(Error::model(format!(
                "axis {i}: {input} inputs under {kernel} taps give {output} outputs"
            )));
        }
        // Each part is at most `full` or an attribute below 2^31, so it fits.
        Ok(Window {
            input: output as usize,
            kernel,
            stride: self.strides[i],
            dilation: self.dilations[i],
            pad_begin: begin as usize,
            pad_end: end as usize,
            output: input,
        })
    }
}

/// Geometry of a `ConvTranspose` node for concrete shapes; all attributes checked.
pub fn geometry(attrs: &Attrs, x: &[usize], w: &[usize]) -> Result<ConvTransposeGeometry> {
    if x.len() < 3 || w.len() != x.len() {
        return Err(Error::model(format!("input {x:?} and weights {w:?} must have one rank of 3 or more")));
    }
    let groups = groups(attrs)?;
    let out_channels = w[1].checked_mul(groups).ok_or_else(|| Error::limit("out_channels overflows"))?;
    if x[1] != w[0] || !x[1].is_multiple_of(groups) {
        return Err(Error::model(format!("weights {w:?} do not fit input {x:?} in {groups} groups")));
    }
    if let Some(k) = list(attrs, "kernel_shape", x.len() - 2, 1)?
        && k != w[2..]
    {
        return Err(Error::model(format!("kernel_shape {k:?} differs from the weights' {:?}", &w[2..])));
    }
    let parsed = TransposeAttrs::parse(attrs, x.len() - 2)?;
    let axes = (0..x.len() - 2).map(|i| parsed.window(i, x[i + 2], w[i + 2])).collect::<Result<_>>()?;
    let g = ConvTransposeGeometry { batch: x[0], groups, in_channels: x[1], out_channels, axes };
    check_product(g.output())?;
    check_product(x.iter().copied())?;
    check_product(w.iter().copied())?;
    Ok(g)
}

fn infer(cx: &InferCx) -> Result<Vec<ValueType>> {
    let dtype = cx.dtype(0)?.or(cx.dtype(1)?);
    Ok(vec![tensor_type(dtype, output_dims(cx.attrs, cx.shape(0), cx.shape(1))?)])
}

fn output_dims(attrs: &Attrs, x: Option<&[Dim]>, w: Option<&[Dim]>) -> Result<Option<Vec<Dim>>> {
    let Some(rank) = x.or(w).map(<[Dim]>::len) else { return Ok(None) };
    if rank < 3 || [x, w].iter().flatten().any(|s| s.len() != rank) {
        return Err(Error::model("input and weights must have one rank of 3 or more"));
    }
    let groups = groups(attrs)?;
    let batch = x.map_or(Dim::Unknown, |x| x[0].clone());
    let channels =
        w.and_then(|w| w[1].known()).and_then(|c| c.checked_mul(groups)).map_or(Dim::Unknown, Dim::Known);
    let parsed = TransposeAttrs::parse(attrs, rank - 2)?;
    let kernel_attr = list(attrs, "kernel_shape", rank - 2, 1)?;
    let mut out = vec![batch, channels];
    for i in 0..rank - 2 {
        let kernel = w.and_then(|w| w[i + 2].known()).or_else(|| kernel_attr.as_ref().map(|k| k[i]));
        out.push(match (x.and_then(|x| x[i + 2].known()), kernel) {
            (Some(n), Some(k)) => Dim::Known(parsed.window(i, n, k)?.input),
            _ => parsed.output_shape.as_ref().map_or(Dim::Unknown, |s| Dim::Known(s[i])),
        });
    }
    Ok(Some(out))
}

fn eval(cx: &EvalCx) -> Result<Vec<Value>> {
    let (x, w, b) = (cx.tensor(0)?, cx.tensor(1)?, cx.optional(2)?);
    let g = geometry(cx.attrs, x.shape(), w.shape())?;
    Ok(one(by_number!(x.dtype(), typed(x, w, b, &g))?))
}

fn typed<T: Number>(x: &Tensor, w: &Tensor, b: Option<&Tensor>, g: &ConvTransposeGeometry) -> Result<Tensor> {
    let bias = b.map(|b| T::read(b)).transpose()?;
    let y = conv_transpose::<T>(&T::read(x)?, &T::read(w)?, bias.as_deref(), g)?;
    T::write(x.dtype(), &g.output(), y)
}

/// The transposed convolution of row-major slices: x (batch, in_channels, input…),
/// w (in_channels, out_channels/groups, kernel…), bias (out_channels).
pub fn conv_transpose<T: Number>(
    x: &[T],
    w: &[T],
    bias: Option<&[T]>,
    g: &ConvTransposeGeometry,
) -> Result<Vec<T>> {
    let (cin, cout) = (g.in_channels / g.groups, g.out_channels / g.groups);
    let (plane_in, plane_out, taps) = (g.input_plane(), g.output_plane(), g.taps());
    let sizes = (g.batch * g.in_channels * plane_in, g.in_channels * cout * taps);
    if sizes != (x.len(), w.len()) || bias.is_some_and(|b| b.len() != g.out_channels) {
        return Err(Error::model("input, weights and bias do not fit the transposed convolution"));
    }
    let mut y = budget::filled(budget::elements(&g.output())?, T::ZERO)?;
    if y.is_empty() {
        return Ok(y);
    }
    if let Some(b) = bias {
        y.chunks_exact_mut(plane_out).zip(b.iter().cycle()).for_each(|(y, &b)| y.fill(b));
    }
    let size = (cout * taps).checked_mul(plane_in).ok_or_else(|| Error::limit("patches overflow"))?;
    let mut patches = budget::filled(size, T::ZERO)?;
    for (i, y) in y.chunks_exact_mut(cout * plane_out).enumerate() {
        let group = i % g.groups;
        let x = &x[i * cin * plane_in..][..cin * plane_in];
        let w = &w[group * cin * cout * taps..][..cin * cout * taps];
        patches.fill(T::ZERO);
        let by_tap = Strided(w, 1, cout * taps);
        T::gemm([cout * taps, cin, plane_in], by_tap, Strided(x, plane_in, 1), &mut patches, plane_in)?;
        for (y, patches) in y.chunks_exact_mut(plane_out).zip(patches.chunks_exact((taps * plane_in).max(1)))
        {
            scatter(patches, y, &g.axes);
        }
    }
    Ok(y)
}

/// Adds patches (taps, windows) to the elements their windows read.
pub(crate) fn scatter<T: Number>(patches: &[T], y: &mut [T], axes: &[Window]) {
    let windows: usize = axes.iter().map(|w| w.output).product();
    for_each_run(axes, 0..usize::MAX, |r| {
        let from = &patches[r.tap * windows + r.output..][..r.len];
        y[r.input..].iter_mut().step_by(r.stride).zip(from).for_each(|(y, &p)| *y = y.plus(p));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explicit_output_shape_chooses_the_pads() {
        let a = Attrs::new().with("strides", vec![3, 2]).with("output_shape", vec![10, 8]);
        let g = geometry(&a, &[1, 1, 3, 3], &[1, 2, 3, 3]).unwrap();
        assert_eq!(g.output()[..], [1, 2, 10, 8]);
        let g = geometry(&Attrs::new().with("strides", vec![3, 2]), &[1, 1, 3, 3], &[1, 2, 3, 3]).unwrap();
        assert_eq!(g.output()[..], [1, 2, 9, 7]);
    }

    #[test]
    fn same_padding_never_adds_elements() {
        let a = Attrs::new().with("auto_pad", "SAME_UPPER").with("strides", vec![2]);
        assert_eq!(geometry(&a, &[1, 1, 5], &[1, 1, 1]).unwrap().output()[2], 9);
        assert_eq!(geometry(&a, &[1, 1, 5], &[1, 1, 3]).unwrap().output()[2], 10);
    }

    #[test]
    fn overlapping_patches_add_up() {
        let g = geometry(&Attrs::new().with("strides", vec![1]), &[1, 1, 3], &[1, 1, 2]).unwrap();
        let y = conv_transpose::<i64>(&[1, 2, 3], &[1, 10], Some(&[100]), &g).unwrap();
        assert_eq!(y, [101, 112, 123, 130]);
    }

    #[test]
    fn bad_geometry_is_an_error() {
        let a = Attrs::new();
        assert!(geometry(&a, &[1, 2, 3], &[1, 1, 2]).is_err());
        assert!(geometry(&a, &[1, 2, 3], &[2, 1, 0]).is_err());
        assert!(geometry(&a.clone().with("pads", vec![9, 9]), &[1, 2, 3], &[2, 1, 2]).is_err());
        assert!(geometry(&a.clone().with("group", 1i64 << 40), &[1, 2, 3], &[2, 1 << 40, 2]).is_err());
        assert!(geometry(&a.with("strides", vec![0]), &[1, 2, 3], &[2, 1, 2]).is_err());
    }
}
