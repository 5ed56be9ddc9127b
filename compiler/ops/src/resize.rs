//! Resize: nearest, linear and cubic interpolation along any axes, with all coordinate transformations, antialiasing,
//! regions of interest and aspect-ratio policies. One table of indices and weights for each resized axis.

use crate::broadcast::axis;
use crate::index::{gather, products, strides};
use crate::typing::{one, tensor_type};
use crate::{Op, schema};
use ir::{Attrs, Dim, Error, EvalCx, InferCx, Operator, Result, Shape, Tensor, Value, ValueType, budget};

pub static OPERATORS: &[&dyn Operator] = &[&Op::new("Resize", &schema::RESIZE, infer, eval)];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Nearest,
    Linear,
    Cubic,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coordinates {
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
    CropAndResize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nearest {
    PreferFloor,
    PreferCeil,
    Floor,
    Ceil,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aspect {
    Stretch,
    NotLarger,
    NotSmaller,
}

#[derive(Debug, Clone, PartialEq)]
struct ResizeAttrs {
    mode: Mode,
    coordinates: Coordinates,
    nearest: Nearest,
    aspect: Aspect,
    antialias: bool,
    exclude_outside: bool,
    cubic_a: f64,
    extrapolation: f64,
    axes: Option<Vec<i64>>,
}

fn word<T: Copy>(attrs: &Attrs, name: &str, words: &[(&str, T)]) -> Result<T> {
    let default = words.first().map_or("", |w| w.0);
    let s = attrs.str_or(name, default)?;
    let found = words.iter().find(|w| w.0 == s).map(|w| w.1);
    found.ok_or_else(|| Error::model(format!("{name} '{}' is not known", s.escape_debug())))
}

impl ResizeAttrs {
    fn parse(attrs: &Attrs) -> Result<ResizeAttrs> {
        use Coordinates::*;
        let coordinates = [
            ("half_pixel", HalfPixel),
            ("half_pixel_symmetric", HalfPixelSymmetric),
            ("pytorch_half_pixel", PytorchHalfPixel),
            ("align_corners", AlignCorners),
            ("asymmetric", Asymmetric),
            ("tf_crop_and_resize", CropAndResize),
        ];
        let nearest = [
            ("round_prefer_floor", Nearest::PreferFloor),
            ("round_prefer_ceil", Nearest::PreferCeil),
            ("floor", Nearest::Floor),
            ("ceil", Nearest::Ceil),
        ];
        let aspect = [
            ("stretch", Aspect::Stretch),
            ("not_larger", Aspect::NotLarger),
            ("not_smaller", Aspect::NotSmaller),
        ];
        let modes = [("nearest", Mode::Nearest), ("linear", Mode::Linear), ("cubic", Mode::Cubic)];
        Ok(ResizeAttrs {
            mode: word(attrs, "mode", &modes)?,
            coordinates: word(attrs, "coordinate_transformation_mode", &coordinates)?,
            nearest: word(attrs, "nearest_mode", &nearest)?,
            aspect: word(attrs, "keep_aspect_ratio_policy", &aspect)?,
            antialias: attrs.int_or("antialias", 0)? != 0,
            exclude_outside: attrs.int_or("exclude_outside", 0)? != 0,
            cubic_a: f64::from(attrs.float_or("cubic_coeff_a", -0.75)?),
            extrapolation: f64::from(attrs.float_or("extrapolation_value", 0.0)?),
            axes: attrs.ints("axes")?.map(<[i64]>::to_vec),
        })
    }

    /// Axes that `roi`, `scales` and `sizes` speak of.
    fn axes(&self, rank: usize) -> Result<Vec<usize>> {
        let Some(axes) = &self.axes else { return Ok((0..rank).collect()) };
        let axes: Vec<usize> = axes.iter().map(|&a| axis(a, rank)).collect::<Result<_>>()?;
        let mut seen = vec![false; rank];
        match axes.iter().find(|&&a| std::mem::replace(&mut seen[a], true)) {
            Some(a) => Err(Error::model(format!("axis {a} is repeated"))),
            None => Ok(axes),
        }
    }
}

/// Sources of every output position along one axis.
#[derive(Debug, Clone, PartialEq)]
pub struct AxisTable {
    pub axis: usize,
    pub input: usize,
    pub output: usize,
    /// Input elements that make one output element.
    pub taps: usize,
    /// Input index of each tap of each output position (output, taps), within the input.
    pub indices: Vec<usize>,
    /// Weight of each tap, as `indices`.
    pub weights: Vec<f64>,
    /// Output positions that take the extrapolation value (empty: none).
    pub outside: Vec<bool>,
}

/// A resize with all sizes known.
#[derive(Debug, Clone, PartialEq)]
pub struct ResizePlan {
    pub mode: Mode,
    pub output: Shape,
    /// Axes that change, ascending; results do not depend on the order but for rounding.
    pub tables: Vec<AxisTable>,
    pub extrapolation: f64,
}

/// Output length and scale of each axis of `x`.
struct Sizes {
    output: Shape,
    scale: Vec<f64>,
}

fn sizes(attrs: &ResizeAttrs, x: &[usize], scales: Option<&[f32]>, sizes: Option<&[i64]>) -> Result<Sizes> {
    let axes = attrs.axes(x.len())?;
    let mut out = Sizes { output: x.into(), scale: vec![1.0; x.len()] };
    let scales = scales.filter(|s| !s.is_empty());
    let sizes = sizes.filter(|s| !s.is_empty());
    match (scales, sizes) {
        (Some(s), None) if s.len() == axes.len() => {
            for (&a, &s) in axes.iter().zip(s) {
                // In single precision, as shape inference does it: 10 · 0.7 is 7.
                let n = (x[a] as f32 * s).floor();
                if !(s > 0.0 && n < 4e18) {
                    return Err(Error::model(format!("scale {s} of axis {a} is not usable")));
                }
                out.output[a] = n as usize;
                out.scale[a] = f64::from(s);
            }
        }
        (None, Some(s)) if s.len() == axes.len() => {
            for (&a, &n) in axes.iter().zip(s) {
                let bad = || Error::model(format!("size {n} of axis {a} is negative"));
                out.output[a] = usize::try_from(n).map_err(|_| bad())?;
                out.scale[a] = n as f64 / x[a] as f64;
            }
            keep_aspect(attrs.aspect, &axes, x, &mut out);
        }
        (Some(_), Some(_)) => return Err(Error::model("only one of scales and sizes may be given")),
        _ => return Err(Error::model(format!("scales or sizes must hold {} values", axes.len()))),
    }
    budget::elements(&out.output)?;
    Ok(out)
}

/// One scale for all axes; sizes round half up.
fn keep_aspect(aspect: Aspect, axes: &[usize], x: &[usize], out: &mut Sizes) {
    let all = axes.iter().map(|&a| out.scale[a]);
    let scale = match aspect {
        Aspect::Stretch => return,
        Aspect::NotLarger => all.fold(f64::INFINITY, f64::min),
        Aspect::NotSmaller => all.fold(0.0, f64::max),
    };
    for &a in axes {
        out.scale[a] = scale;
        out.output[a] = (scale * x[a] as f64 + 0.5) as usize;
    }
}

/// The tables of a `Resize` node for a concrete shape and the values of its inputs (`None`: absent).
pub fn plan(
    attrs: &Attrs,
    x: &[usize],
    roi: Option<&[f64]>,
    scales: Option<&[f32]>,
    target: Option<&[i64]>,
) -> Result<ResizePlan> {
    let attrs = ResizeAttrs::parse(attrs)?;
    let sizes = sizes(&attrs, x, scales, target)?;
    let axes = attrs.axes(x.len())?;
    let roi = roi.filter(|r| !r.is_empty() && attrs.coordinates == Coordinates::CropAndResize);
    if attrs.coordinates == Coordinates::CropAndResize && roi.is_none_or(|r| r.len() != 2 * axes.len()) {
        return Err(Error::model(format!("roi must hold {} values", 2 * axes.len())));
    }
    if attrs.antialias && attrs.mode == Mode::Nearest {
        return Err(Error::model("antialias needs mode linear or cubic"));
    }
    let mut tables = vec![];
    for a in 0..x.len() {
        let at = axes.iter().position(|&b| b == a);
        let crop = at.and_then(|i| roi.map(|r| [r[i], r[axes.len() + i]])).unwrap_or([0.0, 1.0]);
        let (input, output, scale) = (x[a], sizes.output[a], sizes.scale[a]);
        if input == output && scale == 1.0 && crop == [0.0, 1.0] {
            continue;
        }
        if input == 0 && output > 0 {
            return Err(Error::model(format!("axis {a} of size 0 cannot grow to {output}")));
        }
        tables.push(AxisMap { attrs: &attrs, axis: a, input, output, scale, crop }.table()?);
    }
    Ok(ResizePlan { mode: attrs.mode, output: sizes.output, tables, extrapolation: attrs.extrapolation })
}

struct AxisMap<'a> {
    attrs: &'a ResizeAttrs,
    axis: usize,
    input: usize,
    output: usize,
    scale: f64,
    crop: [f64; 2],
}

impl AxisMap<'_> {
    /// The input coordinate of output position `i`.
    fn source(&self, i: usize) -> f64 {
        use Coordinates::*;
        let (i, input) = (i as f64, self.input as f64);
        // The length before rounding down to an integer.
        let exact = self.scale * input;
        let half_pixel = (i + 0.5) / self.scale - 0.5;
        match self.attrs.coordinates {
            HalfPixel => half_pixel,
            HalfPixelSymmetric => input / 2.0 * (1.0 - self.output as f64 / exact) + half_pixel,
            PytorchHalfPixel if self.output > 1 => half_pixel,
            PytorchHalfPixel => 0.0,
            AlignCorners if self.output > 1 => i * (input - 1.0) / (exact - 1.0),
            AlignCorners => 0.0,
            Asymmetric => i / self.scale,
            CropAndResize => {
                let [start, end] = self.crop;
                if self.output > 1 {
                    start * (input - 1.0) + i * (end - start) * (input - 1.0) / (exact - 1.0)
                } else {
                    0.5 * (start + end) * (input - 1.0)
                }
            }
        }
    }

    /// Taps and the first one's distance from the floor of the coordinate.
    fn footprint(&self) -> (usize, i64) {
        let shrink = self.scale.min(1.0);
        let reach = |radius: f64| {
            let first = (-radius / shrink).floor() as i64 + 1;
            ((2 - 2 * first).max(1) as usize, first)
        };
        match (self.attrs.mode, self.attrs.antialias) {
            (Mode::Nearest, _) => (1, 0),
            (Mode::Linear, true) => reach(1.0),
            (Mode::Cubic, true) => reach(2.0),
            (Mode::Linear, false) => (2, 0),
            (Mode::Cubic, false) => (4, -1),
        }
    }

    /// Unnormalised weight of a tap at this signed distance from the coordinate.
    fn weight(&self, distance: f64) -> f64 {
        let shrink = if self.attrs.antialias { self.scale.min(1.0) } else { 1.0 };
        let (x, a) = ((distance * shrink).abs(), self.attrs.cubic_a);
        match self.attrs.mode {
            Mode::Nearest => 1.0,
            Mode::Linear => (1.0 - x).max(0.0),
            Mode::Cubic if x <= 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
            Mode::Cubic if x < 2.0 => ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a,
            Mode::Cubic => 0.0,
        }
    }

    fn nearest(&self, x: f64) -> f64 {
        match self.attrs.nearest {
            Nearest::PreferFloor => (x - 0.5).ceil(),
            Nearest::PreferCeil => (x + 0.5).floor(),
            Nearest::Floor => x.floor(),
            Nearest::Ceil => x.ceil(),
        }
    }

    fn table(&self) -> Result<AxisTable> {
        let (taps, first) = if self.output == 0 { (1, 0) } else { self.footprint() };
        let n = self.output.checked_mul(taps).ok_or_else(|| Error::limit("resize table overflows"))?;
        let mut t = AxisTable {
            axis: self.axis,
            input: self.input,
            output: self.output,
            taps,
            indices: budget::vec(n)?,
            weights: budget::vec(n)?,
            outside: vec![],
        };
        let last = self.input as f64 - 1.0;
        let crops = self.attrs.coordinates == Coordinates::CropAndResize;
        for i in 0..self.output {
            let x = self.source(i);
            let start =
                if self.attrs.mode == Mode::Nearest { self.nearest(x) } else { x.floor() + first as f64 };
            let row = t.weights.len();
            for k in 0..taps {
                let at = start + k as f64;
                let excluded = self.attrs.exclude_outside && !(0.0..=last).contains(&at);
                t.indices.push(at.clamp(0.0, last) as usize);
                t.weights.push(if excluded { 0.0 } else { self.weight(at - x) });
            }
            if self.attrs.antialias || self.attrs.exclude_outside {
                let sum: f64 = t.weights[row..].iter().sum();
                let sum = if sum == 0.0 { 1.0 } else { sum };
                t.weights[row..].iter_mut().for_each(|w| *w /= sum);
            }
            if crops {
                t.outside.push(x < 0.0 || x > last);
            }
        }
        if !t.outside.contains(&true) {
            t.outside.clear();
        }
        Ok(t)
    }
}

