//! Pooling over sliding windows (MaxPool, AveragePool, LpPool) and over whole channels (Global*).

use crate::arith::{Number, Real, by_number, by_real};
use crate::typing::{one, tensor_type};
use crate::window::{Window, WindowAttrs, Windows, check_product, for_each_run};
use crate::{Op, schema};
use ir::{Accuracy, Attrs, DType, Dim, Error, EvalCx, InferCx, Kind, Operator, Result, Shape, Tensor};
use ir::{Value, ValueType, budget};

pub static OPERATORS: &[&dyn Operator] = &[
    &Op::new("MaxPool", &schema::MAX_POOL, infer_windows, eval_max)
        .kind(|_| Kind::Reduce)
        .accuracy(Accuracy::Exact),
    &Op::new("AveragePool", &schema::AVERAGE_POOL, infer_windows, eval_average)
        .kind(|_| Kind::Reduce)
        .accuracy(Accuracy::Accumulated),
    &Op::new("LpPool", &schema::LP_POOL, infer_windows, eval_lp)
        .kind(|_| Kind::Reduce)
        .accuracy(Accuracy::Accumulated),
    &Op::new("GlobalMaxPool", &schema::GLOBAL_MAX_POOL, infer_global, eval_global_max)
        .kind(|_| Kind::Reduce)
        .accuracy(Accuracy::Exact),
    &Op::new("GlobalAveragePool", &schema::GLOBAL_AVERAGE_POOL, infer_global, eval_global_average)
        .kind(|_| Kind::Reduce)
        .accuracy(Accuracy::Accumulated),
    &Op::new("GlobalLpPool", &schema::GLOBAL_LP_POOL, infer_global, eval_global_lp)
        .kind(|_| Kind::Reduce)
        .accuracy(Accuracy::Accumulated),
];

/// A pooling with all sizes known over X (batch, channels, input…).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolGeometry {
    pub batch: usize,
    pub channels: usize,
    /// One window for each spatial axis.
    pub axes: Windows,
}

impl PoolGeometry {
    /// Shape of the result: (batch, channels, output…).
    pub fn output(&self) -> Shape {
        [self.batch, self.channels].into_iter().chain(self.axes.iter().map(|w| w.output)).collect()
    }
    /// Elements of one channel of the input.
    pub fn input_plane(&self) -> usize {
        self.axes.iter().map(|w| w.input).product()
    }
    /// Elements of one channel of the output.
    pub fn output_plane(&self) -> usize {
        self.axes.iter().map(|w| w.output).product()
    }
}

/// Geometry of a pooling node for a concrete shape; all attributes checked.
pub fn geometry(attrs: &Attrs, x: &[usize]) -> Result<PoolGeometry> {
    if x.len() < 3 {
        return Err(Error::model(format!(
            "input {x:?} needs a batch, channels and at least one spatial axis"
        )));
    }
    let axes = WindowAttrs::parse(attrs, x.len() - 2, None)?.windows(&x[2..])?;
    let g = PoolGeometry { batch: x[0], channels: x[1], axes };
    check_product(g.output())?;
    check_product(x.iter().copied())?;
    Ok(g)
}

fn infer_windows(cx: &InferCx) -> Result<Vec<ValueType>> {
    let dtype = cx.dtype(0)?;
    let shape = cx.shape(0).map(|x| output_dims(cx.attrs, x)).transpose()?;
    let shape = shape.or_else(|| {
        let axes = cx.attrs.ints("kernel_shape").ok().flatten()?.len();
        Some(vec![Dim::Unknown; axes + 2])
    });
    Ok(vec![tensor_type(dtype, shape.clone()), tensor_type(dtype.map(|_| DType::I64), shape)])
}

fn output_dims(attrs: &Attrs, x: &[Dim]) -> Result<Vec<Dim>> {
    if x.len() < 3 {
        return Err(Error::model("input needs a batch, channels and at least one spatial axis"));
    }
    let windows = WindowAttrs::parse(attrs, x.len() - 2, None)?;
    let spatial = x[2..].iter().enumerate().map(|(i, d)| windows.output_dim(i, d));
    x[..2].iter().cloned().map(Ok).chain(spatial).collect()
}

fn eval_max(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let g = geometry(cx.attrs, x.shape())?;
    let column_major = cx.attrs.int_or("storage_order", 0)? != 0;
    let (y, mut indices) = by_number!(x.dtype(), max_pool(x, &g))?;
    if column_major {
        indices.iter_mut().for_each(|i| *i = to_column_major(*i, &g));
    }
    Ok(vec![y.into(), Tensor::new(&g.output(), indices)?.into()])
}

