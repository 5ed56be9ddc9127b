//! Attention: scaled dot products of queries and keys, masked, through softmax onto values, with grouped heads and caches.

use crate::arith::{Number, Real, Strided, by_real};
use crate::broadcast::{broadcast_shapes, broadcast_strides};
use crate::softmax::{rounding, softmax_in};
use crate::typing::tensor_type;
use crate::window::check_product;
use crate::{Op, schema};
use ir::budget;
use ir::{
    Accuracy, Attrs, DType, Dim, Error, EvalCx, InferCx, Kind, Operator, Result, Tensor, Value, ValueType,
};

pub static OPERATORS: &[&dyn Operator] = &[&Op::new("Attention", &schema::ATTENTION, infer, eval)
    .kind(|_| Kind::Contract)
    .accuracy(Accuracy::Accumulated)];

/// An attention with all sizes known and attributes checked.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionGeometry {
    pub batch: usize,
    pub q_heads: usize,
    /// Divides `q_heads`; each is shared by neighbouring query heads.
    pub kv_heads: usize,
    pub q_len: usize,
    /// Keys given, without those of the cache.
    pub kv_len: usize,
    /// Keys in the cache that come first.
    pub past_len: usize,
    pub head: usize,
    pub v_head: usize,
    /// Q, K, V and Y are (batch, length, heads·size) rather than (batch, heads, length, size).
    pub packed: bool,
    /// Factor of the products of queries and keys.
    pub scale: f64,
    /// Scores become `softcap·tanh(score/softcap)` where positive.
    pub softcap: f64,
    pub causal: bool,
    /// Keys further to the left or right of the query's position than this are hidden.
    pub left_window: Option<i64>,
    pub right_window: Option<i64>,
    /// Half floats round after each step of the operator's function body.
    pub dtype: DType,
    /// What the softmax is computed in, where that is not `dtype`.
    pub softmax_dtype: Option<DType>,
}

impl AttentionGeometry {
    /// Keys in all.
    pub fn total(&self) -> usize {
        self.past_len + self.kv_len
    }
    fn check(&self) -> Result<()> {
        // Rows of no elements still cost a step each.
        budget::check(self.batch.saturating_mul(self.q_heads).saturating_mul(self.q_len.max(self.total())))?;
        check_product([self.batch, self.q_heads, self.q_len, self.head.max(self.v_head)])?;
        check_product([self.batch, self.q_heads, self.q_len, self.total()])?;
        check_product([self.batch, self.kv_heads, self.total(), self.head.max(self.v_head)])
    }
}

fn positive(attrs: &Attrs, name: &str) -> Result<usize> {
    let n = attrs.int_or(name, 0)?;
    usize::try_from(n)
        .ok()
        .filter(|&n| n > 0)
        .ok_or_else(|| Error::model(format!("{name} must be positive for inputs of rank 3, got {n}")))
}

fn window(attrs: &Attrs, name: &str) -> Result<Option<i64>> {
    match attrs.int_or(name, -1)? {
        -1 => Ok(None),
        n if n >= 0 => Ok(Some(n)),
        n => Err(Error::model(format!("{name} {n} must be -1 or more"))),
    }
}

