//! Recurrences of constant state: LinearAttention (linear, gated, delta rule) and the causal convolution that feeds it.

use crate::typing::tensor_type;
use crate::window::check_product;
use crate::{Op, schema};
use ir::{
    Accuracy, Attrs, Dim, Error, EvalCx, InferCx, Kind, Operator, Result, Tensor, Value, ValueType, budget,
};

pub static OPERATORS: &[&dyn Operator] = &[
    &Op::new("LinearAttention", &schema::LINEAR_ATTENTION, infer_attention, eval_attention)
        .kind(|_| Kind::Contract)
        .accuracy(Accuracy::Accumulated),
    &Op::new("CausalConvWithState", &schema::CAUSAL_CONV_WITH_STATE, infer_conv, eval_conv)
        .kind(|_| Kind::Contract)
        .accuracy(Accuracy::Accumulated),
];

/// Sizes of a `LinearAttention`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sizes {
    batch: usize,
    len: usize,
    q_heads: usize,
    kv_heads: usize,
    key: usize,
    value: usize,
}

fn heads(attrs: &Attrs) -> Result<(usize, usize)> {
    let get = |name: &str| Ok(usize::try_from(attrs.require_int(name)?).unwrap_or(0));
    let (q, kv) = (get("q_num_heads")?, get("kv_num_heads")?);
    if kv == 0 || q == 0 || q % kv != 0 {
        return Err(Error::model(format!(
            "q_num_heads {q} must be a positive multiple of kv_num_heads {kv}"
        )));
    }
    Ok((q, kv))
}

fn infer_attention(cx: &InferCx) -> Result<Vec<ValueType>> {
    let dtype = cx.dtype(0)?;
    let state_dtype = if cx.has(3) { cx.dtype(3)? } else { dtype };
    let (q_heads, kv_heads) = heads(cx.attrs)?;
    let dim = |i: usize, a: usize| cx.shape(i).and_then(|s| s.get(a)).cloned().unwrap_or(Dim::Unknown);
    let over = |d: Dim, n: usize| d.known().map_or(Dim::Unknown, |d| Dim::Known(d / n));
    let (key, value) = (over(dim(0, 2), q_heads), over(dim(2, 2), kv_heads));
    let width = value.known().and_then(|v| v.checked_mul(q_heads)).map_or(Dim::Unknown, Dim::Known);
    Ok(vec![
        tensor_type(dtype, Some(vec![dim(0, 0), dim(0, 1), width])),
        tensor_type(state_dtype, Some(vec![dim(0, 0), Dim::Known(kv_heads), key, value])),
    ])
}

fn sizes(attrs: &Attrs, q: &[usize], k: &[usize], v: &[usize]) -> Result<Sizes> {
    let (q_heads, kv_heads) = heads(attrs)?;
    let bad = || Error::model(format!("query {q:?}, key {k:?} and value {v:?} do not fit"));
    let (&[batch, len, qw], &[kb, kl, kw], &[vb, vl, vw]) = (q, k, v) else { return Err(bad()) };
    let (key, value) = (qw / q_heads, vw / kv_heads);
    let widths = (key * q_heads, key.checked_mul(kv_heads), value * kv_heads);
    if (kb, kl, vb, vl) != (batch, len, batch, len) || widths != (qw, Some(kw), vw) {
        return Err(bad());
    }
    budget::check(batch.saturating_mul(q_heads).saturating_mul(len))?;
    check_product([batch, q_heads, key, value])?;
    check_product([batch, len, q_heads, key.max(value)])?;
    Ok(Sizes { batch, len, q_heads, kv_heads, key, value })
}

/// An optional gate of shape (batch, length, width) with one of these widths.
fn gate(
    cx: &EvalCx,
    i: usize,
    s: &Sizes,
    widths: &[usize],
    wanted: bool,
) -> Result<Option<(Vec<f32>, usize)>> {
    let t = cx.optional(i)?;
    if t.is_some() != wanted {
        let word = if wanted { "needs" } else { "forbids" };
        return Err(Error::model(format!("this update_rule {word} input {i}")));
    }
    let Some(t) = t else { return Ok(None) };
    match *t.shape() {
        [b, l, w] if (b, l) == (s.batch, s.len) && widths.contains(&w) => Ok(Some((t.to_f32s()?, w))),
        _ => Err(Error::model(format!("input {i} of shape {:?} does not fit", t.shape()))),
    }
}

