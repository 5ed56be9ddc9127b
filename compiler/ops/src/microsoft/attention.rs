//! The attention operators: projections, heads, caches, masks, rotary positions, written out.

use super::quantized::product;
use crate::function::{Body, Outputs, plain};
use ir::{DType, Error, Result, Tensor, ValueId};

/// Queries, keys and values of one head each: (batch, heads, length, width).
struct Heads {
    q: ValueId,
    k: ValueId,
    v: ValueId,
}

fn count(b: &Body, name: &str) -> Result<i64> {
    match b.attrs.require_int(name)? {
        n if (1..1 << 31).contains(&n) => Ok(n),
        n => Err(Error::model(format!("attribute '{name}' is {n}"))),
    }
}

/// (batch, length, heads·width) by heads.
fn split(b: &mut Body, x: ValueId, heads: i64) -> Result<ValueId> {
    let x = b.reshape(x, &[0, 0, heads, -1])?;
    b.transpose(x, &[0, 2, 1, 3])
}

/// The inverse of [`split`].
fn join(b: &mut Body, x: ValueId) -> Result<ValueId> {
    let x = b.transpose(x, &[0, 2, 1, 3])?;
    b.reshape(x, &[0, 0, -1])
}

/// Three parts of the last axis.
fn thirds(b: &mut Body, x: ValueId, sizes: &[i64]) -> Result<[ValueId; 3]> {
    let parts = if sizes.is_empty() {
        b.node("Split", plain().with("axis", -1).with("num_outputs", 3), &[Some(x)], 3)?
    } else {
        let sizes = b.ints(sizes);
        b.node("Split", plain().with("axis", -1), &[Some(x), Some(sizes)], 3)?
    };
    <[ValueId; 3]>::try_from(parts).map_err(|_| Error::internal("a split in three"))
}

/// `alpha · x`, where alpha is the attribute `scale` or else one over the square root of the width of `x`.
fn scaled(b: &mut Body, x: ValueId, width: ValueId) -> Result<ValueId> {
    let given = b.attrs.float_or("scale", 0.0)?;
    let by = if given != 0.0 {
        b.number(x, given)?
    } else if let Some(n) = b.size(width, -1) {
        b.number(x, (1.0 / (n as f64).sqrt()) as f32)?
    } else {
        let n = b.dim(width, -1)?;
        let n = b.squeeze(n, &[0])?;
        let dtype = b.dtype(x)?;
        let n = b.cast(n, dtype)?;
        let n = b.op("Sqrt", &[n])?;
        b.op("Reciprocal", &[n])?
    };
    b.op("Mul", &[x, by])
}

/// 0 where `keep`, else `fill`.
fn bias_of(b: &mut Body, keep: ValueId, like: ValueId, fill: f32) -> Result<ValueId> {
    let (zero, fill) = (b.number(like, 0.0)?, b.number(like, fill)?);
    b.op("Where", &[keep, zero, fill])
}

/// True where query `i`, `past` positions on, may see key `j`: (queries, keys).
fn causal(b: &mut Body, queries: ValueId, keys: ValueId, past: ValueId, window: i64) -> Result<ValueId> {
    let i = b.range(queries)?;
    let i = b.op("Add", &[i, past])?;
    let i = b.unsqueeze(i, &[1])?;
    let j = b.range(keys)?;
    let keep = b.op("LessOrEqual", &[j, i])?;
    if window <= 0 {
        return Ok(keep);
    }
    let back = b.ints(&[window]);
    let first = b.op("Sub", &[i, back])?;
    let near = b.op("Greater", &[j, first])?;
    b.op("And", &[keep, near])
}