/// Geometry of an `Attention` node for concrete shapes; `past` is the length of the cache.
pub fn geometry(
    attrs: &Attrs,
    q: &[usize],
    k: &[usize],
    v: &[usize],
    past: usize,
) -> Result<AttentionGeometry> {
    let bad = || Error::model(format!("Q {q:?}, K {k:?} and V {v:?} do not fit each other"));
    let packed = q.len() == 3;
    let heads = |t: &[usize], name: &str| -> Result<[usize; 4]> {
        match *t {
            [b, h, n, d] if !packed => Ok([b, h, n, d]),
            [b, n, hidden] if packed => {
                let h = positive(attrs, name)?;
                if hidden % h == 0 { Ok([b, h, n, hidden / h]) } else { Err(bad()) }
            }
            _ => Err(bad()),
        }
    };
    let ([b, q_heads, q_len, head], [kb, kv_heads, kv_len, kh], [vb, v_heads, v_len, v_head]) =
        (heads(q, "q_num_heads")?, heads(k, "kv_num_heads")?, heads(v, "kv_num_heads")?);
    if (kb, vb, kh, v_heads, v_len) != (b, b, head, kv_heads, kv_len)
        || kv_heads == 0
        || q_heads % kv_heads != 0
    {
        return Err(bad());
    }
    past.checked_add(kv_len).ok_or_else(bad)?;
    let g = AttentionGeometry {
        batch: b,
        q_heads,
        kv_heads,
        q_len,
        kv_len,
        past_len: past,
        head,
        v_head,
        packed,
        scale: attrs.float("scale")?.map_or(1.0 / (head as f64).sqrt(), f64::from),
        softcap: f64::from(attrs.float_or("softcap", 0.0)?),
        causal: attrs.int_or("is_causal", 0)? != 0,
        left_window: window(attrs, "left_window_size")?,
        right_window: window(attrs, "right_window_size")?,
        dtype: DType::F32,
        softmax_dtype: match attrs.int("softmax_precision")? {
            Some(n) => i32::try_from(n).ok().and_then(DType::from_onnx).filter(|d| d.is_float()),
            None => None,
        },
    };
    g.check()?;
    Ok(g)
}

fn infer(cx: &InferCx) -> Result<Vec<ValueType>> {
    let (dtype, v_dtype) = (cx.dtype(0)?, cx.dtype(2)?);
    let unknown = || Dim::Unknown;
    let dim = |i: usize, a: usize| cx.shape(i).and_then(|s| s.get(a)).cloned().unwrap_or(Dim::Unknown);
    let attr_dim = |name: &str| -> Result<Dim> {
        Ok(cx.attrs.int(name)?.and_then(|n| usize::try_from(n).ok()).map_or(Dim::Unknown, Dim::Known))
    };
    let divided = |d: Dim, h: &Dim| match (d, h) {
        (Dim::Known(n), Dim::Known(h)) if *h > 0 => Dim::Known(n / h),
        _ => Dim::Unknown,
    };
    let Some(rank) = cx.rank(0) else {
        return Ok(vec![
            tensor_type(dtype, None),
            tensor_type(dtype, Some(vec![unknown(); 4])),
            tensor_type(v_dtype, Some(vec![unknown(); 4])),
            tensor_type(dtype, Some(vec![unknown(); 4])),
        ]);
    };
    let [batch, qh, q_len, kvh, kv_len, head, v_head] = match rank {
        4 => [dim(0, 0), dim(0, 1), dim(0, 2), dim(1, 1), dim(1, 2), dim(0, 3), dim(2, 3)],
        3 => {
            let (qh, kvh) = (attr_dim("q_num_heads")?, attr_dim("kv_num_heads")?);
            let (head, v_head) = (divided(dim(0, 2), &qh), divided(dim(2, 2), &kvh));
            [dim(0, 0), qh, dim(0, 1), kvh, dim(1, 1), head, v_head]
        }
        r => return Err(Error::model(format!("Q must have rank 3 or 4, not {r}"))),
    };
    let total = match (cx.has(4), kv_len) {
        (false, n) => n,
        (true, Dim::Known(n)) => {
            dim(4, 2).known().and_then(|p| p.checked_add(n)).map_or(Dim::Unknown, Dim::Known)
        }
        _ => Dim::Unknown,
    };
    let y = match (rank, &qh, &v_head) {
        (4, ..) => vec![batch.clone(), qh.clone(), q_len.clone(), v_head.clone()],
        (_, Dim::Known(h), Dim::Known(d)) => {
            vec![batch.clone(), q_len.clone(), h.checked_mul(*d).map_or(Dim::Unknown, Dim::Known)]
        }
        _ => vec![batch.clone(), q_len.clone(), Dim::Unknown],
    };
    Ok(vec![
        tensor_type(dtype, Some(y)),
        tensor_type(dtype, Some(vec![batch.clone(), kvh.clone(), total.clone(), head])),
        tensor_type(v_dtype, Some(vec![batch.clone(), kvh, total.clone(), v_head])),
        tensor_type(dtype, Some(vec![batch, qh, q_len, total])),
    ])
}

