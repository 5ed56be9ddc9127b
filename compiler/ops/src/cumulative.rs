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
    let lines = data.chunks_exact_mut((n * inner).max(1));
    match (product, exclusive) {
        (false, false) => lines.for_each(|l| along(l, n, inner, reverse, T::ZERO, T::plus, |_, next| next)),
        (false, true) => lines.for_each(|l| along(l, n, inner, reverse, T::ZERO, T::plus, |sum, _| sum)),
        (true, false) => lines.for_each(|l| along(l, n, inner, reverse, T::ONE, T::times, |_, next| next)),
        (true, true) => lines.for_each(|l| along(l, n, inner, reverse, T::ONE, T::times, |sum, _| sum)),
    }
    T::write(x.dtype(), x.shape(), data)
}

/// One block of `n` steps of `inner` elements; `keep` picks from what was there before an element and with it.
fn along<T: Number>(
    block: &mut [T],
    n: usize,
    inner: usize,
    reverse: bool,
    start: T,
    f: impl Fn(T, T) -> T,
    keep: impl Fn(T, T) -> T,
) {
    for i in 0..inner {
        let mut sum = start;
        let mut step = |x: &mut T| {
            let next = f(sum, *x);
            *x = keep(sum, next);
            sum = next;
        };
        match (reverse, inner) {
            (false, 1) => block.iter_mut().for_each(step),
            (true, _) => block[i..].iter_mut().step_by(inner).rev().for_each(step),
            (false, _) => (0..n).for_each(|j| step(&mut block[j * inner + i])),
        }
    }
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
