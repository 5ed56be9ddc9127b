//! Permutations of dims, blocks and sequences; triangles.

use crate::broadcast::axis;
use crate::movement::{assemble, for_each, gather, gather_runs, strided, strides, volume};
use crate::typing::{like_first, one, tensor_type};
use crate::{Op, schema};
use ir::{
    Accuracy, Attrs, Dim, Error, EvalCx, InferCx, Kind, Operator, Result, Tensor, Value, ValueType, budget,
};

macro_rules! row {
    ($name:literal, $sig:ident, $infer:ident, $eval:ident) => {
        Op::new($name, &schema::$sig, $infer, $eval).kind(|_| Kind::Movement).accuracy(Accuracy::Exact)
    };
}

pub static OPERATORS: &[&dyn Operator] = &[
    &row!("Transpose", TRANSPOSE, infer_transpose, eval_transpose),
    &row!("DepthToSpace", DEPTH_TO_SPACE, infer_depth_to_space, eval_depth_to_space),
    &row!("SpaceToDepth", SPACE_TO_DEPTH, infer_space_to_depth, eval_space_to_depth),
    &row!("ReverseSequence", REVERSE_SEQUENCE, like_first, eval_reverse),
    &row!("Trilu", TRILU, like_first, eval_trilu),
];

/// The permutation of a Transpose; the default reverses.
pub fn perm(attrs: &Attrs, rank: usize) -> Result<Vec<usize>> {
    let Some(p) = attrs.ints("perm")? else { return Ok((0..rank).rev().collect()) };
    let mut seen = vec![false; rank];
    let ok = p.len() == rank
        && p.iter()
            .all(|&d| usize::try_from(d).is_ok_and(|d| d < rank && !std::mem::replace(&mut seen[d], true)));
    if !ok {
        return Err(Error::model(format!("perm {p:?} is not a permutation of {rank} dims")));
    }
    Ok(p.iter().map(|&d| d as usize).collect())
}

fn infer_transpose(cx: &InferCx) -> Result<Vec<ValueType>> {
    let shape = match cx.shape(0) {
        Some(s) => Some(perm(cx.attrs, s.len())?.into_iter().map(|d| s[d].clone()).collect()),
        None => None,
    };
    Ok(vec![tensor_type(cx.dtype(0)?, shape)])
}

/// `x` with its dims in the order of `p`.
pub fn transpose(x: &Tensor, p: &[usize]) -> Result<Tensor> {
    let own = strides(x.shape());
    let shape: Vec<usize> = p.iter().map(|&d| x.shape()[d]).collect();
    // The other dims of an empty tensor may have no product.
    if !x.is_empty()
        && let Some(planes) = matrices(x.shape(), p)
    {
        let bytes = match x.dtype().bits() {
            16 => Some(turned::<2>(x.bytes(), planes)?),
            32 => Some(turned::<4>(x.bytes(), planes)?),
            64 => Some(turned::<8>(x.bytes(), planes)?),
            _ => None,
        };
        if let Some(b) = bytes {
            return Tensor::from_bytes(x.dtype(), &shape, b);
        }
    }
    let steps: Vec<isize> = p.iter().map(|&d| own[d] as isize).collect();
    strided(x, &shape, 0, &steps)
}

/// Count, rows and columns, where a permutation turns matrices: leading dims stay, and the rest is two blocks that change
/// places.
fn matrices(shape: &[usize], p: &[usize]) -> Option<[usize; 3]> {
    let stay = p.iter().enumerate().take_while(|&(i, &d)| i == d).count();
    let &first = p.get(stay)?;
    let turned = p[stay..].iter().copied().eq((first..p.len()).chain(stay..first));
    let product = |s: &[usize]| s.iter().product::<usize>();
    turned.then(|| [product(&shape[..stay]), product(&shape[stay..first]), product(&shape[first..])])
}

/// Each matrix (rows, columns) of elements of `W` bytes as (columns, rows), tile by tile so that lines stay in cache.
fn turned<const W: usize>(bytes: &[u8], [count, rows, columns]: [usize; 3]) -> Result<Vec<u8>> {
    const TILE: usize = 16;
    let mut out = budget::filled(bytes.len(), 0u8)?;
    let (source, target) = (bytes.as_chunks::<W>().0, out.as_chunks_mut::<W>().0);
    let plane = rows * columns;
    for (x, y) in source.chunks(plane).zip(target.chunks_mut(plane)).take(count) {
        for r in (0..rows).step_by(TILE) {
            for c in (0..columns).step_by(TILE) {
                for i in r..rows.min(r + TILE) {
                    for j in c..columns.min(c + TILE) {
                        y[j * rows + i] = x[i * columns + j];
                    }
                }
            }
        }
    }
    Ok(out)
}

fn eval_transpose(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    Ok(one(transpose(x, &perm(cx.attrs, x.rank())?)?))
}

