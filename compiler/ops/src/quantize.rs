//! QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear: per tensor, per axis and in blocks.

use crate::broadcast::axis;
use crate::cast::cast;
use crate::typing::{one, tensor_type};
use crate::{Op, schema};
use ir::{Attrs, DType, Dim, Error, EvalCx, InferCx, Operator, Result, Tensor, Value, ValueType, budget};

pub static OPERATORS: &[&dyn Operator] = &[
    &Op::new("DequantizeLinear", &schema::DEQUANTIZE_LINEAR, infer_dequantize, |cx| {
        let to = output_dtype(cx.attrs)?.unwrap_or(cx.tensor(1)?.dtype());
        Ok(one(dequantize(cx.tensor(0)?, cx.tensor(1)?, cx.optional(2)?, cx.attrs, to)?))
    }),
    &Op::new("QuantizeLinear", &schema::QUANTIZE_LINEAR, infer_quantize, |cx| Ok(one(quantize(cx)?))),
    &Op::new("DynamicQuantizeLinear", &schema::DYNAMIC_QUANTIZE_LINEAR, infer_dynamic, |cx| {
        dynamic(cx.tensor(0)?)
    }),
];

fn output_dtype(attrs: &Attrs) -> Result<Option<DType>> {
    match attrs.int_or("output_dtype", 0)? {
        0 => Ok(None),
        n => i32::try_from(n)
            .ok()
            .and_then(DType::from_onnx)
            .map(Some)
            .ok_or_else(|| Error::unsupported(format!("element type number {n}"))),
    }
}

fn infer_dequantize(cx: &InferCx) -> Result<Vec<ValueType>> {
    cx.dtype(0)?;
    let dtype = output_dtype(cx.attrs)?.or(cx.dtype(1)?);
    Ok(vec![tensor_type(dtype, cx.shape(0).map(<[Dim]>::to_vec))])
}

fn infer_quantize(cx: &InferCx) -> Result<Vec<ValueType>> {
    cx.dtype(0)?;
    let zero = if cx.inputs.get(2).is_some_and(Option::is_some) { cx.dtype(2)? } else { Some(DType::U8) };
    let dtype = match (output_dtype(cx.attrs)?, cx.inputs.get(2).is_some_and(Option::is_some)) {
        (Some(d), false) => Some(d),
        _ => zero,
    };
    Ok(vec![tensor_type(dtype, cx.shape(0).map(<[Dim]>::to_vec))])
}

fn infer_dynamic(cx: &InferCx) -> Result<Vec<ValueType>> {
    cx.dtype(0)?;
    let scalar = |d| ValueType::tensor(d, Vec::new());
    let y = tensor_type(Some(DType::U8), cx.shape(0).map(<[Dim]>::to_vec));
    Ok(vec![y, scalar(DType::F32), scalar(DType::U8)])
}

/// Which scale belongs to which element: index `(i / outer)·rows + (i / inner % axis) / block · inner…`, as strides.
struct Lanes {
    /// Elements after the axis.
    inner: usize,
    /// Size of the axis.
    size: usize,
    /// Elements of the axis that share a scale.
    block: usize,
    /// Scales along the axis; 1 when one scale serves all.
    count: usize,
    /// Scales vary over the other axes too.
    full: bool,
}

impl Lanes {
    fn of(x: &Tensor, scale: &Tensor, attrs: &Attrs) -> Result<Lanes> {
        if scale.len() == 1 && attrs.int_or("block_size", 0)? == 0 {
            return Ok(Lanes { inner: 1, size: 1, block: 1, count: 1, full: false });
        }
        let at = axis(attrs.int_or("axis", 1)?, x.rank())?;
        let size = x.shape()[at];
        let inner = crate::movement::volume(&x.shape()[at + 1..]);
        let block = usize::try_from(attrs.int_or("block_size", 0)?)
            .map_err(|_| Error::model("attribute 'block_size' must not be negative"))?;
        if block == 0 {
            if scale.rank() != 1 || scale.len() != size {
                return Err(Error::model(format!("{size} scales are needed, got shape {:?}", scale.shape())));
            }
            return Ok(Lanes { inner, size, block: 1, count: size, full: false });
        }
        let mut want = x.shape().to_vec();
        want[at] = size.div_ceil(block);
        if scale.shape() != want.as_slice() {
            return Err(Error::model(format!(
                "blocks of {block} need scales of shape {want:?}, got {:?}",
                scale.shape()
            )));
        }
        Ok(Lanes { inner, size, block, count: want[at], full: true })
    }