/// Softmax of scaled products plus biases, times the values: (batch, heads, queries, width).
fn attend(b: &mut Body, h: &Heads, softcap: f32, biases: &[ValueId]) -> Result<ValueId> {
    let kt = b.transpose(h.k, &[0, 1, 3, 2])?;
    let scores = b.op("MatMul", &[h.q, kt])?;
    let mut scores = scaled(b, scores, h.q)?;
    if softcap > 0.0 {
        let cap = b.number(scores, softcap)?;
        let small = b.op("Div", &[scores, cap])?;
        let t = b.op("Tanh", &[small])?;
        scores = b.op("Mul", &[t, cap])?;
    }
    for &bias in biases {
        scores = b.op("Add", &[scores, bias])?;
    }
    let p = b.op_with("Softmax", plain().with("axis", -1), &[scores])?;
    b.op("MatMul", &[p, h.v])
}

/// Biases of a padding mask in the forms these operators take, of a mask that hides later keys, and one that is given.
fn masks(b: &mut Body, h: &Heads, mask: Option<ValueId>, added: Option<ValueId>) -> Result<Vec<ValueId>> {
    let fill = b.attrs.float_or("mask_filter_value", -10000.0)?;
    let mut biases = Vec::new();
    if let Some(m) = mask {
        let keep = match b.rank(m)? {
            1 => {
                // The number of keys of each sample; or their ends, then their starts.
                let keys = b.dim(h.k, 2)?;
                let j = b.range(keys)?;
                let (n, batch) = (b.size(m, 0), b.size(h.q, 0));
                let both = match (n, batch) {
                    (Some(n), Some(batch)) if n == batch => false,
                    (Some(n), Some(batch)) if Some(n) == batch.checked_mul(2) => true,
                    (Some(n), Some(batch))
                        if Some(n) == batch.checked_mul(3).and_then(|b| b.checked_add(2)) =>
                    {
                        return Err(Error::unsupported("a mask of packed sequences"));
                    }
                    (None, _) | (_, None) => false,
                    (Some(n), Some(batch)) => {
                        return Err(Error::model(format!("a mask of {n} values for {batch} samples")));
                    }
                };
                let m = b.cast(m, DType::I64)?;
                let rows = if both { b.reshape(m, &[2, -1, 1])? } else { b.reshape(m, &[-1, 1])? };
                if both {
                    let parts =
                        b.node("Split", plain().with("axis", 0).with("num_outputs", 2), &[Some(rows)], 2)?;
                    let (end, start) = (b.squeeze(parts[0], &[0])?, b.squeeze(parts[1], &[0])?);
                    let (below, above) = (b.op("Less", &[j, end])?, b.op("GreaterOrEqual", &[j, start])?);
                    b.op("And", &[below, above])?
                } else {
                    b.op("Less", &[j, rows])?
                }
            }
            2 | 3 => b.cast(m, DType::Bool)?,
            r => return Err(Error::unsupported(format!("a mask of rank {r}"))),
        };
        let axes: &[i64] = if b.rank(keep)? == 2 { &[1, 2] } else { &[1] };
        let keep = b.unsqueeze(keep, axes)?;
        biases.push(bias_of(b, keep, h.q, fill)?);
    }
    if b.flag("unidirectional")? {
        let (queries, keys) = (b.dim(h.q, 2)?, b.dim(h.k, 2)?);
        let past = b.op("Sub", &[keys, queries])?;
        let keep = causal(b, queries, keys, past, 0)?;
        let lowest = if b.dtype(h.q)? == DType::F16 { -65504.0 } else { f32::MIN };
        biases.push(bias_of(b, keep, h.q, lowest)?);
    }
    biases.extend(added);
    Ok(biases)
}

fn append(b: &mut Body, past: Option<ValueId>, x: ValueId) -> Result<ValueId> {
    past.map_or(Ok(x), |p| b.concat(2, &[p, x]))
}

