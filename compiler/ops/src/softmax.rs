//! Softmax, LogSoftmax and Hardmax along one axis.

use crate::broadcast::axis;
use crate::typing::{like_first, one};
use crate::{Op, schema};
use half::{bf16, f16};
use ir::{DType, Error, EvalCx, InferCx, Kind, Operator, Result, Tensor, Value, ValueType, budget};

pub static OPERATORS: &[&dyn Operator] = &[
    &Op::new("Softmax", &schema::SOFTMAX, infer, |cx| {
        let dtype = cx.tensor(0)?.dtype();
        eval(cx, &|line| softmax_in(dtype, line))
    })
    .kind(|_| Kind::Reduce),
    &Op::new("LogSoftmax", &schema::LOG_SOFTMAX, infer, |cx| eval(cx, &log_softmax)).kind(|_| Kind::Reduce),
    &Op::new("Hardmax", &schema::HARDMAX, infer, |cx| eval(cx, &hardmax)),
];

fn infer(cx: &InferCx) -> Result<Vec<ValueType>> {
    if let Some(rank) = cx.rank(0) {
        axis(cx.attrs.int_or("axis", -1)?, rank.max(1))?;
    }
    like_first(cx)
}

fn eval(cx: &EvalCx, f: &dyn Fn(&mut [f64])) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    Ok(one(along(x, cx.attrs.int_or("axis", -1)?, f)?))
}

/// Applies `f` in place, in f64, to every line of `x` along `axis`.
pub(crate) fn along(x: &Tensor, axis_attr: i64, f: &dyn Fn(&mut [f64])) -> Result<Tensor> {
    if !x.dtype().is_float() {
        return Err(Error::model(format!("expected a float tensor, got {}", x.dtype())));
    }
    let axis = axis(axis_attr, x.rank().max(1))?;
    let n = x.shape().get(axis).copied().unwrap_or(1);
    let mut data = x.to_f64s()?;
    if data.is_empty() {
        return Ok(x.clone());
    }
    let inner: usize = x.shape().iter().skip(axis + 1).product();
    let mut line = budget::filled(n, 0f64)?;
    for block in data.chunks_exact_mut(n * inner) {
        if inner == 1 {
            f(block);
            continue;
        }
        for i in 0..inner {
            line.iter_mut().zip(block[i..].iter().step_by(inner)).for_each(|(l, &v)| *l = v);
            f(&mut line);
            line.iter().zip(block[i..].iter_mut().step_by(inner)).for_each(|(&l, v)| *v = l);
        }
    }
    Tensor::from_f64s(x.dtype(), x.shape(), data)
}

fn max(line: &[f64]) -> f64 {
    line.iter().fold(f64::NEG_INFINITY, |m, &x| if x > m || x.is_nan() { x } else { m })
}

/// Softmax of one line, shifted by its maximum.
pub fn softmax(line: &mut [f64]) {
    let m = max(line);
    line.iter_mut().for_each(|x| *x = (*x - m).exp());
    let sum: f64 = line.iter().sum();
    line.iter_mut().for_each(|x| *x /= sum);
}

/// Most terms a sum in bfloat16 takes: a longer one stops growing.
const RUN: usize = 8;

/// Softmax of one line of a type: half floats round after each step, as the operator's function body does.
pub fn softmax_in(dtype: DType, line: &mut [f64]) {
    let Some(round) = rounding(dtype) else { return softmax(line) };
    let m = max(line);
    line.iter_mut().for_each(|x| *x = round(round(*x - m).exp()));
    let sum = match dtype {
        DType::BF16 => round(line.chunks(RUN).map(|run| run.iter().fold(0.0, |s, x| round(s + x))).sum()),
        _ => round(line.iter().sum()),
    };
    line.iter_mut().for_each(|x| *x = round(*x / sum));
}

/// Rounding to a type of half floats.
pub fn rounding(dtype: DType) -> Option<fn(f64) -> f64> {
    match dtype {
        DType::BF16 => Some(|x| bf16::from_f32(x as f32).to_f64()),
        DType::F16 => Some(|x| f16::from_f32(x as f32).to_f64()),
        _ => None,
    }
}

/// Logarithm of the softmax of one line.
pub fn log_softmax(line: &mut [f64]) {
    let m = max(line);
    let log = line.iter().map(|x| (x - m).exp()).sum::<f64>().ln();
    line.iter_mut().for_each(|x| *x = *x - m - log);
}

/// One at the first maximum, zero elsewhere.
fn hardmax(line: &mut [f64]) {
    let m = max(line);
    let first = line.iter().position(|&x| x == m || x.is_nan());
    line.iter_mut().enumerate().for_each(|(i, x)| *x = if Some(i) == first { 1.0 } else { 0.0 });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_along_an_inner_axis() {
        let x = Tensor::new(&[1, 2, 2], vec![0f32, 1000., 0., 1000.]).unwrap();
        assert_eq!(along(&x, 1, &softmax).unwrap().to_f32s().unwrap(), [0.5; 4]);
        assert_eq!(along(&x, -1, &softmax).unwrap().to_f32s().unwrap(), [0., 1., 0., 1.]);
        assert_eq!(along(&x, -1, &log_softmax).unwrap().to_f32s().unwrap(), [-1000., 0., -1000., 0.]);
        assert_eq!(along(&x, 1, &hardmax).unwrap().to_f32s().unwrap(), [1., 1., 0., 0.]);
        assert!(along(&x, 3, &softmax).is_err());
    }

    #[test]
    fn half_floats_round_after_each_step() {
        let mut line = [0.5, 0.25, -1.0];
        softmax_in(DType::BF16, &mut line);
        // exp(-0.25) and exp(-1.5) as bfloat16, then their sum, then the quotients.
        let (a, b) = (0.77734375f64, 0.22265625f64);
        let sum = 2.0; // 1 + 0.777 + 0.223 = 2.0 within bfloat16
        let r = |x: f64| bf16::from_f64(x).to_f64();
        assert_eq!(line, [0.5, r(a / sum), r(b / sum)]);
        let mut long = vec![0.0; 1000];
        softmax_in(DType::BF16, &mut long);
        assert!((long.iter().sum::<f64>() - 1.0).abs() < 0.01);
    }
}