fn infer(cx: &InferCx) -> Result<Vec<ValueType>> {
    let dtype = cx.dtype(0)?;
    let Some(x) = cx.shape(0) else { return Ok(vec![tensor_type(dtype, None)]) };
    let attrs = ResizeAttrs::parse(cx.attrs)?;
    let axes = attrs.axes(x.len())?;
    let known: Option<Vec<usize>> = x.iter().map(Dim::known).collect();
    let scales = cx.constant(2).map(Tensor::to_f32s).transpose()?;
    if let (Some(x), true) = (&known, scales.is_some() || cx.ints(3).is_some()) {
        let s = sizes(&attrs, x, scales.as_deref(), cx.ints(3).as_deref())?;
        return Ok(vec![tensor_type(dtype, Some(s.output.into_iter().map(Dim::Known).collect()))]);
    }
    let mut out = x.to_vec();
    let target = if attrs.aspect == Aspect::Stretch { cx.dims(3) } else { None };
    for (i, &a) in axes.iter().enumerate() {
        let scale = scales.as_ref().and_then(|s| s.get(i)).copied();
        out[a] = match (target.as_ref().and_then(|t| t.get(i)), scale, &x[a]) {
            (Some(d), _, _) => d.clone(),
            (None, Some(1.0), d) => d.clone(),
            (None, Some(s), Dim::Known(n)) if s > 0.0 => Dim::Known((*n as f32 * s).floor() as usize),
            _ => Dim::Unknown,
        };
    }
    Ok(vec![tensor_type(dtype, Some(out))])
}

