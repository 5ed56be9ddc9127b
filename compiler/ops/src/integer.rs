//! Exact integer products: MatMulInteger, ConvInteger, QLinearMatMul, QLinearConv.

use crate::conv::{conv, geometry, output_dims};
use crate::matmul::{self, product, product_dims};
use crate::typing::{one, tensor_type};
use crate::{Op, schema};
use ir::{DType, Error, EvalCx, InferCx, Kind, Operator, Result, Tensor, Value, ValueType};

pub static OPERATORS: &[&dyn Operator] = &[
    &Op::new("MatMulInteger", &schema::MAT_MUL_INTEGER, infer_matmul_integer, |cx| {
        let (a, b) = (
            shifted(cx.tensor(0)?, cx.optional(2)?, Side::Rows)?,
            shifted(cx.tensor(1)?, cx.optional(3)?, Side::Columns)?,
        );
        let g = matmul::geometry(cx.tensor(0)?.shape(), cx.tensor(1)?.shape())?;
        Ok(one(Tensor::new(&g.output, product::<i32>(&a, &b, &g)?)?))
    })
    .kind(|_| Kind::Contract),
    &Op::new("ConvInteger", &schema::CONV_INTEGER, infer_conv_integer, |cx| {
        let (x, w) = (cx.tensor(0)?, cx.tensor(1)?);
        let g = geometry(cx.attrs, x.shape(), w.shape())?;
        let (a, b) = (shifted(x, cx.optional(2)?, Side::Whole)?, shifted(w, cx.optional(3)?, Side::First)?);
        Ok(one(Tensor::new(&g.output(), conv::<i32>(&a, &b, None, &g)?)?))
    })
    .kind(|_| Kind::Contract),
    &Op::new("QLinearMatMul", &schema::Q_LINEAR_MAT_MUL, infer_q_matmul, q_matmul).kind(|_| Kind::Contract),
    &Op::new("QLinearConv", &schema::Q_LINEAR_CONV, infer_q_conv, q_conv).kind(|_| Kind::Contract),
];

/// Along which part of a tensor its zero points or scales run.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Side {
    /// One for all.
    Whole,
    /// One per row: the dim before the last.
    Rows,
    /// One per column: the last dim.
    Columns,
    /// One per entry of the first dim.
    First,
    /// One per entry of the second dim.
    Second,
}

impl Side {
    /// Index of the parameter of element `i`, of `n` parameters.
    fn index(self, shape: &[usize], n: usize, i: usize) -> usize {
        if n <= 1 {
            return 0;
        }
        let last = shape.last().copied().unwrap_or(1).max(1);
        match self {
            Side::Whole => 0,
            Side::Columns => i % last,
            Side::Rows => i / last % n,
            Side::First => i / shape.get(1..).map_or(1, |s| s.iter().product::<usize>()).max(1),
            Side::Second => i / shape.get(2..).map_or(1, |s| s.iter().product::<usize>()).max(1) % n,
        }
    }

    fn check(self, shape: &[usize], n: usize) -> Result<()> {
        let want = match self {
            Side::Whole => 1,
            Side::Columns => shape.last().copied().unwrap_or(1),
            Side::Rows => shape.iter().rev().nth(1).copied().unwrap_or(1),
            Side::First => shape.first().copied().unwrap_or(1),
            Side::Second => shape.get(1).copied().unwrap_or(1),
        };
        if n == 1 || n == want {
            Ok(())
        } else {
            Err(Error::model(format!("{n} quantization parameters for {want} channels")))
        }
    }
}

/// Elements less their zero points.
pub(crate) fn shifted(t: &Tensor, zero: Option<&Tensor>, side: Side) -> Result<Vec<i32>> {
    let v = t.to_i64s()?;
    let zero = zero.map_or(Ok(vec![0]), Tensor::to_i64s)?;
    side.check(t.shape(), zero.len())?;
    let at = |i: usize| zero.get(side.index(t.shape(), zero.len(), i)).copied().unwrap_or(0);
    Ok(v.into_iter().enumerate().map(|(i, x)| (x - at(i)) as i32).collect())
}

fn infer_matmul_integer(cx: &InferCx) -> Result<Vec<ValueType>> {
    let shape = match (cx.shape(0), cx.shape(1)) {
        (Some(a), Some(b)) => Some(product_dims(a, b)?),
        _ => None,
    };
    Ok(vec![tensor_type(Some(DType::I32), shape)])
}

fn infer_conv_integer(cx: &InferCx) -> Result<Vec<ValueType>> {
    Ok(vec![tensor_type(Some(DType::I32), output_dims(cx.attrs, cx.shape(0), cx.shape(1))?)])
}