fn eval_attention(cx: &EvalCx) -> Result<Vec<Value>> {
    let (q, k, v) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
    let s = sizes(cx.attrs, q.shape(), k.shape(), v.shape())?;
    let (gated, delta) = match cx.attrs.str_or("update_rule", "gated_delta")? {
        "linear" => (false, false),
        "gated" => (true, false),
        "delta" => (false, true),
        "gated_delta" => (true, true),
        r => return Err(Error::model(format!("update_rule '{}' is not known", r.escape_debug()))),
    };
    let decay = gate(cx, 4, &s, &[s.kv_heads, s.kv_heads * s.key], gated)?;
    let beta = gate(cx, 5, &s, &[s.kv_heads, 1], delta)?;
    let shape = [s.batch, s.kv_heads, s.key, s.value];
    let mut state = match cx.optional(3)? {
        Some(p) if p.shape() == shape => p.to_f32s()?,
        Some(p) => {
            return Err(Error::model(format!("past_state has shape {:?}, {shape:?} is needed", p.shape())));
        }
        None => budget::filled(budget::elements(&shape)?, 0f32)?,
    };
    let scale = match cx.attrs.float_or("scale", 0.0)? {
        0.0 => 1.0 / (s.key as f32).sqrt(),
        x => x,
    };
    let step = Step { s: &s, decay, beta, q: q.to_f32s()?, k: k.to_f32s()?, v: v.to_f32s()?, scale };
    let mut y = budget::filled(budget::elements(&[s.batch, s.len, s.q_heads * s.value])?, 0f32)?;
    for (b, h) in (0..s.batch).flat_map(|b| (0..s.kv_heads).map(move |h| (b, h))) {
        let state = &mut state[(b * s.kv_heads + h) * s.key * s.value..][..s.key * s.value];
        for t in 0..s.len {
            step.update(b, h, t, state);
            step.read(b, h, t, state, &mut y);
        }
    }
    let state_dtype = cx.optional(3)?.map_or(q.dtype(), Tensor::dtype);
    Ok(vec![
        Tensor::from_f32s(q.dtype(), &[s.batch, s.len, s.q_heads * s.value], y)?.into(),
        Tensor::from_f32s(state_dtype, &shape, state)?.into(),
    ])
}

struct Step<'a> {
    s: &'a Sizes,
    /// Values and their last dimension.
    decay: Option<(Vec<f32>, usize)>,
    beta: Option<(Vec<f32>, usize)>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    scale: f32,
}

impl Step<'_> {
    /// S ← e^g·S, then S ← S + k ⊗ v, where the delta rule writes β·(v − Sᵀk) for v.
    fn update(&self, b: usize, h: usize, t: usize, state: &mut [f32]) {
        let s = self.s;
        let at = b * s.len + t;
        let key = &self.k[(at * s.kv_heads + h) * s.key..][..s.key];
        let mut value = self.v[(at * s.kv_heads + h) * s.value..][..s.value].to_vec();
        if let Some((g, width)) = &self.decay {
            for (d, row) in state.chunks_exact_mut(s.value.max(1)).enumerate() {
                let column = if *width == s.kv_heads { h } else { h * s.key + d };
                let factor = g[at * width + column].exp();
                row.iter_mut().for_each(|x| *x *= factor);
            }
        }
        if let Some((beta, width)) = &self.beta {
            for (row, k) in state.chunks_exact(s.value.max(1)).zip(key) {
                value.iter_mut().zip(row).for_each(|(v, x)| *v -= x * k);
            }
            let rate = beta[at * width + if *width == 1 { 0 } else { h }];
            value.iter_mut().for_each(|v| *v *= rate);
        }
        for (row, k) in state.chunks_exact_mut(s.value.max(1)).zip(key) {
            row.iter_mut().zip(&value).for_each(|(x, v)| *x += k * v);
        }
    }

    /// o = scale·Sᵀq for each query head that shares the state.
    fn read(&self, b: usize, h: usize, t: usize, state: &[f32], y: &mut [f32]) {
        let s = self.s;
        let group = s.q_heads / s.kv_heads;
        for qh in h * group..(h + 1) * group {
            let at = (b * s.len + t) * s.q_heads + qh;
            let out = &mut y[at * s.value..][..s.value];
            for (row, q) in state.chunks_exact(s.value.max(1)).zip(&self.q[at * s.key..][..s.key]) {
                out.iter_mut().zip(row).for_each(|(o, x)| *o += q * x);
            }
            out.iter_mut().for_each(|o| *o *= self.scale);
        }
    }
}