fn eval(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let roi = cx.optional(1)?.map(Tensor::to_f64s).transpose()?;
    let scales = cx.optional(2)?.map(Tensor::to_f32s).transpose()?;
    let target = cx.optional_ints(3)?;
    let p = plan(cx.attrs, x.shape(), roi.as_deref(), scales.as_deref(), target.as_deref())?;
    Ok(one(resize(x, &p)?))
}

/// Resizes a tensor by a plan made for its shape.
pub fn resize(x: &Tensor, p: &ResizePlan) -> Result<Tensor> {
    if p.output.contains(&0) {
        return Tensor::zeros(x.dtype(), &p.output);
    }
    if p.mode == Mode::Nearest && p.tables.iter().all(|t| t.outside.is_empty()) {
        let steps = strides(x.shape());
        let mut tables: Vec<Vec<Option<usize>>> =
            x.shape().iter().zip(&steps).map(|(&n, s)| (0..n).map(|i| Some(i * s)).collect()).collect();
        for t in &p.tables {
            tables[t.axis] = t.indices.iter().map(|i| Some(i * steps[t.axis])).collect();
        }
        return gather(x, &p.output, products(&tables)?.into_iter());
    }
    let mut shape: Shape = x.shape().into();
    let mut data = x.to_f64s()?;
    for t in &p.tables {
        data = along(&data, &shape, t, p.extrapolation)?;
        shape[t.axis] = t.output;
    }
    match x.dtype().int_range() {
        Some((lo, hi)) => {
            let whole = |v: f64| v.round_ties_even().clamp(lo as f64, hi as f64) as i128 as i64;
            Tensor::from_i64s(x.dtype(), &shape, data.into_iter().map(whole).collect())
        }
        None if x.dtype().is_float() => Tensor::from_f64s(x.dtype(), &shape, data),
        None => Err(Error::unsupported(format!("interpolating {} values", x.dtype()))),
    }
}