/// Maxima of all windows and their positions as row-major indices in the whole input (0 for a window of padding alone).
fn max_pool<T: Number>(x: &Tensor, g: &PoolGeometry) -> Result<(Tensor, Vec<i64>)> {
    let data = T::read(x)?;
    let nan = |v: T| v.partial_cmp(&v).is_none();
    let (plane_in, plane_out) = (g.input_plane(), g.output_plane());
    let n = budget::elements(&g.output())?;
    let mut y = budget::filled(n, T::LOWEST)?;
    let mut index = budget::filled(n, -1i64)?;
    if n > 0 && plane_in > 0 {
        let planes = y.chunks_exact_mut(plane_out).zip(index.chunks_exact_mut(plane_out));
        for (c, (y, index)) in planes.enumerate() {
            let x = &data[c * plane_in..][..plane_in];
            for_each_run(&g.axes, 0..usize::MAX, |r| {
                for i in 0..r.len {
                    let (at, v) = (r.output + i, x[r.input + i * r.stride]);
                    if index[at] < 0 || v > y[at] || (nan(v) && !nan(y[at])) {
                        y[at] = v;
                        index[at] = (c * plane_in + r.input + i * r.stride) as i64;
                    }
                }
            });
        }
    }
    index.iter_mut().for_each(|i| *i = (*i).max(0));
    Ok((T::write(x.dtype(), &g.output(), y)?, index))
}

fn to_column_major(index: i64, g: &PoolGeometry) -> i64 {
    let plane = g.input_plane() as i64;
    if plane == 0 {
        return 0;
    }
    let (base, mut rest) = (index / plane * plane, index % plane);
    let mut at = 0;
    let mut step = plane;
    for w in g.axes.iter().rev() {
        let n = w.input as i64;
        step /= n;
        at += rest % n * step;
        rest /= n;
    }
    base + at
}

fn eval_average(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let g = geometry(cx.attrs, x.shape())?;
    let include = cx.attrs.int_or("count_include_pad", 0)? != 0;
    Ok(one(by_real!(x.dtype(), average_pool(x, &g, include))?))
}

fn average_pool<T: Real>(x: &Tensor, g: &PoolGeometry, include_pads: bool) -> Result<Tensor> {
    let counts = window_counts(g, include_pads)?;
    let mut y = fold_windows::<T>(&T::read(x)?, g, |x| x)?;
    for y in y.chunks_exact_mut(counts.len().max(1)) {
        y.iter_mut().zip(&counts).for_each(|(y, &n)| *y /= T::of(n as f64));
    }
    T::write(x.dtype(), &g.output(), y)
}

/// Divisor of each window: taps in the input, or, with `include_pads`, taps in the input and its declared padding.
pub fn window_counts(g: &PoolGeometry, include_pads: bool) -> Result<Vec<usize>> {
    let mut counts = vec![1];
    for w in &g.axes {
        let (skip, end) =
            if include_pads { (0, w.input + w.pad_begin + w.pad_end) } else { (w.pad_begin, w.input) };
        let wide = Window { pad_begin: skip, input: end, ..*w };
        let mut along = budget::vec(w.output)?;
        along.extend((0..w.output).map(|o| wide.taps_at(o).len()));
        budget::check(counts.len().saturating_mul(along.len()).saturating_mul(size_of::<usize>()))?;
        counts = counts.iter().flat_map(|c| along.iter().map(move |a| c * a)).collect();
    }
    Ok(counts)
}

/// Sums of `f` over each window's elements inside the input.
fn fold_windows<T: Real>(x: &[T], g: &PoolGeometry, f: impl Fn(T) -> T) -> Result<Vec<T>> {
    let (plane_in, plane_out) = (g.input_plane(), g.output_plane());
    let mut y = budget::filled(budget::elements(&g.output())?, T::ZERO)?;
    if y.is_empty() || x.is_empty() {
        return Ok(y);
    }
    for (x, y) in x.chunks_exact(plane_in).zip(y.chunks_exact_mut(plane_out)) {
        for_each_run(&g.axes, 0..usize::MAX, |r| {
            let x = x[r.input..].iter().step_by(r.stride);
            y[r.output..][..r.len].iter_mut().zip(x).for_each(|(y, &x)| *y += f(x));
        });
    }
    Ok(y)
}

fn exponent(attrs: &Attrs) -> Result<i32> {
    let p = attrs.int_or("p", 2)?;
    i32::try_from(p).ok().filter(|&p| p > 0).ok_or_else(|| Error::model(format!("p {p} must be positive")))
}

fn eval_lp(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let g = geometry(cx.attrs, x.shape())?;
    let p = exponent(cx.attrs)?;
    Ok(one(by_real!(x.dtype(), lp_pool(x, &g, p))?))
}

fn lp_pool<T: Real>(x: &Tensor, g: &PoolGeometry, p: i32) -> Result<Tensor> {
    let mut y = fold_windows::<T>(&T::read(x)?, g, |x| x.abs().powi(p))?;
    y.iter_mut().for_each(|y| *y = root(*y, p));
    T::write(x.dtype(), &g.output(), y)
}