    /// Bytes dequantized run by run: elements that share a scale lie together, unless scales come in blocks.
    fn runs(&self, x: &Tensor, scales: &[f32], zeros: Option<&[f64]>) -> Result<Vec<f32>> {
        let mut out = budget::vec::<f32>(x.len())?;
        let run = if self.count == 1 { x.len() } else { self.inner };
        for (i, bytes) in x.bytes().chunks(run.max(1)).enumerate() {
            let lane = if self.count == 1 { 0 } else { i % self.size.max(1) };
            let (scale, zero) = (scales[lane], zeros.map_or(0.0, |z| z[lane]));
            let value = |v: f64| (v - zero) as f32 * scale;
            if x.dtype() == DType::I8 {
                out.extend(bytes.iter().map(|&b| value(f64::from(b as i8))));
            } else {
                out.extend(bytes.iter().map(|&b| value(f64::from(b))));
            }
        }
        Ok(out)
    }

    /// Index of the scale of element `i`.
    fn at(&self, i: usize) -> usize {
        if self.count == 1 && !self.full {
            return 0;
        }
        let along = i / self.inner.max(1) % self.size.max(1) / self.block;
        if !self.full {
            return along;
        }
        let outer = i / (self.inner * self.size).max(1);
        (outer * self.count + along) * self.inner + i % self.inner.max(1)
    }
}

fn zeros(zero: Option<&Tensor>, scale: &Tensor) -> Result<Option<Vec<f64>>> {
    match zero {
        Some(z) if z.len() != scale.len() => Err(Error::model(format!(
            "the zero point has shape {:?}, the scale {:?}",
            z.shape(),
            scale.shape()
        ))),
        Some(z) => z.to_f64s().map(Some),
        None => Ok(None),
    }
}

/// `(x − zero)·scale`, computed in single precision and rounded to `to`.
fn dequantize(x: &Tensor, scale: &Tensor, zero: Option<&Tensor>, attrs: &Attrs, to: DType) -> Result<Tensor> {
    let lanes = Lanes::of(x, scale, attrs)?;
    let (scales, zeros) = (scale.to_f32s()?, zeros(zero, scale)?);
    if matches!(x.dtype(), DType::U8 | DType::I8) && !lanes.full {
        let out = lanes.runs(x, &scales, zeros.as_deref())?;
        return cast(&Tensor::new(x.shape(), out)?, to, true);
    }
    let mut out = budget::vec::<f32>(x.len())?;
    let mut push = |i: usize, v: f64| {
        let lane = lanes.at(i);
        let z = zeros.as_ref().map_or(0.0, |z| z[lane]);
        out.push((v - z) as f32 * scales[lane]);
    };
    match x.dtype() {
        DType::U8 | DType::U4 | DType::U2 => {
            x.unpacked()?.iter().enumerate().for_each(|(i, &v)| push(i, f64::from(v)));
        }
        DType::I8 | DType::I4 | DType::I2 => {
            x.unpacked()?.iter().enumerate().for_each(|(i, &v)| push(i, f64::from(v as i8)));
        }
        _ => x.to_f64s()?.into_iter().enumerate().for_each(|(i, v)| push(i, v)),
    }
    cast(&Tensor::new(x.shape(), out)?, to, true)
}

fn quantize(cx: &EvalCx) -> Result<Tensor> {
    let (x, scale, zero) = (cx.tensor(0)?, cx.tensor(1)?, cx.optional(2)?);
    let to = zero.map(Tensor::dtype).or(output_dtype(cx.attrs)?).unwrap_or(DType::U8);
    let lanes = Lanes::of(x, scale, cx.attrs)?;
    let (scales, zeros) = (scale.to_f32s()?, zeros(zero, scale)?);
    let values = x.to_f32s()?;
    // An integer divided by a float scale is divided in that type; half stays half before rounding.
    let half = scale.dtype() == DType::F16 && x.dtype() == DType::F16;
    let quotient = |i: usize, v: f32| {
        let q = v / scales[lanes.at(i)];
        if half { half::f16::from_f32(q).to_f32() } else { q }
    };
    let zero_of = |i: usize| zeros.as_ref().map_or(0.0, |z| z[lanes.at(i)]);
    match to.int_range() {
        Some((lo, hi)) => {
            let (lo, hi) = (lo as f64, hi as f64);
            let round = |(i, &v): (usize, &f32)| {
                let q = f64::from(quotient(i, v).round_ties_even()) + zero_of(i);
                // NaN has no place in the integers: it becomes the lowest, as with the vector instructions of every runtime.
                if q.is_nan() { lo as i64 } else { q.clamp(lo, hi) as i64 }
            };
            Tensor::from_i64s(to, x.shape(), values.iter().enumerate().map(round).collect())
        }
        None => {
            let saturate = cx.attrs.int_or("saturate", 1)? != 0;
            let q = values.iter().enumerate().map(|(i, &v)| quotient(i, v) + zero_of(i) as f32).collect();
            cast(&Tensor::new(x.shape(), q)?, to, saturate)
        }
    }
}

