//! Running sums and products along one axis: CumSum and CumProd.

use crate::arith::{Number, by_number};
use crate::broadcast::axis;
use crate::typing::{like_first, one};
use crate::window::check_product;
use crate::{Op, schema};
use ir::{Accuracy, Attrs, Error, EvalCx, Operator, Result, Tensor, Value};

pub static OPERATORS: &[&dyn Operator] = &[
    &Op::new("CumSum", &schema::CUM_SUM, like_first, |cx| eval(cx, false)).accuracy(Accuracy::Accumulated),
    &Op::new("CumProd", &schema::CUM_PROD, like_first, |cx| eval(cx, true)).accuracy(Accuracy::Accumulated),
];

fn eval(cx: &EvalCx, product: bool) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let [a] = cx.ints(1)?[..] else { return Err(Error::model("axis must be one integer")) };
    let a = axis(a, x.rank())?;
    Ok(one(by_number!(x.dtype(), scan(x, a, cx.attrs, product))?))
}

fn scan<T: Number>(x: &Tensor, a: usize, attrs: &Attrs, product: bool) -> Result<Tensor> {
    let exclusive = attrs.int_or("exclusive", 0)? != 0;
    let reverse = attrs.int_or("reverse", 0)? != 0;
    let mut data = T::read(x)?.into_owned();
    check_product(x.shape().iter().copied())?;
    let (n, inner) = (x.shape()[a], x.shape()[a + 1..].iter().product::<usize>());
    let (start, f): (T, fn(T, T) -> T) = if product { (T::ONE, T::times) } else { (T::ZERO, T::plus) };
    for block in data.chunks_exact_mut((n * inner).max(1)) {
        for i in 0..inner {
            let mut sum = start;
            for j in 0..n {
                let at = if reverse { n - 1 - j } else { j } * inner + i;
                let next = f(sum, block[at]);
                block[at] = if exclusive { sum } else { next };
                sum = next;
            }
        }
    }
    T::write(x.dtype(), x.shape(), data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exclusive_and_reverse_combine() {
        let x = Tensor::vector(vec![1i32, 2, 3]);
        let run = |exclusive: i64, reverse: i64, product| {
            let attrs = Attrs::new().with("exclusive", exclusive).with("reverse", reverse);
            scan::<i64>(&x, 0, &attrs, product).unwrap().to_i64s().unwrap()
        };
        assert_eq!(run(0, 0, false), [1, 3, 6]);
        assert_eq!(run(1, 0, false), [0, 1, 3]);
        assert_eq!(run(1, 1, false), [5, 3, 0]);
        assert_eq!(run(0, 1, true), [6, 6, 3]);
    }
}