fn eval(cx: &EvalCx) -> Result<Vec<Value>> {
    by_real!(cx.tensor(0)?.dtype(), typed(cx))
}

fn typed<T: Real>(cx: &EvalCx) -> Result<Vec<Value>> {
    let (q, k, v) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
    let (past_k, past_v) = (cx.optional(4)?, cx.optional(5)?);
    let past = past_k.map_or(0, |t| t.shape().get(2).copied().unwrap_or(0));
    let g = geometry(cx.attrs, q.shape(), k.shape(), v.shape(), past)?;
    let g = AttentionGeometry { dtype: q.dtype(), ..g };
    let lengths = valid_lengths(cx, &g)?;
    if past_k.is_some() != past_v.is_some() || (past_k.is_some() && lengths.is_some()) {
        return Err(Error::model("past_key and past_value go together, and not with nonpad_kv_seqlen"));
    }
    let keys = cached::<T>(past_k, k, &g, g.head)?;
    let values = cached::<T>(past_v, v, &g, g.v_head)?;
    let queries = by_head(&T::read(q)?, &g, g.q_heads, g.q_len, g.head);
    let mask = Mask::new(cx.optional(3)?, lengths, &g)?;
    let capture = match cx.attrs.int_or("qk_matmul_output_mode", 0)? {
        0 => Capture::Raw,
        1 => Capture::Capped,
        2 => Capture::Biased,
        3 => Capture::Probabilities,
        m => return Err(Error::model(format!("qk_matmul_output_mode {m} is not known"))),
    };
    let capture = (cx.outputs > 3).then_some(capture);
    let (y, scores) =
        attend(&queries, &keys, &values, &g, capture, |b, h, i, row| mask.row(&g, b, h, i, row))?;
    let (dtype, v_dtype) = (q.dtype(), v.dtype());
    let mut out = vec![if g.packed {
        T::write(dtype, &[g.batch, g.q_len, g.q_heads * g.v_head], by_position(&y, &g))?.into()
    } else {
        T::write(dtype, &[g.batch, g.q_heads, g.q_len, g.v_head], y)?.into()
    }];
    if cx.outputs > 1 {
        out.push(T::write(dtype, &[g.batch, g.kv_heads, g.total(), g.head], keys)?.into());
        out.push(T::write(v_dtype, &[g.batch, g.kv_heads, g.total(), g.v_head], values)?.into());
    }
    if let Some(s) = scores {
        out.push(T::write(dtype, &[g.batch, g.q_heads, g.q_len, g.total()], s)?.into());
    }
    Ok(out)
}

/// `nonpad_kv_seqlen`, one length for each batch.
fn valid_lengths(cx: &EvalCx, g: &AttentionGeometry) -> Result<Option<Vec<i64>>> {
    let lengths = cx.optional_ints(6)?;
    if lengths.as_ref().is_some_and(|l| l.len() != g.batch) {
        return Err(Error::model(format!("nonpad_kv_seqlen must hold {} lengths", g.batch)));
    }
    Ok(lengths)
}

/// (batch, length, heads·size) to (batch, heads, length, size); a copy when it already is.
fn by_head<T: Copy>(x: &[T], g: &AttentionGeometry, heads: usize, len: usize, size: usize) -> Vec<T> {
    if !g.packed || x.is_empty() {
        return x.to_vec();
    }
    let rows = (0..g.batch).flat_map(|b| (0..heads).flat_map(move |h| (0..len).map(move |i| (b, h, i))));
    rows.flat_map(|(b, h, i)| &x[((b * len + i) * heads + h) * size..][..size]).copied().collect()
}

