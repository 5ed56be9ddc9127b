//! Attention by head: the permuted form that rewrites make, and the standard operator without caches and windows.

use super::{Cx, Lowered};
use artefact::{Call, Mask, Scores};
use ir::{DType, Node, Shape, ValueId};
use kernels::attention::HeadStrides;
use ops::broadcast::{broadcast_shapes, broadcast_strides};
use ops::movement::strides;

pub fn lower(cx: &Cx, n: &Node) -> Option<Lowered> {
    match (n.op.domain(), n.op.name()) {
        ("ir.", "Attention") => permuted(cx, n),
        ("", "Attention") => standard(cx, n),
        _ => None,
    }
}

/// Shape and strides of a tensor seen through a permutation.
struct View {
    shape: Shape,
    strides: Vec<usize>,
}

impl View {
    fn new(shape: &[usize], perm: &[usize]) -> View {
        let all = strides(shape);
        View {
            shape: perm.iter().map(|&d| shape[d]).collect(),
            strides: perm.iter().map(|&d| all[d]).collect(),
        }
    }

    /// Strides over `[batch, head, position, width]`, zero where `whole` has more than one and this has one.
    fn heads(&self, whole: &[usize]) -> Option<HeadStrides> {
        let rank = self.shape.len();
        let lead = |i: usize| match rank.checked_sub(i) {
            Some(d) if self.shape[d] == whole[d] => Some(self.strides[d]),
            Some(d) if self.shape[d] == 1 => Some(0),
            Some(_) => None,
            None => Some(0),
        };
        let (position, lane) = (self.strides[rank - 2], self.strides[rank - 1]);
        Some(HeadStrides { batch: lead(4)?, head: lead(3)?, position, lane })
    }
}

fn mask(cx: &Cx, mask: ValueId, scores: [usize; 4], fill: Option<f32>) -> Option<Mask> {
    let truth = match cx.graph.dtype(mask)? {
        DType::Bool => true,
        DType::F32 if fill.is_none() => false,
        _ => return None,
    };
    let shape = cx.shape(mask)?;
    if broadcast_shapes(&[&shape, &scores]).ok()?[..] != scores {
        return None;
    }
    let strides: [usize; 4] = broadcast_strides(&shape, &scores).try_into().ok()?;
    Some(Mask { strides, truth, fill })
}

fn lowered(s: Scores, reads: Vec<ValueId>, y: ValueId) -> Lowered {
    let per_score = 2.0 * (s.dim + s.value_dim) as f64 + 12.0;
    let flops = (s.batch * s.heads * s.queries * s.keys) as f64 * per_score;
    Lowered::call("attention", reads, y, flops, Call::Attention(s))
}

/// The kernel takes these strides.
fn fits(s: &Scores) -> bool {
    [&s.q, &s.v, &s.y].iter().all(|s| s.lane == 1) && (s.k.lane == 1 || s.k.position == 1)
}