/// Attention over projected input; `past` and `present` are (2, batch, heads, length, width).
fn projected(
    b: &mut Body,
    qkv: [ValueId; 3],
    mask: Option<ValueId>,
    past: Option<ValueId>,
    added: Option<ValueId>,
) -> Result<Outputs> {
    if b.flag("do_rotary")? || b.flag("past_present_share_buffer")? {
        return Err(Error::unsupported("Attention with rotary positions or a shared cache"));
    }
    let heads = count(b, "num_heads")?;
    let [q, k, v] = qkv;
    let mut h = Heads { q: split(b, q, heads)?, k: split(b, k, heads)?, v: split(b, v, heads)? };
    if let Some(past) = past {
        let parts = b.node("Split", plain().with("axis", 0).with("num_outputs", 2), &[Some(past)], 2)?;
        let (k, v) = (b.squeeze(parts[0], &[0])?, b.squeeze(parts[1], &[0])?);
        h.k = b.concat(2, &[k, h.k])?;
        h.v = b.concat(2, &[v, h.v])?;
    }
    let biases = masks(b, &h, mask, added)?;
    let y = attend(b, &h, 0.0, &biases)?;
    let y = join(b, y)?;
    let present = if b.outputs > 1 {
        let (k, v) = (b.unsqueeze(h.k, &[0])?, b.unsqueeze(h.v, &[0])?);
        Some(b.concat(0, &[k, v])?)
    } else {
        None
    };
    Ok(vec![Some(y), present])
}

pub fn attention(b: &mut Body) -> Result<Outputs> {
    if b.get(6).is_some() {
        return Err(Error::unsupported("Attention with past_sequence_length"));
    }
    let sizes = b.attrs.ints("qkv_hidden_sizes")?.unwrap_or(&[]).to_vec();
    let x = b.op("MatMul", &[b.need(0)?, b.need(1)?])?;
    let x = b.plus(x, b.get(2))?;
    let qkv = thirds(b, x, &sizes)?;
    let (mask, past, added) = (b.get(3), b.get(4), b.get(5));
    projected(b, qkv, mask, past, added)
}

pub fn quantized(b: &mut Body) -> Result<Outputs> {
    let (x, w, scales) = (b.need(0)?, b.need(1)?, [b.need(3)?, b.need(4)?]);
    let x = product(b, [x, w], scales, [b.get(6), b.get(7)], Some(b.need(2)?))?;
    let qkv = thirds(b, x, &[])?;
    let (mask, past) = (b.get(5), b.get(8));
    projected(b, qkv, mask, past, None)
}

/// (batch, length, heads, parts, width): one part by heads.
fn part(b: &mut Body, x: ValueId, i: i64) -> Result<ValueId> {
    let (from, to) = (b.ints(&[i]), b.ints(&[i + 1]));
    let x = b.slice(x, from, to, 3)?;
    let x = b.squeeze(x, &[3])?;
    b.transpose(x, &[0, 2, 1, 3])
}

