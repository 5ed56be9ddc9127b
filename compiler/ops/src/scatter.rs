//! ScatterElements and ScatterND with reductions.

use crate::broadcast::axis;
use crate::gather::{element_offsets, nd_offsets};
use crate::movement::overwrite;
use crate::typing::{like_first, one};
use crate::{Op, schema};
use half::{bf16, f16};
use ir::{DType, Element, Error, EvalCx, Operator, Result, Tensor, Value, budget};

pub static OPERATORS: &[&dyn Operator] = &[
    &Op::new("ScatterElements", &schema::SCATTER_ELEMENTS, like_first, eval_elements),
    &Op::new("ScatterND", &schema::SCATTER_ND, like_first, eval_nd),
];

/// How an update meets what is there already.
#[derive(Clone, Copy)]
enum Reduction {
    Add,
    Mul,
    Max,
    Min,
}

fn reduction(cx: &EvalCx) -> Result<Option<Reduction>> {
    Ok(match cx.attrs.str_or("reduction", "none")? {
        "none" => None,
        "add" => Some(Reduction::Add),
        "mul" => Some(Reduction::Mul),
        "max" => Some(Reduction::Max),
        "min" => Some(Reduction::Min),
        r => return Err(Error::model(format!("unknown reduction '{r}'"))),
    })
}

/// Element types that reductions work on; sums and products of integers wrap, extrema pass NaN on.
trait Number: Element {
    fn reduce(self, op: Reduction, o: Self) -> Self;
}

macro_rules! numbers {
    ($([$($t:ty),*] $a:ident, $b:ident: $add:expr, $mul:expr, $unordered:expr;)*) => {$($(
        impl Number for $t {
            fn reduce(self, op: Reduction, o: Self) -> Self {
                let ($a, $b) = (self, o);
                match op {
                    Reduction::Add => $add,
                    Reduction::Mul => $mul,
                    Reduction::Max if $a > $b || $unordered => $a,
                    Reduction::Min if $a < $b || $unordered => $a,
                    Reduction::Max | Reduction::Min => $b,
                }
            }
        }
    )*)*};
}
numbers! {
    [u8, u16, u32, u64, i8, i16, i32, i64] a, b: a.wrapping_add(b), a.wrapping_mul(b), false;
    [f32, f64, f16, bf16] a, b: a + b, a * b, a.is_nan();
    [bool] a, b: a | b, a & b, false;
}

fn reduced<T: Number>(
    x: &Tensor,
    updates: &Tensor,
    at: &[usize],
    run: usize,
    op: Reduction,
) -> Result<Tensor> {
    budget::bytes(x.dtype(), x.shape())?;
    let (mut y, u) = (x.data::<T>()?.into_owned(), updates.data::<T>()?);
    for (k, &a) in at.iter().enumerate() {
        let (to, from) = (y.get_mut(a..a + run), u.get(k * run..(k + 1) * run));
        let (Some(to), Some(from)) = (to, from) else {
            return Err(Error::internal("update out of bounds"));
        };
        to.iter_mut().zip(from).for_each(|(t, &u)| *t = t.reduce(op, u));
    }
    Tensor::new(x.shape(), y)
}

/// Writes update `k` (a run of elements) at element `at[k]`, in order.
fn scatter(x: &Tensor, updates: &Tensor, at: &[usize], run: usize, op: Option<Reduction>) -> Result<Tensor> {
    let Some(op) = op else { return overwrite(x, updates, at, run) };
    if updates.dtype() != x.dtype() || at.len().checked_mul(run) != Some(updates.len()) {
        return Err(Error::model(format!("updates {:?} do not fit", updates.shape())));
    }
    if updates.is_empty() {
        return Ok(x.clone());
    }
    macro_rules! dispatch {
        ($($d:ident $t:ty),*) => {
            match x.dtype() {
                $(DType::$d => reduced::<$t>(x, updates, at, run, op),)*
                d => Err(Error::unsupported(format!("reductions of {d}"))),
            }
        };
    }
    dispatch!(F32 f32, F64 f64, F16 f16, BF16 bf16, U8 u8, U16 u16, U32 u32, U64 u64, I8 i8, I16 i16, I32 i32,
        I64 i64, Bool bool)
}

fn eval_elements(cx: &EvalCx) -> Result<Vec<Value>> {
    let (x, indices, updates) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
    let a = axis(cx.attrs.int_or("axis", 0)?, x.rank())?;
    let fits = indices.rank() == x.rank()
        && updates.shape() == indices.shape()
        && (0..x.rank()).all(|d| d == a || indices.shape()[d] <= x.shape()[d]);
    if !fits {
        return Err(Error::model(format!("indices {:?} do not fit data {:?}", indices.shape(), x.shape())));
    }
    let at = element_offsets(x.shape(), indices, a)?;
    Ok(one(scatter(x, updates, &at, 1, reduction(cx)?)?))
}

fn eval_nd(cx: &EvalCx) -> Result<Vec<Value>> {
    let (x, indices, updates) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
    let (at, _, run) = nd_offsets(x.shape(), indices, 0)?;
    Ok(one(scatter(x, updates, &at, run, reduction(cx)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::apply;
    use ir::Attrs;

    fn scattered(reduction: &str, updates: Vec<f32>) -> Vec<f64> {
        let inputs = [
            Tensor::vector(vec![1f32, 2.0, 3.0]),
            Tensor::new::<i64>(&[3, 1], vec![1, -2, 0]).unwrap(),
            Tensor::vector(updates),
        ];
        apply("ScatterND", Attrs::new().with("reduction", reduction), &inputs).unwrap().to_f64s().unwrap()
    }

    #[test]
    fn updates_of_one_place_meet_in_order() {
        assert_eq!(scattered("none", vec![5.0, 6.0, 7.0]), [7.0, 6.0, 3.0]);
        assert_eq!(scattered("add", vec![5.0, 6.0, 7.0]), [8.0, 13.0, 3.0]);
        assert_eq!(scattered("mul", vec![5.0, 6.0, 7.0]), [7.0, 60.0, 3.0]);
        assert_eq!(scattered("max", vec![5.0, 6.0, 0.0]), [1.0, 6.0, 3.0]);
        assert_eq!(scattered("min", vec![5.0, 1.5, 0.0]), [0.0, 1.5, 3.0]);
        assert!(scattered("max", vec![f32::NAN, 6.0, 0.0])[1].is_nan());
        assert!(scattered("min", vec![6.0, f32::NAN, 0.0])[1].is_nan());
    }

    #[test]
    fn indices_outside_are_errors() {
        let x = Tensor::vector(vec![1i64, 2]);
        let run = |i: i64| {
            let inputs = [x.clone(), Tensor::vector(vec![i]), Tensor::vector(vec![9i64])];
            apply("ScatterElements", Attrs::new(), &inputs)?.to_i64s()
        };
        assert_eq!(run(-1).unwrap(), [1, 9]);
        assert!(run(2).is_err() && run(i64::MIN).is_err());
    }
}