fn permuted(cx: &Cx, n: &Node) -> Option<Lowered> {
    let y = n.output(0)?;
    let perm = |name: &str, rank: usize| -> Option<Vec<usize>> {
        let p: Vec<usize> =
            n.attrs.ints(name).ok()??.iter().map(|&d| usize::try_from(d).ok()).collect::<Option<_>>()?;
        let mut sorted = p.clone();
        sorted.sort_unstable();
        sorted.into_iter().eq(0..rank).then_some(p)
    };
    let view = |i: usize, name: &str| {
        let shape = cx.f32_shape(n.input(i)?)?;
        Some(View::new(&shape, &perm(name, shape.len())?))
    };
    let (q, k, v) = (view(0, "q_perm")?, view(1, "k_perm")?, view(2, "v_perm")?);
    let out = cx.f32_shape(y)?;
    let rank = out.len();
    if !(2..=4).contains(&rank) || [&q, &k, &v].iter().any(|t| t.shape.len() != rank) {
        return None;
    }
    // The result before its permutation has this one's strides at the places the permutation took its axes from.
    let p = perm("y_perm", rank)?;
    let mut inverse = vec![0; rank];
    p.iter().enumerate().for_each(|(i, &d)| inverse[d] = i);
    let o = View::new(&out, &inverse);
    let whole = &o.shape;
    let lead = |i: usize| rank.checked_sub(i).map_or(1, |d| whole[d]);
    let (batch, heads, queries, keys) = (lead(4), lead(3), q.shape[rank - 2], k.shape[rank - 2]);
    let (dim, value_dim) = (q.shape[rank - 1], v.shape[rank - 1]);
    if (k.shape[rank - 1], v.shape[rank - 2], whole[rank - 2], whole[rank - 1])
        != (dim, keys, queries, value_dim)
    {
        return None;
    }
    let mut reads = vec![n.input(0)?, n.input(1)?, n.input(2)?];
    let seen = match n.input(3) {
        Some(m) => {
            reads.push(m);
            Some(mask(cx, m, [batch, heads, queries, keys], n.attrs.float("fill").ok()?)?)
        }
        None => None,
    };
    if seen.as_ref().is_some_and(|m| m.truth && m.fill.is_none()) {
        return None;
    }
    let scores = Scores {
        q: q.heads(whole)?,
        k: k.heads(whole)?,
        v: v.heads(whole)?,
        y: o.heads(whole)?,
        mask: seen,
        causal: None,
        scale: n.attrs.float_or("scale", 1.0).ok()?,
        softcap: 0.0,
        unseen: f32::NAN,
        guard: n.attrs.int_or("guard", 0).ok()? != 0,
        batch,
        heads,
        kv_heads: heads,
        queries,
        keys,
        dim,
        value_dim,
    };
    fits(&scores).then(|| lowered(scores, reads, y))
}

fn standard(cx: &Cx, n: &Node) -> Option<Lowered> {
    let (qi, ki, vi, y) = (n.input(0)?, n.input(1)?, n.input(2)?, n.output(0)?);
    let more = n.outputs().iter().skip(1).any(Option::is_some);
    if more || (4..7).any(|i| n.input(i).is_some()) {
        return None;
    }
    let (q, k, v) = (cx.f32_shape(qi)?, cx.f32_shape(ki)?, cx.f32_shape(vi)?);
    let g = ops::attention::geometry(&n.attrs, &q, &k, &v, 0).ok()?;
    if g.left_window.is_some() || g.right_window.is_some() {
        return None;
    }
    let heads = |heads: usize, len: usize, size: usize| {
        let batch = heads * len * size;
        if g.packed {
            HeadStrides { batch, head: size, position: heads * size, lane: 1 }
        } else {
            HeadStrides { batch, head: len * size, position: size, lane: 1 }
        }
    };
    let mut reads = vec![qi, ki, vi];
    let seen = match n.input(3) {
        Some(m) => {
            reads.push(m);
            Some(mask(cx, m, [g.batch, g.q_heads, g.q_len, g.kv_len], None)?)
        }
        None => None,
    };
    // A mask of one column covers the first key only.
    if n.input(3).is_some_and(|m| cx.shape(m).is_none_or(|s| s.last() != Some(&g.kv_len))) {
        return None;
    }
    let scores = Scores {
        q: heads(g.q_heads, g.q_len, g.head),
        k: heads(g.kv_heads, g.kv_len, g.head),
        v: heads(g.kv_heads, g.kv_len, g.v_head),
        y: heads(g.q_heads, g.q_len, g.v_head),
        mask: seen,
        causal: g.causal.then_some(0),
        scale: g.scale as f32,
        softcap: g.softcap as f32,
        unseen: 0.0,
        guard: false,
        batch: g.batch,
        heads: g.q_heads,
        kv_heads: g.kv_heads,
        queries: g.q_len,
        keys: g.kv_len,
        dim: g.head,
        value_dim: g.v_head,
    };
    Some(lowered(scores, reads, y))
}

#[cfg(test)]
mod tests;