fn along(x: &[f64], shape: &[usize], t: &AxisTable, extrapolation: f64) -> Result<Vec<f64>> {
    let inner: usize = shape[t.axis + 1..].iter().product();
    let mut out_shape: Shape = shape.into();
    out_shape[t.axis] = t.output;
    let mut y = budget::filled(budget::elements(&out_shape)?, 0.0)?;
    if y.is_empty() {
        return Ok(y);
    }
    for (x, y) in x.chunks_exact(t.input * inner).zip(y.chunks_exact_mut(t.output * inner)) {
        for (i, y) in y.chunks_exact_mut(inner).enumerate() {
            if t.outside.get(i) == Some(&true) {
                y.fill(extrapolation);
                continue;
            }
            for k in i * t.taps..(i + 1) * t.taps {
                let (w, x) = (t.weights[k], &x[t.indices[k] * inner..][..inner]);
                y.iter_mut().zip(x).for_each(|(y, x)| *y += w * x);
            }
        }
    }
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(attrs: Attrs, x: &[f32], scales: Option<&[f32]>, sizes: Option<&[i64]>) -> Vec<f32> {
        let x = Tensor::vector(x.to_vec());
        let p = plan(&attrs, x.shape(), None, scales, sizes).unwrap();
        resize(&x, &p).unwrap().to_f32s().unwrap()
    }

    #[test]
    fn nearest_and_linear_upsampling() {
        let nearest =
            Attrs::new().with("coordinate_transformation_mode", "asymmetric").with("nearest_mode", "floor");
        assert_eq!(run(nearest, &[1., 2.], Some(&[2.0]), None), [1., 1., 2., 2.]);
        let linear = Attrs::new().with("mode", "linear");
        assert_eq!(run(linear.clone(), &[1., 2.], Some(&[2.0]), None), [1., 1.25, 1.75, 2.]);
        let corners = linear.clone().with("coordinate_transformation_mode", "align_corners");
        assert_eq!(run(corners, &[1., 4.], None, Some(&[4])), [1., 2., 3., 4.]);
        assert_eq!(
            run(linear.with("antialias", 1i64), &[0., 1., 2., 3.], Some(&[0.5]), None),
            [0.625, 2.375]
        );
    }

    #[test]
    fn output_lengths_round_in_single_precision() {
        assert_eq!(run(Attrs::new(), &[0.; 10], Some(&[0.7]), None).len(), 7);
    }

    #[test]
    fn hostile_sizes_are_errors() {
        let bad = |scales: Option<&[f32]>, sizes: Option<&[i64]>, x: &[usize]| {
            assert!(plan(&Attrs::new(), x, None, scales, sizes).is_err());
        };
        bad(None, None, &[2]);
        bad(Some(&[0.0]), None, &[2]);
        bad(Some(&[-1.0]), None, &[2]);
        bad(Some(&[f32::NAN]), None, &[2]);
        bad(Some(&[1e38]), None, &[2]);
        bad(Some(&[1.0, 1.0]), None, &[2]);
        bad(None, Some(&[-1]), &[2]);
        bad(None, Some(&[1 << 62]), &[2]);
        bad(None, Some(&[1]), &[0]);
        bad(Some(&[1.0]), Some(&[1]), &[2]);
        let empty = Tensor::zeros(ir::DType::F32, &[0, 1 << 40]).unwrap();
        let p = plan(&Attrs::new(), empty.shape(), None, Some(&[1.0, 1.0]), None).unwrap();
        assert_eq!(resize(&empty, &p).unwrap().shape(), empty.shape());
        let crop = Attrs::new().with("coordinate_transformation_mode", "tf_crop_and_resize");
        assert!(plan(&crop, &[2], None, Some(&[2.0]), None).is_err());
        assert!(plan(&Attrs::new().with("axes", vec![0, 0]), &[2], None, Some(&[1.0, 1.0]), None).is_err());
    }
}