/// (batch, heads, length, size) to (batch, length, heads·size).
fn by_position<T: Copy>(y: &[T], g: &AttentionGeometry) -> Vec<T> {
    let (heads, len, size) = (g.q_heads, g.q_len, g.v_head);
    if y.is_empty() {
        return Vec::new();
    }
    let rows = (0..g.batch).flat_map(|b| (0..len).flat_map(move |i| (0..heads).map(move |h| (b, h, i))));
    rows.flat_map(|(b, h, i)| &y[((b * heads + h) * len + i) * size..][..size]).copied().collect()
}

/// Keys or values by head, those of the cache first.
fn cached<T: Number>(
    past: Option<&Tensor>,
    new: &Tensor,
    g: &AttentionGeometry,
    size: usize,
) -> Result<Vec<T>> {
    let new = by_head(&T::read(new)?, g, g.kv_heads, g.kv_len, size);
    let Some(past) = past else { return Ok(new) };
    if past.shape() != [g.batch, g.kv_heads, g.past_len, size] {
        return Err(Error::model(format!("a cache of shape {:?} does not fit", past.shape())));
    }
    let past = T::read(past)?;
    let mut out = budget::vec(past.len().saturating_add(new.len()))?;
    let heads = if past.is_empty() && new.is_empty() { 0 } else { g.batch * g.kv_heads };
    for i in 0..heads {
        out.extend_from_slice(&past[i * g.past_len * size..][..g.past_len * size]);
        out.extend_from_slice(&new[i * g.kv_len * size..][..g.kv_len * size]);
    }
    Ok(out)
}

/// What is added to the scores: the mask input and the position rules.
struct Mask {
    /// Values, and their strides over (batch, head, query, key); keys from `width` on are hidden.
    values: Option<(Vec<f64>, Vec<usize>)>,
    width: usize,
    /// Valid keys of each batch.
    lengths: Option<Vec<i64>>,
}

impl Mask {
    fn new(t: Option<&Tensor>, lengths: Option<Vec<i64>>, g: &AttentionGeometry) -> Result<Mask> {
        let Some(t) = t else { return Ok(Mask { values: None, width: g.total(), lengths }) };
        let width = t.shape().last().copied().unwrap_or(0);
        let full = [g.batch, g.q_heads, g.q_len, width];
        if t.rank() == 0 || width > g.total() || broadcast_shapes(&[t.shape(), &full])?[..] != full {
            return Err(Error::model(format!("attn_mask {:?} does not broadcast to the scores", t.shape())));
        }
        let mut values = t.to_f64s()?;
        if t.dtype() == DType::Bool {
            values.iter_mut().for_each(|v| *v = if *v == 0.0 { f64::NEG_INFINITY } else { 0.0 });
        }
        let mut s = broadcast_strides(t.shape(), &full);
        s[3] = usize::from(width > 0);
        Ok(Mask { values: Some((values, s)), width, lengths })
    }

    /// Writes the additive bias of one query row.
    fn row(&self, g: &AttentionGeometry, b: usize, h: usize, i: usize, row: &mut [f64]) {
        row.fill(0.0);
        if let Some((v, s)) = &self.values {
            let at = b * s[0] + h * s[1] + i * s[2];
            row[..self.width].copy_from_slice(&v[at..at + self.width]);
            row[self.width..].fill(f64::NEG_INFINITY);
        }
        let offset = match &self.lengths {
            Some(l) => l[b].saturating_sub(g.q_len as i64),
            None => g.past_len as i64,
        };
        let position = offset.saturating_add(i as i64);
        let valid = self.lengths.as_ref().map_or(i64::MAX, |l| l[b]);
        let last = if g.causal { position } else { i64::MAX }
            .min(g.right_window.map_or(i64::MAX, |w| position.saturating_add(w)));
        let first = g.left_window.map_or(i64::MIN, |w| position.saturating_sub(w));
        for (j, v) in row.iter_mut().enumerate() {
            let j = j as i64;
            if j > last || j < first || j >= valid {
                *v = f64::NEG_INFINITY;
            }
        }
    }
}