pub fn multi_head(b: &mut Body) -> Result<Outputs> {
    let heads = count(b, "num_heads")?;
    if b.get(8).is_some() || b.get(9).is_some() {
        return Err(Error::unsupported("MultiHeadAttention with a shared cache or beams"));
    }
    if b.outputs > 3 {
        return Err(Error::unsupported("MultiHeadAttention with its scores as an output"));
    }
    let (query, key, value) = (b.need(0)?, b.get(1), b.get(2));
    let mut biases = [None; 3];
    if let Some(bias) = b.get(3) {
        let value_size = value.and_then(|v| (b.rank(v).ok()? == 3).then(|| b.size(v, -1)).flatten());
        let sizes = match (b.size(query, -1), value_size) {
            (Some(q), Some(v)) if q != v => vec![q as i64, q as i64, v as i64],
            _ => vec![],
        };
        biases = thirds(b, bias, &sizes)?.map(Some);
    }
    let by_head = |b: &mut Body, x: ValueId, bias: Option<ValueId>| -> Result<ValueId> {
        let x = b.plus(x, bias)?;
        split(b, x, heads)
    };
    let packed_bias = biases.iter().any(Option::is_some);
    let mut h = match (key, value) {
        (None, None) if packed_bias => return Err(Error::unsupported("a bias on packed heads")),
        (None, None) => Heads { q: part(b, query, 0)?, k: part(b, query, 1)?, v: part(b, query, 2)? },
        (Some(kv), None) => {
            if biases[1].is_some() {
                return Err(Error::unsupported("a bias on packed heads"));
            }
            Heads { q: by_head(b, query, biases[0])?, k: part(b, kv, 0)?, v: part(b, kv, 1)? }
        }
        (Some(k), Some(v)) => {
            let q = by_head(b, query, biases[0])?;
            // Rank 4: by heads already, and without a bias.
            let side = |b: &mut Body, x: ValueId, bias| {
                if b.rank(x)? == 4 { Ok(x) } else { by_head(b, x, bias) }
            };
            Heads { q, k: side(b, k, biases[1])?, v: side(b, v, biases[2])? }
        }
        (None, Some(_)) => return Err(Error::model("a value without a key")),
    };
    h.k = append(b, b.get(6), h.k)?;
    h.v = append(b, b.get(7), h.v)?;
    let (mask, added) = (b.get(4), b.get(5));
    let biases = masks(b, &h, mask, added)?;
    let y = attend(b, &h, 0.0, &biases)?;
    let y = join(b, y)?;
    Ok(vec![Some(y), Some(h.k), Some(h.v)])
}

/// Rotary positions on (batch, heads, length, width).
fn turned(b: &mut Body, x: ValueId, cos: ValueId, sin: ValueId, positions: ValueId) -> Result<ValueId> {
    let dim = match (b.size(cos, -1), b.size(x, -1)) {
        (Some(half), Some(width)) if half < width.div_ceil(2) => 2 * half as i64,
        _ => 0,
    };
    let attrs = plain()
        .with("interleaved", b.attrs.int_or("rotary_interleaved", 0)?)
        .with("rotary_embedding_dim", dim);
    b.op_with("RotaryEmbedding", attrs, &[x, cos, sin, positions])
}

