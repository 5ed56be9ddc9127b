//! Rotary position embeddings (Su et al., 2021): pairs of features turned by an angle that grows with the position.

use crate::arith::{Real, by_real};
use crate::typing::{like_first, one};
use crate::window::check_product;
use crate::{Op, schema};
use ir::{Attrs, Error, EvalCx, Operator, Result, Tensor, Value};

pub static OPERATORS: &[&dyn Operator] =
    &[&Op::new("RotaryEmbedding", &schema::ROTARY_EMBEDDING, like_first, eval)];

fn eval(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let positions = cx.optional(3)?;
    Ok(one(by_real!(x.dtype(), rotate(cx.attrs, x, cx.tensor(1)?, cx.tensor(2)?, positions))?))
}

/// Where the features of one (batch, head, position) lie.
struct Layout {
    batch: usize,
    heads: usize,
    len: usize,
    size: usize,
    /// (batch, heads, length, size) rather than (batch, length, heads·size).
    heads_first: bool,
}

impl Layout {
    fn new(attrs: &Attrs, x: &[usize]) -> Result<Layout> {
        check_product(x.iter().copied())?;
        match *x {
            [batch, heads, len, size] => Ok(Layout { batch, heads, len, size, heads_first: true }),
            [batch, len, hidden] => {
                let heads = usize::try_from(attrs.int_or("num_heads", 0)?).unwrap_or(0);
                if heads == 0 || hidden % heads != 0 {
                    return Err(Error::model(format!("num_heads {heads} does not divide {hidden}")));
                }
                Ok(Layout { batch, heads, len, size: hidden / heads, heads_first: false })
            }
            _ => Err(Error::model(format!("input {x:?} must have rank 3 or 4"))),
        }
    }
    fn at(&self, b: usize, h: usize, i: usize) -> usize {
        let row = if self.heads_first {
            (b * self.heads + h) * self.len + i
        } else {
            (b * self.len + i) * self.heads + h
        };
        row * self.size
    }
}

fn rotate<T: Real>(
    attrs: &Attrs,
    x: &Tensor,
    cos: &Tensor,
    sin: &Tensor,
    positions: Option<&Tensor>,
) -> Result<Tensor> {
    let layout = Layout::new(attrs, x.shape())?;
    let interleaved = attrs.int_or("interleaved", 0)? != 0;
    let dim = match usize::try_from(attrs.int_or("rotary_embedding_dim", 0)?) {
        Ok(0) => layout.size,
        Ok(d) if d <= layout.size => d,
        _ => return Err(Error::model("rotary_embedding_dim does not fit the head")),
    };
    if dim % 2 != 0 {
        return Err(Error::model(format!("rotary dimension {dim} must be even")));
    }
    if x.is_empty() {
        return Ok(x.clone());
    }
    let half = dim / 2;
    let rows = cache_rows(&layout, cos, sin, positions, half)?;
    let (cos, sin) = (T::read(cos)?, T::read(sin)?);
    let mut data = T::read(x)?.into_owned();
    for (b, i) in (0..layout.batch).flat_map(|b| (0..layout.len).map(move |i| (b, i))) {
        let row = rows[b * layout.len + i] * half;
        for h in 0..layout.heads {
            let at = layout.at(b, h, i);
            let (cos, sin) = (&cos[row..row + half], &sin[row..row + half]);
            let head = &mut data[at..at + dim];
            let turned = |x: T, y: T, c: T, s: T| (c * x - s * y, s * x + c * y);
            if interleaved {
                for ((pair, &c), &s) in head.chunks_exact_mut(2).zip(cos).zip(sin) {
                    (pair[0], pair[1]) = turned(pair[0], pair[1], c, s);
                }
            } else {
                let (low, high) = head.split_at_mut(half);
                for (((x, y), &c), &s) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                    (*x, *y) = turned(*x, *y, c, s);
                }
            }
        }
    }
    T::write(x.dtype(), x.shape(), data)
}

/// The cache row of each (batch, position).
fn cache_rows(
    l: &Layout,
    cos: &Tensor,
    sin: &Tensor,
    positions: Option<&Tensor>,
    half: usize,
) -> Result<Vec<usize>> {
    let bad = || Error::model(format!("caches {:?} and {:?} do not fit", cos.shape(), sin.shape()));
    if cos.shape() != sin.shape() {
        return Err(bad());
    }
    let Some(p) = positions else {
        let fits = cos.shape() == [l.batch, l.len, half];
        return if fits { Ok((0..l.batch * l.len).collect()) } else { Err(bad()) };
    };
    let &[rows, width] = cos.shape() else { return Err(bad()) };
    if width != half || p.shape() != [l.batch, l.len] {
        return Err(bad());
    }
    let row = |&i: &i64| usize::try_from(i).ok().filter(|&i| i < rows);
    let found: Option<Vec<usize>> = p.to_i64s()?.iter().map(row).collect();
    found.ok_or_else(|| Error::data(format!("position_ids must lie within 0..{rows}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quarter_turns() {
        let x = Tensor::new(&[1, 1, 1, 4], vec![1f32, 2., 3., 4.]).unwrap();
        let t = |v: [f32; 2]| Tensor::new(&[1, 1, 2], v.to_vec()).unwrap();
        let run =
            |a: &Attrs| rotate::<f32>(a, &x, &t([0., 1.]), &t([1., 0.]), None).unwrap().to_f32s().unwrap();
        assert_eq!(run(&Attrs::new()), [-3., 2., 1., 4.]);
        assert_eq!(run(&Attrs::new().with("interleaved", 1i64)), [-2., 1., 3., 4.]);
        let far = Tensor::new(&[1, 1], vec![5i64]).unwrap();
        let flat = Tensor::new(&[1, 2], vec![0f32; 2]).unwrap();
        assert!(rotate::<f32>(&Attrs::new(), &x, &flat, &flat, Some(&far)).is_err());
    }
}
