//! Det: determinants of batches of square matrices by elimination with partial pivoting.

use crate::typing::{one, tensor_type};
use crate::window::check_product;
use crate::{Op, schema};
use ir::{Accuracy, Dim, Error, EvalCx, InferCx, Operator, Result, Tensor, Value, ValueType, budget};

pub static OPERATORS: &[&dyn Operator] =
    &[&Op::new("Det", &schema::DET, infer, eval).accuracy(Accuracy::Accumulated)];

fn infer(cx: &InferCx) -> Result<Vec<ValueType>> {
    let shape: Option<Vec<Dim>> = match cx.shape(0) {
        Some([batch @ .., r, c]) => {
            r.merge(c)?;
            Some(batch.to_vec())
        }
        Some(s) => return Err(Error::model(format!("a tensor of rank {} holds no matrices", s.len()))),
        None => None,
    };
    Ok(vec![tensor_type(cx.dtype(0)?, shape)])
}

fn eval(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let [batch @ .., r, c] = x.shape() else {
        return Err(Error::model(format!("shape {:?} holds no matrices", x.shape())));
    };
    if r != c || !x.dtype().is_float() {
        return Err(Error::model(format!("{x:?} does not hold square matrices of floats")));
    }
    check_product(x.shape().iter().copied())?;
    let mut data = x.to_f64s()?;
    let n = budget::elements(batch)?;
    let mut y = budget::vec(n)?;
    y.extend(data.chunks_exact_mut((r * r).max(1)).map(|m| determinant(m, *r)));
    y.resize(n, 1.0);
    Ok(one(Tensor::from_f64s(x.dtype(), batch, y)?))
}

/// The determinant of an n×n row-major matrix, which is overwritten.
fn determinant(m: &mut [f64], n: usize) -> f64 {
    let mut det = 1.0;
    for k in 0..n {
        let pivot = (k..n).fold(k, |p, i| if m[i * n + k].abs() > m[p * n + k].abs() { i } else { p });
        if m[pivot * n + k] == 0.0 {
            return 0.0;
        }
        if pivot != k {
            (0..n).for_each(|j| m.swap(pivot * n + j, k * n + j));
            det = -det;
        }
        det *= m[k * n + k];
        for i in k + 1..n {
            let f = m[i * n + k] / m[k * n + k];
            (k..n).for_each(|j| m[i * n + j] -= f * m[k * n + j]);
        }
    }
    det
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pivots_keep_the_sign() {
        assert_eq!(determinant(&mut [0., 1., 1., 0.], 2), -1.0);
        assert_eq!(determinant(&mut [2., 0., 0., 0., 3., 0., 1., 1., 4.], 3), 24.0);
        assert_eq!(determinant(&mut [1., 2., 2., 4.], 2), 0.0);
        assert_eq!(determinant(&mut [], 0), 1.0);
    }
}