fn block(attrs: &Attrs) -> Result<usize> {
    let b = attrs.require_int("blocksize")?;
    usize::try_from(b)
        .ok()
        .filter(|&b| b > 0 && b < 1 << 16)
        .ok_or_else(|| Error::model(format!("bad blocksize {b}")))
}

fn infer_depth_to_space(cx: &InferCx) -> Result<Vec<ValueType>> {
    let b = block(cx.attrs)?;
    let shape = cx.shape(0).map(|s| blocks(s, |c| Some(c / (b * b)), |d| d.checked_mul(b)));
    Ok(vec![tensor_type(cx.dtype(0)?, shape.transpose()?)])
}

fn infer_space_to_depth(cx: &InferCx) -> Result<Vec<ValueType>> {
    let b = block(cx.attrs)?;
    let shape = cx.shape(0).map(|s| blocks(s, |c| c.checked_mul(b * b), |d| Some(d / b)));
    Ok(vec![tensor_type(cx.dtype(0)?, shape.transpose()?)])
}

fn blocks(
    s: &[Dim],
    channels: impl Fn(usize) -> Option<usize>,
    side: impl Fn(usize) -> Option<usize>,
) -> Result<Vec<Dim>> {
    let [n, c, h, w] = s else { return Err(Error::model("input must have 4 dims")) };
    let map =
        |d: &Dim, f: &dyn Fn(usize) -> Option<usize>| d.known().and_then(f).map_or(Dim::Unknown, Dim::Known);
    Ok(vec![n.clone(), map(c, &channels), map(h, &side), map(w, &side)])
}

fn four(x: &Tensor) -> Result<[usize; 4]> {
    <[usize; 4]>::try_from(x.shape())
        .map_err(|_| Error::model(format!("input must have 4 dims, got {:?}", x.shape())))
}

fn eval_depth_to_space(cx: &EvalCx) -> Result<Vec<Value>> {
    let (x, b) = (cx.tensor(0)?, block(cx.attrs)?);
    let [n, c, h, w] = four(x)?;
    if c % (b * b) != 0 {
        return Err(Error::model(format!("{c} channels do not divide into {b}×{b} blocks")));
    }
    let d = c / (b * b);
    let side = |n: usize| n.checked_mul(b).ok_or_else(|| Error::limit("a dimension overflows"));
    let out = [n, d, side(h)?, side(w)?];
    let y = if cx.attrs.str_or("mode", "DCR")? == "CRD" {
        transpose(&x.reshaped(&[n, d, b, b, h, w])?, &[0, 1, 4, 2, 5, 3])?
    } else {
        transpose(&x.reshaped(&[n, b, b, d, h, w])?, &[0, 3, 4, 1, 5, 2])?
    };
    Ok(one(y.reshaped(&out)?))
}

fn eval_space_to_depth(cx: &EvalCx) -> Result<Vec<Value>> {
    let (x, b) = (cx.tensor(0)?, block(cx.attrs)?);
    let [n, c, h, w] = four(x)?;
    if h % b != 0 || w % b != 0 {
        return Err(Error::model(format!("{h}×{w} does not divide into {b}×{b} blocks")));
    }
    let crd = cx.attrs.str_or("mode", "DCR")? == "CRD";
    let order = if crd { [0, 1, 3, 5, 2, 4] } else { [0, 3, 5, 1, 2, 4] };
    let y = transpose(&x.reshaped(&[n, c, h / b, b, w / b, b])?, &order)?;
    let depth = c.checked_mul(b * b).ok_or_else(|| Error::limit("a dimension overflows"))?;
    Ok(one(y.reshaped(&[n, depth, h / b, w / b])?))
}

fn eval_reverse(cx: &EvalCx) -> Result<Vec<Value>> {
    let (x, lens) = (cx.tensor(0)?, cx.ints(1)?);
    let batch = axis(cx.attrs.int_or("batch_axis", 1)?, x.rank())?;
    let time = axis(cx.attrs.int_or("time_axis", 0)?, x.rank())?;
    if batch == time || lens.len() != x.shape()[batch] {
        return Err(Error::model("one sequence length per batch entry, on another axis than time"));
    }
    let steps = x.shape()[time];
    let lens: Vec<usize> = lens
        .iter()
        .map(|&l| {
            usize::try_from(l)
                .ok()
                .filter(|&l| l <= steps)
                .ok_or_else(|| Error::data(format!("sequence length {l} of {steps}")))
        })
        .collect::<Result<_>>()?;
    let own = strides(x.shape());
    let mut at = budget::vec(x.len())?;
    for_each(x.shape(), |i| {
        let len = lens[i[batch]];
        let t = if i[time] < len { len - 1 - i[time] } else { i[time] };
        at.push(i.iter().enumerate().map(|(d, &v)| own[d] * if d == time { t } else { v }).sum());
    });
    Ok(one(gather(x, x.shape(), at.into_iter())?))
}

