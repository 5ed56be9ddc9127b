//! TensorScatter: writes new entries into a key or value cache at each batch's own position.

use crate::broadcast::axis;
use crate::index::gather;
use crate::typing::{like_first, one};
use crate::window::check_product;
use crate::{Op, schema};
use ir::{Accuracy, Error, EvalCx, Operator, Result, Tensor, Value, budget};

pub static OPERATORS: &[&dyn Operator] =
    &[&Op::new("TensorScatter", &schema::TENSOR_SCATTER, like_first, eval).accuracy(Accuracy::Exact)];

fn eval(cx: &EvalCx) -> Result<Vec<Value>> {
    let (past, update) = (cx.tensor(0)?, cx.tensor(1)?);
    let a = axis(cx.attrs.int_or("axis", -2)?, past.rank())?;
    let circular = match cx.attrs.str_or("mode", "linear")? {
        "linear" => false,
        "circular" => true,
        m => return Err(Error::model(format!("mode '{}' is not known", m.escape_debug()))),
    };
    let fits = past.rank() == update.rank()
        && past.dtype() == update.dtype()
        && (0..past.rank()).all(|i| i == a || past.shape()[i] == update.shape()[i])
        && update.shape()[a] <= past.shape()[a];
    if a == 0 || !fits {
        return Err(Error::model(format!("update {update:?} does not fit cache {past:?} along axis {a}")));
    }
    let batch = past.shape()[0];
    let starts = match cx.optional_ints(2)? {
        Some(s) if s.len() == batch => s,
        Some(s) => {
            return Err(Error::model(format!("write_indices holds {} values for {batch} batches", s.len())));
        }
        None => budget::filled(batch, 0)?,
    };
    Ok(one(scatter(past, update, a, &starts, circular)?))
}

fn scatter(past: &Tensor, update: &Tensor, a: usize, starts: &[i64], circular: bool) -> Result<Tensor> {
    let (room, new) = (past.shape()[a], update.shape()[a]);
    for &s in starts {
        let end = usize::try_from(s).ok().and_then(|s| s.checked_add(new));
        if end.is_none_or(|e| !circular && e > room) {
            return Err(Error::data(format!("writing {new} entries at {s} leaves a cache of {room}")));
        }
    }
    if past.is_empty() {
        return Ok(past.clone());
    }
    check_product(past.shape().iter().copied())?;
    let inner: usize = past.shape()[a + 1..].iter().product();
    let per_batch = past.len() / past.shape()[0];
    // Entries of the update follow those of the cache in the index space.
    let joined = join(past, update)?;
    let from = (0..past.len()).map(|i| {
        let (block, at, rest) = (i / (room * inner), i / inner % room, i % inner);
        let start = starts[i / per_batch] as usize % room;
        let offset = if at >= start { at - start } else { at + room - start };
        let write = offset < new && (circular || at >= start);
        Some(if write { past.len() + (block * new + offset) * inner + rest } else { i })
    });
    gather(&joined, past.shape(), from)
}

/// The elements of both tensors in one vector.
fn join(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let n = a.len() + b.len();
    match a.dtype().bits() {
        0 => Tensor::strings(&[n], [a.string_data()?, b.string_data()?].concat()),
        bits if bits < 8 => Tensor::from_unpacked(a.dtype(), &[n], &[a.unpacked()?, b.unpacked()?].concat()),
        _ => Tensor::from_bytes(a.dtype(), &[n], [a.bytes(), b.bytes()].concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_wrap_only_when_circular() {
        let past = Tensor::new(&[2, 3, 1], vec![0i32; 6]).unwrap();
        let update = Tensor::new(&[2, 2, 1], vec![1, 2, 3, 4]).unwrap();
        let run = |starts: &[i64], circular| scatter(&past, &update, 1, starts, circular);
        assert_eq!(run(&[0, 1], false).unwrap().to_i64s().unwrap(), [1, 2, 0, 0, 3, 4]);
        assert_eq!(run(&[2, 4], true).unwrap().to_i64s().unwrap(), [2, 0, 1, 0, 3, 4]);
        assert!(run(&[2, 0], false).is_err() && run(&[-1, 0], true).is_err());
    }
}