fn infer_q_matmul(cx: &InferCx) -> Result<Vec<ValueType>> {
    let shape = match (cx.shape(0), cx.shape(3)) {
        (Some(a), Some(b)) => Some(product_dims(a, b)?),
        _ => None,
    };
    Ok(vec![tensor_type(cx.dtype(7)?, shape)])
}

fn infer_q_conv(cx: &InferCx) -> Result<Vec<ValueType>> {
    Ok(vec![tensor_type(cx.dtype(7)?, output_dims(cx.attrs, cx.shape(0), cx.shape(3))?)])
}

/// One scalar parameter.
fn scalar(cx: &EvalCx, i: usize) -> Result<f64> {
    let t = cx.tensor(i)?;
    match t.to_f64s()?.as_slice() {
        [x] => Ok(*x),
        _ => Err(Error::model(format!("input {i} must be a scalar, got shape {:?}", t.shape()))),
    }
}

/// Sums times a factor, rounded half to even, plus the zero point, saturated.
fn requantize(
    sums: Vec<i32>,
    shape: &[usize],
    dtype: DType,
    zero: f64,
    factor: impl Fn(usize) -> f64,
) -> Result<Tensor> {
    let Some((lo, hi)) = dtype.int_range() else {
        return Err(Error::unsupported(format!("integer products with {dtype} results")));
    };
    let (lo, hi) = (lo as f64, hi as f64);
    let one = |(i, s): (usize, i32)| {
        // The factor is a float32 in every runtime.
        let v = (s as f32 * factor(i) as f32).round_ties_even();
        (f64::from(v) + zero).clamp(lo, hi) as i64
    };
    Tensor::from_i64s(dtype, shape, sums.into_iter().enumerate().map(one).collect())
}

fn q_matmul(cx: &EvalCx) -> Result<Vec<Value>> {
    let (a, b) = (cx.tensor(0)?, cx.tensor(3)?);
    let x = shifted(a, cx.optional(2)?, Side::Rows)?;
    let w = shifted(b, cx.optional(5)?, Side::Columns)?;
    let g = matmul::geometry(a.shape(), b.shape())?;
    let (sa, sb, sy) = (cx.tensor(1)?.to_f64s()?, cx.tensor(4)?.to_f64s()?, scalar(cx, 6)?);
    Side::Rows.check(a.shape(), sa.len())?;
    // A vector is one column.
    Side::Columns.check(if b.rank() < 2 { &[] } else { b.shape() }, sb.len())?;
    let sums = product::<i32>(&x, &w, &g)?;
    let out = g.output.clone();
    let at = |s: &[f64], side: Side, i: usize| s.get(side.index(&out, s.len(), i)).copied().unwrap_or(0.0);
    let factor = |i: usize| at(&sa, Side::Rows, i) * at(&sb, Side::Columns, i) / sy;
    Ok(one(requantize(sums, &g.output, cx.tensor(7)?.dtype(), scalar(cx, 7)?, factor)?))
}

fn q_conv(cx: &EvalCx) -> Result<Vec<Value>> {
    let (x, w) = (cx.tensor(0)?, cx.tensor(3)?);
    let g = geometry(cx.attrs, x.shape(), w.shape())?;
    let a = shifted(x, cx.optional(2)?, Side::Whole)?;
    let b = shifted(w, cx.optional(5)?, Side::First)?;
    let bias = cx.optional(8)?.map(|t| t.data::<i32>()).transpose()?;
    let sums = conv::<i32>(&a, &b, bias.as_deref(), &g)?;
    let (sx, sw, sy) = (scalar(cx, 1)?, cx.tensor(4)?.to_f64s()?, scalar(cx, 6)?);
    Side::First.check(w.shape(), sw.len())?;
    let plane = g.output_plane().max(1);
    let channel = |i: usize| if sw.len() == 1 { 0 } else { i / plane % g.out_channels.max(1) };
    let factor = |i: usize| sx * sw.get(channel(i)).copied().unwrap_or(0.0) / sy;
    Ok(one(requantize(sums, &g.output(), cx.tensor(7)?.dtype(), scalar(cx, 7)?, factor)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_points_are_taken_off() {
        let t = Tensor::new(&[2, 2], vec![10u8, 20, 30, 40]).unwrap();
        let z = Tensor::vector(vec![10u8, 20]);
        assert_eq!(shifted(&t, Some(&z), Side::Columns).unwrap(), [0, 0, 20, 20]);
        assert_eq!(shifted(&t, Some(&z), Side::Rows).unwrap(), [0, 10, 10, 20]);
        assert!(shifted(&t, Some(&Tensor::vector(vec![1u8, 2, 3])), Side::Rows).is_err());
    }

    #[test]
    fn requantized_values_round_to_even_and_saturate() {
        let y = requantize(vec![1, 3, 1000, -1000], &[4], DType::U8, 10.0, |_| 0.5).unwrap();
        assert_eq!(y.to_i64s().unwrap(), [10, 12, 255, 0]);
    }
}