pub fn grouped(b: &mut Body) -> Result<Outputs> {
    for (i, what) in
        [(11, "head_sink"), (12, "a quantized cache"), (14, "normalised queries"), (16, "query_seqlens")]
    {
        if b.get(i).is_some() {
            return Err(Error::unsupported(format!("GroupQueryAttention with {what}")));
        }
    }
    if b.flag("smooth_softmax")? || b.attrs.int_or("kv_cache_bit_width", 0)? != 0 || b.outputs > 3 {
        return Err(Error::unsupported(
            "GroupQueryAttention with a smooth softmax, a quantized cache or scores",
        ));
    }
    if b.flag("sliding_window_cache")? || b.attrs.int_or("causal", 1)? == 0 {
        return Err(Error::unsupported("GroupQueryAttention with a sliding cache or without a causal mask"));
    }
    let (heads, kv_heads) = (count(b, "num_heads")?, count(b, "kv_num_heads")?);
    if heads % kv_heads != 0 {
        return Err(Error::model(format!("{kv_heads} heads of keys do not divide {heads}")));
    }
    let query = b.need(0)?;
    let (q, k, v) = match (b.get(1), b.get(2)) {
        (Some(k), Some(v)) => (split(b, query, heads)?, split(b, k, kv_heads)?, split(b, v, kv_heads)?),
        (None, None) => {
            let all = split(b, query, heads + 2 * kv_heads)?;
            let sizes = b.ints(&[heads, kv_heads, kv_heads]);
            let p = b.node("Split", plain().with("axis", 1), &[Some(all), Some(sizes)], 3)?;
            (p[0], p[1], p[2])
        }
        _ => return Err(Error::model("key and value go together")),
    };
    let (lengths, total) = (b.cast(b.need(5)?, DType::I64)?, b.cast(b.need(6)?, DType::I64)?);
    let total = b.reshape(total, &[1])?;
    let queries = b.dim(q, 2)?;
    // How many keys each sample has had before; a prompt has had none, however short a sample is.
    let past = b.op("Sub", &[total, queries])?;
    let one = b.ints(&[1]);
    let lengths = b.reshape(lengths, &[-1, 1])?;
    let ends = b.op("Add", &[lengths, one])?;
    let own_past = b.op("Sub", &[ends, queries])?;
    let zero = b.ints(&[0]);
    let own_past = b.op("Max", &[own_past, zero])?;
    let mut h = Heads { q, k, v };
    if b.flag("do_rotary")? {
        let (cos, sin) = (b.need(7)?, b.need(8)?);
        let positions = match b.get(9) {
            Some(p) => p,
            None => {
                let steps = b.range(queries)?;
                b.op("Add", &[own_past, steps])?
            }
        };
        h.q = turned(b, h.q, cos, sin, positions)?;
        h.k = turned(b, h.k, cos, sin, positions)?;
    }
    // A cache longer than what is in use is cut to it.
    for (side, cache) in [(&mut h.k, 3), (&mut h.v, 4)] {
        if let Some(cache) = b.get(cache) {
            let used = b.slice(cache, zero, past, 2)?;
            *side = b.concat(2, &[used, *side])?;
        }
    }
    let (present_k, present_v) = (h.k, h.v);
    let softcap = b.attrs.float_or("softcap", 0.0)?;
    let window = b.attrs.int_or("local_window_size", -1)?;
    let keys = b.dim(h.k, 2)?;
    let keep = causal(b, queries, keys, past, window)?;
    let mut biases = vec![bias_of(b, keep, h.q, f32::NEG_INFINITY)?];
    if let Some(added) = b.get(10) {
        biases.push(added);
    }
    let group = heads / kv_heads;
    if group > 1 {
        for side in [&mut h.k, &mut h.v] {
            let x = b.unsqueeze(*side, &[2])?;
            let shape = b.constant(Tensor::vector(vec![1, 1, group, 1, 1]));
            let x = b.op("Expand", &[x, shape])?;
            let width = b.dim(*side, -1)?;
            let fixed = b.ints(&[0, heads, -1]);
            let shape = b.concat(0, &[fixed, width])?;
            *side = b.op("Reshape", &[x, shape])?;
        }
    }
    let y = attend(b, &h, softcap, &biases)?;
    let y = join(b, y)?;
    Ok(vec![Some(y), Some(present_k), Some(present_v)])
}

/// Positions are given for each token, or as the first one's.
pub fn rotary(b: &mut Body) -> Result<Outputs> {
    if b.flag("is_packed_batching")? || b.attrs.float_or("scale", 1.0)? != 1.0 {
        return Err(Error::unsupported("RotaryEmbedding with packed batches or a scale"));
    }
    let (x, positions, cos, sin) = (b.need(0)?, b.need(1)?, b.need(2)?, b.need(3)?);
    let rank = b.rank(x)?;
    let mut attrs = b.attrs_without(&["is_packed_batching", "scale"]);
    if rank == 3 && attrs.int_or("num_heads", 0)? == 0 {
        let (Some(hidden), Some(half)) = (b.size(x, -1), b.size(cos, -1)) else {
            return Err(Error::unsupported("RotaryEmbedding of heads of unknown width"));
        };
        attrs.set("num_heads", (hidden / half.saturating_mul(2).max(1)) as i64);
    }
    let positions = if b.rank(positions)? == 1 {
        let axis = if rank == 4 { 2 } else { 1 };
        let len = b.dim(x, axis)?;
        let steps = b.range(len)?;
        let row = b.op("Add", &[steps, positions])?;
        let (batch, one) = (b.dim(x, 0)?, b.ints(&[1]));
        let shape = b.concat(0, &[batch, one])?;
        b.op("Expand", &[row, shape])?
    } else {
        positions
    };
    Ok(vec![Some(b.op_with("RotaryEmbedding", attrs, &[x, cos, sin, positions])?)])
}