fn eval_trilu(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let k = cx.optional_ints(1)?.and_then(|v| v.first().copied()).unwrap_or(0);
    let upper = cx.attrs.int_or("upper", 1)? != 0;
    let [.., rows, columns] = *x.shape() else { return Err(Error::model("input must have at least 2 dims")) };
    if x.is_empty() {
        return Ok(one(x.clone()));
    }
    let zero = Tensor::zeros(x.dtype(), &[columns])?;
    let runs = (0..x.len() / columns).flat_map(|row| {
        let (r, at) = ((row % rows) as i64, row * columns);
        // The first column on or right of the diagonal (upper), or right of it (lower).
        let edge = r.saturating_add(k).saturating_add(i64::from(!upper));
        let cut = edge.clamp(0, columns as i64) as usize;
        let (kept, lost) = if upper { (at + cut, (1, 0, cut)) } else { (at, (1, 0, columns - cut)) };
        let kept = (0, kept, if upper { columns - cut } else { cut });
        if upper { [lost, kept] } else { [kept, lost] }
    });
    Ok(one(assemble(&[x, &zero], x.shape(), runs)?))
}

/// Rows of `x` (all dims but the first) in a given order.
pub fn rows(x: &Tensor, order: &[usize]) -> Result<Tensor> {
    let inner = x.shape().get(1..).unwrap_or_default();
    let run = volume(inner);
    let shape = [&[order.len()], inner].concat();
    gather_runs(x, &shape, run, order.iter().map(|&i| i * run))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::apply;

    fn ints(op: &str, attrs: Attrs, inputs: &[Tensor]) -> Result<Vec<i64>> {
        apply(op, attrs, inputs)?.to_i64s()
    }

    #[test]
    fn triangles_follow_the_diagonal() {
        let x = Tensor::new::<i64>(&[2, 3], (1..7).collect()).unwrap();
        let k = |k: i64| [x.clone(), Tensor::scalar(k)];
        assert_eq!(ints("Trilu", Attrs::new(), &k(1)).unwrap(), [0, 2, 3, 0, 0, 6]);
        let lower = || Attrs::new().with("upper", 0);
        assert_eq!(ints("Trilu", lower(), &k(0)).unwrap(), [1, 0, 0, 4, 5, 0]);
        assert_eq!(ints("Trilu", lower(), &k(i64::MAX)).unwrap(), [1, 2, 3, 4, 5, 6]);
        assert_eq!(ints("Trilu", Attrs::new(), &k(i64::MIN)).unwrap(), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn blocks_fold_and_unfold() {
        let x = Tensor::new::<i64>(&[1, 8, 2, 3], (0..48).collect()).unwrap();
        let b = |m: &str| Attrs::new().with("blocksize", 2).with("mode", m);
        for mode in ["DCR", "CRD"] {
            let y = apply("DepthToSpace", b(mode), std::slice::from_ref(&x)).unwrap();
            assert_eq!(y.shape(), [1, 2, 4, 6]);
            assert_eq!(apply("SpaceToDepth", b(mode), &[y]).unwrap(), x);
        }

        assert!(apply("DepthToSpace", Attrs::new().with("blocksize", 0), &[x]).is_err());
    }

    #[test]
    fn turned_matrices_are_the_permuted_elements() {
        for (shape, p) in [
            (vec![3, 5], vec![1, 0]),
            (vec![2, 17, 35], vec![0, 2, 1]),
            (vec![4, 2, 3, 5], vec![2, 3, 0, 1]),
            (vec![2, 3, 4, 5], vec![0, 3, 1, 2]),
            (vec![1, 1, 40, 3], vec![1, 0, 3, 2]),
        ] {
            let n = shape.iter().product::<usize>() as i64;
            let wide = Tensor::new::<i64>(&shape, (0..n).collect()).unwrap();
            // Bytes go another way.
            let small = Tensor::from_i64s(ir::DType::U8, &shape, (0..n).map(|i| i % 251).collect()).unwrap();
            let want = transpose(&small, &p).unwrap();
            for d in [ir::DType::I64, ir::DType::F32, ir::DType::F16] {
                let y = transpose(&crate::cast::cast(&small, d, true).unwrap(), &p).unwrap();
                assert_eq!(crate::cast::cast(&y, ir::DType::U8, true).unwrap(), want, "{shape:?} {p:?} {d}");
            }
            assert_eq!(transpose(&wide, &p).unwrap().shape(), want.shape());
        }
        assert_eq!(matrices(&[2, 3, 4, 5], &[0, 2, 1, 3]), None);
        assert_eq!(matrices(&[2, 3], &[0, 1]), None);
    }

    #[test]
    fn perms_are_checked() {
        let x = Tensor::new::<i64>(&[2, 2], vec![1, 2, 3, 4]).unwrap();
        assert_eq!(ints("Transpose", Attrs::new(), std::slice::from_ref(&x)).unwrap(), [1, 3, 2, 4]);
        for bad in [vec![0, 0], vec![0], vec![-1, 0], vec![0, 2]] {
            assert!(ints("Transpose", Attrs::new().with("perm", bad), std::slice::from_ref(&x)).is_err());
        }
    }
}