/// Scale and zero point that cover the values and zero, then QuantizeLinear to uint8.
fn dynamic(x: &Tensor) -> Result<Vec<Value>> {
    let values = x.to_f32s()?;
    let (scale, zero) = dynamic_parameters(&values);
    let code = |&v: &f32| dynamic_code(v, scale, zero);
    let y = Tensor::new(x.shape(), values.iter().map(code).collect::<Vec<u8>>())?;
    Ok(vec![y.into(), Tensor::scalar(scale).into(), Tensor::scalar(zero as u8).into()])
}

/// Scale and zero point that cover the values and zero.
pub(crate) fn dynamic_parameters(values: &[f32]) -> (f32, f32) {
    let (lo, hi) = values.iter().fold((0f32, 0f32), |(a, b), &v| (a.min(v), b.max(v)));
    // All zero: any scale will do, and dividing by none will not.
    let scale = (hi - lo) / 255.0;
    let scale = if scale > 0.0 { scale } else { 1.0 };
    (scale, (-lo / scale).round_ties_even().clamp(0.0, 255.0))
}

pub(crate) fn dynamic_code(v: f32, scale: f32, zero: f32) -> u8 {
    ((v / scale).round_ties_even() + zero).clamp(0.0, 255.0) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;

    fn attrs(axis: i64, block: i64) -> Attrs {
        Attrs::new().with("axis", axis).with("block_size", block)
    }

    #[test]
    fn blocks_of_int4_have_their_own_scales() {
        let x = Tensor::from_i64s(DType::I4, &[2, 5], vec![1, 2, 3, 4, 5, -1, -2, -3, -4, -5]).unwrap();
        let s = Tensor::new(&[2, 3], vec![1f32, 10.0, 100.0, 1.0, 10.0, 100.0]).unwrap();
        let y = dequantize(&x, &s, None, &attrs(1, 2), DType::F32).unwrap();
        assert_eq!(
            &*y.data::<f32>().unwrap(),
            [1.0, 2.0, 30.0, 40.0, 500.0, -1.0, -2.0, -30.0, -40.0, -500.0]
        );
        let s = Tensor::new(&[1, 5], vec![1f32, 2.0, 3.0, 4.0, 5.0]).unwrap();
        let y = dequantize(&x, &s, None, &attrs(0, 2), DType::F32).unwrap();
        assert_eq!(y.data::<f32>().unwrap()[5..], [-1.0, -4.0, -9.0, -16.0, -25.0]);
    }

    #[test]
    fn per_axis_with_zero_points_and_half_scales() {
        let x = Tensor::new(&[2, 2], vec![10u8, 20, 30, 40]).unwrap();
        let s = Tensor::vector(vec![f16::from_f32(0.5), f16::from_f32(2.0)]);
        let z = Tensor::vector(vec![10u8, 20]);
        let y = dequantize(&x, &s, Some(&z), &attrs(0, 0), DType::F16).unwrap();
        assert_eq!(y.to_f32s().unwrap(), [0.0, 5.0, 20.0, 40.0]);
        assert_eq!(y.dtype(), DType::F16);
    }

    #[test]
    fn scales_that_do_not_fit_are_errors() {
        let x = Tensor::new(&[2, 2], vec![1u8, 2, 3, 4]).unwrap();
        let s = Tensor::vector(vec![1f32, 1.0, 1.0]);
        assert!(dequantize(&x, &s, None, &attrs(0, 0), DType::F32).is_err());
        assert!(dequantize(&x, &s, None, &attrs(9, 0), DType::F32).is_err());
        assert!(dequantize(&x, &s, None, &attrs(0, 2), DType::F32).is_err());
    }

    #[test]
    fn dynamic_quantization_follows_the_specification() {
        let x = Tensor::vector(vec![0f32, 2.0, -3.0, -2.5, 1.34, 0.5]);
        let r = dynamic(&x).unwrap();
        // onnx/docs/Operators.md, DynamicQuantizeLinear, first example.
        assert_eq!(&*r[0].tensor().unwrap().data::<u8>().unwrap(), [153, 255, 0, 26, 221, 179]);
        assert_eq!(r[2].tensor().unwrap().to_i64s().unwrap(), [153]);
    }
}