fn infer_conv(cx: &InferCx) -> Result<Vec<ValueType>> {
    let dtype = cx.dtype(0)?;
    let x = cx.shape(0);
    if x.is_some_and(|x| x.len() != 3) {
        return Err(Error::model("input must have rank 3"));
    }
    let dim = |i: usize, a: usize| cx.shape(i).and_then(|s| s.get(a)).cloned().unwrap_or(Dim::Unknown);
    let state = dim(1, 2).known().and_then(|k| k.checked_sub(1)).map_or_else(|| dim(3, 2), Dim::Known);
    Ok(vec![cx.input(0)?.clone(), tensor_type(dtype, Some(vec![dim(0, 0), dim(0, 1), state]))])
}

fn eval_conv(cx: &EvalCx) -> Result<Vec<Value>> {
    let (x, w, bias, past) = (cx.tensor(0)?, cx.tensor(1)?, cx.optional(2)?, cx.optional(3)?);
    let bad = || Error::model(format!("input {:?} and weights {:?} do not fit", x.shape(), w.shape()));
    let (&[n, c, len], &[wc, 1, k]) = (x.shape(), w.shape()) else { return Err(bad()) };
    if wc != c || k == 0 || bias.is_some_and(|b| b.shape() != [c]) {
        return Err(bad());
    }
    let state = k - 1;
    if past.is_some_and(|p| p.shape() != [n, c, state]) {
        return Err(Error::model(format!("past_state must have shape {:?}", [n, c, state])));
    }
    check_product([n, c, len.saturating_add(k)])?;
    budget::check(n.saturating_mul(c))?;
    let swish = match cx.attrs.str_or("activation", "none")? {
        "none" => false,
        "silu" | "swish" => true,
        a => return Err(Error::model(format!("activation '{}' is not known", a.escape_debug()))),
    };
    let (data, taps) = (x.to_f32s()?, w.to_f32s()?);
    let (bias, past) = (bias.map(Tensor::to_f32s).transpose()?, past.map(Tensor::to_f32s).transpose()?);
    let mut y = budget::vec(data.len())?;
    let mut present = budget::vec(budget::elements(&[n, c, state])?)?;
    let mut line = budget::filled(state + len, 0f32)?;
    for i in 0..n * c {
        match &past {
            Some(p) => line[..state].copy_from_slice(&p[i * state..][..state]),
            None => line[..state].fill(0.0),
        }
        line[state..].copy_from_slice(&data[i * len..][..len]);
        let (taps, start) = (&taps[i % c * k..][..k], bias.as_ref().map_or(0.0, |b| b[i % c]));
        for window in line.windows(k) {
            let sum = window.iter().zip(taps).fold(start, |s, (x, w)| s + x * w);
            y.push(if swish { sum / (1.0 + (-sum).exp()) } else { sum });
        }
        present.extend_from_slice(&line[len..]);
    }
    Ok(vec![
        Tensor::from_f32s(x.dtype(), x.shape(), y)?.into(),
        Tensor::from_f32s(x.dtype(), &[n, c, state], present)?.into(),
    ])
}