fn root<T: Real>(x: T, p: i32) -> T {
    match p {
        1 => x,
        2 => x.sqrt(),
        p => x.powf(T::of(1.0 / f64::from(p))),
    }
}

fn infer_global(cx: &InferCx) -> Result<Vec<ValueType>> {
    let shape = match cx.shape(0) {
        Some(x) if x.len() < 2 => return Err(Error::model("input needs a batch and channels")),
        Some(x) => {
            Some(x.iter().enumerate().map(|(i, d)| if i < 2 { d.clone() } else { Dim::Known(1) }).collect())
        }
        None => None,
    };
    Ok(vec![tensor_type(cx.dtype(0)?, shape)])
}

/// Folds each channel to one number in f64.
fn global(x: &Tensor, f: impl Fn(&mut dyn Iterator<Item = f64>) -> f64) -> Result<Vec<Value>> {
    if x.rank() < 2 {
        return Err(Error::model(format!("input {:?} needs a batch and channels", x.shape())));
    }
    let (outer, spatial) = x.shape().split_at(2);
    let plane = spatial.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).unwrap_or(0);
    let data = x.to_f64s()?;
    let n = budget::elements(outer)?;
    let mut y = budget::vec(n)?;
    y.extend((0..n).map(|i| f(&mut data.iter().skip(i * plane).take(plane).copied())));
    let shape: Shape = outer.iter().copied().chain(spatial.iter().map(|_| 1)).collect();
    Ok(one(Tensor::from_f64s(x.dtype(), &shape, y)?))
}

fn eval_global_max(cx: &EvalCx) -> Result<Vec<Value>> {
    let max = |m: f64, x: f64| if x > m || x.is_nan() { x } else { m };
    global(cx.tensor(0)?, |v| v.fold(f64::NEG_INFINITY, max))
}

fn eval_global_average(cx: &EvalCx) -> Result<Vec<Value>> {
    global(cx.tensor(0)?, |v| {
        let (n, sum) = v.fold((0u64, 0.0), |(n, s), x| (n + 1, s + x));
        sum / n as f64
    })
}

fn eval_global_lp(cx: &EvalCx) -> Result<Vec<Value>> {
    let p = exponent(cx.attrs)?;
    global(cx.tensor(0)?, |v| root(v.map(|x| x.abs().powi(p)).sum(), p))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attrs() -> Attrs {
        Attrs::new().with("kernel_shape", vec![2, 2]).with("strides", vec![2, 2])
    }

    fn ramp(shape: &[usize]) -> Tensor {
        let n = shape.iter().product::<usize>();
        Tensor::new(shape, (1..=n).map(|i| i as f32).collect()).unwrap()
    }

    #[test]
    fn max_with_indices_in_both_orders() {
        let x = ramp(&[1, 1, 4, 4]);
        let g = geometry(&attrs(), x.shape()).unwrap();
        let (y, index) = max_pool::<f32>(&x, &g).unwrap();
        assert_eq!(y.to_f32s().unwrap(), [6., 8., 14., 16.]);
        assert_eq!(index, [5, 7, 13, 15]);
        let column: Vec<i64> = index.iter().map(|&i| to_column_major(i, &g)).collect();
        assert_eq!(column, [5, 13, 7, 15]);
    }

    #[test]
    fn ceil_mode_drops_windows_that_start_in_padding() {
        let a = attrs().with("ceil_mode", 1i64).with("pads", vec![1, 1, 1, 1]);
        let g = geometry(&a, &[1, 1, 3, 3]).unwrap();
        assert_eq!(g.output()[..], [1, 1, 2, 2]);
        let counts = |include| window_counts(&g, include).unwrap();
        assert_eq!((counts(false), counts(true)), (vec![1, 2, 2, 4], vec![4; 4]));
    }

    #[test]
    fn averages_exclude_padding_unless_asked() {
        let a = attrs().with("pads", vec![1, 1, 0, 0]);
        let x = ramp(&[1, 1, 3, 3]);
        let g = geometry(&a, x.shape()).unwrap();
        let y = average_pool::<f32>(&x, &g, false).unwrap();
        assert_eq!(y.to_f32s().unwrap(), [1.0, 2.5, 5.5, 7.0]);
        let y = average_pool::<f32>(&x, &g, true).unwrap();
        assert_eq!(y.to_f32s().unwrap(), [0.25, 1.25, 2.75, 7.0]);
    }

    #[test]
    fn hostile_shapes_are_errors() {
        assert!(geometry(&attrs(), &[1, 1, 4]).is_err());
        assert!(geometry(&attrs(), &[1, 1, 1, 4]).is_err());
        assert!(geometry(&attrs(), &[0, 1 << 60, 1 << 50, 2]).is_err());
        assert!(geometry(&Attrs::new(), &[1, 1, 4, 4]).is_err());
    }
}