/// What the scores output shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capture {
    /// Scaled products.
    Raw,
    /// After the soft cap.
    Capped,
    /// After masking.
    Biased,
    Probabilities,
}

/// Attention over (batch, heads, length, size) slices. `bias(batch, head, query, row)` writes what is added to a row of
/// scores; a row that is −∞ throughout gives zeros. Also returns the captured scores, if asked.
pub fn attend<T: Real>(
    q: &[T],
    k: &[T],
    v: &[T],
    g: &AttentionGeometry,
    capture: Option<Capture>,
    bias: impl Fn(usize, usize, usize, &mut [f64]),
) -> Result<(Vec<T>, Option<Vec<T>>)> {
    let (n, total) = (g.q_len, g.total());
    let narrow = rounding(g.dtype);
    let round = narrow.unwrap_or(|x| x);
    // In half floats both sides carry the root of the scale, so that their products stay in range.
    let root = round(g.scale.sqrt());
    let halved = |x: &[T]| x.iter().map(|x| T::of(round(x.f64() * root))).collect::<Vec<T>>();
    let sides = narrow.map(|_| (halved(q), halved(k)));
    let (q, k) = sides.as_ref().map_or((q, k), |(q, k)| (&q[..], &k[..]));
    let scale = if narrow.is_some() { 1.0 } else { g.scale };
    let mut y = budget::filled(budget::elements(&[g.batch, g.q_heads, n, g.v_head])?, T::ZERO)?;
    let captured = capture.map_or(0, |_| g.batch * g.q_heads * n * total);
    let mut shown = budget::filled(captured, T::ZERO)?;
    if y.is_empty() && shown.is_empty() {
        // Any number of heads may have nothing to do.
        return Ok((y, capture.map(|_| shown)));
    }
    let mut scores = budget::filled(budget::elements(&[n, total])?, T::ZERO)?;
    let (mut row, mut add) = (budget::filled(total, 0f64)?, budget::filled(total, 0f64)?);
    for (b, h) in (0..g.batch).flat_map(|b| (0..g.q_heads).map(move |h| (b, h))) {
        let kv = b * g.kv_heads + h / (g.q_heads / g.kv_heads);
        let (query, key) = (&q[(b * g.q_heads + h) * n * g.head..], &k[kv * total * g.head..]);
        scores.fill(T::ZERO);
        T::gemm([n, g.head, total], Strided(query, g.head, 1), Strided(key, 1, g.head), &mut scores, total)?;
        for (i, s) in scores.chunks_exact_mut(total.max(1)).enumerate() {
            bias(b, h, i, &mut add);
            let at = ((b * g.q_heads + h) * n + i) * total;
            let mut show = |stage: Capture, row: &[f64]| {
                if capture == Some(stage) {
                    shown[at..][..total].iter_mut().zip(row).for_each(|(o, &r)| *o = T::of(r));
                }
            };
            row.iter_mut().zip(s.iter()).for_each(|(r, s)| *r = round(s.f64() * scale));
            show(Capture::Raw, &row);
            if g.softcap > 0.0 {
                let cap = g.softcap;
                row.iter_mut().for_each(|r| *r = round(cap * round(round(*r / cap).tanh())));
            }
            show(Capture::Capped, &row);
            // In the type of the scores: beside a large mask a score has no digits left.
            row.iter_mut().zip(&add).for_each(|(r, a)| *r = T::of(round(*r + a)).f64());
            show(Capture::Biased, &row);
            if add.iter().all(|&a| a == f64::NEG_INFINITY) {
                row.fill(0.0);
            } else {
                softmax_in(g.softmax_dtype.unwrap_or(g.dtype), &mut row);
                row.iter_mut().for_each(|r| *r = round(*r));
            }
            show(Capture::Probabilities, &row);
            s.iter_mut().zip(&row).for_each(|(s, &r)| *s = T::of(r));
        }
        let out = &mut y[(b * g.q_heads + h) * n * g.v_head..][..n * g.v_head];
        let value = Strided(&v[kv * total * g.v_head..], g.v_head, 1);
        T::gemm([n, total, g.v_head], Strided(&scores, total, 1), value, out, g.v_head)?;
    }
    Ok((y, capture.map(|_| shown)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_rows_are_zero_and_windows_hide_keys() {
        let attrs = Attrs::new().with("is_causal", 1i64).with("left_window_size", 0i64);
        let g = geometry(&attrs, &[1, 1, 2, 1], &[1, 1, 2, 1], &[1, 1, 2, 1], 0).unwrap();
        let mask = Mask::new(None, None, &g).unwrap();
        let run = |mask: &Mask| {
            attend::<f32>(&[1., 1.], &[1., 1.], &[5., 7.], &g, None, |b, h, i, r| mask.row(&g, b, h, i, r))
                .unwrap()
                .0
        };
        assert_eq!(run(&mask), [5., 7.]);
        let none = Tensor::new(&[2, 2], vec![false, false, true, true]).unwrap();
        assert_eq!(run(&Mask::new(Some(&none), None, &g).unwrap()), [0., 7.]);
    }

    /// As in the operator's function body, which adds in the scores' type.
    #[test]
    fn a_large_mask_leaves_no_digits_of_a_score() {
        let g = geometry(&Attrs::new(), &[1, 1, 1, 1], &[1, 1, 2, 1], &[1, 1, 2, 1], 0).unwrap();
        let mask = Tensor::new(&[1, 2], vec![1e12f32, 1e12]).unwrap();
        let mask = Mask::new(Some(&mask), None, &g).unwrap();
        let y = attend::<f32>(&[1.], &[0., 3.], &[1., 2.], &g, None, |b, h, i, r| mask.row(&g, b, h, i, r));
        assert_eq!(y.unwrap().0, [1.5]);
    }

    #[test]
    fn heads_without_queries_take_no_time() {
        let a = Attrs::new();
        let g = geometry(&a, &[1, 1 << 40, 0, 2], &[1, 1 << 40, 0, 2], &[1, 1 << 40, 0, 2], 0).unwrap();
        assert!(attend::<f32>(&[], &[], &[], &g, None, |_, _, _, _| ()).unwrap().0.is_empty());
        let packed = a.with("q_num_heads", 1i64).with("kv_num_heads", 1i64);
        let g = geometry(&packed, &[1, 1 << 40, 0], &[1, 1 << 40, 0], &[1, 1 << 40, 0], 0);
        g.into_iter().for_each(|g| assert!(by_head::<f32>(&[], &g, 1, 1 << 40, 0).is_empty()));
    }

    #[test]
    fn sizes_that_do_not_fit_are_errors() {
        let a = Attrs::new();
        assert!(geometry(&a, &[1, 3, 2, 4], &[1, 2, 2, 4], &[1, 2, 2, 4], 0).is_err());
        assert!(geometry(&a, &[1, 2, 4], &[1, 2, 4], &[1, 2, 4], 0).is_err());
        let a = a.with("q_num_heads", 3i64).with("kv_num_heads", 1i64);
        assert!(geometry(&a, &[1, 2, 4], &[1, 2, 4], &[1, 2, 4], 0).is_err());
        assert!(geometry(&a, &[1, 2, 3], &[1, 2, 1], &[1, 2, 1], usize::MAX).is_err());
    }
}
