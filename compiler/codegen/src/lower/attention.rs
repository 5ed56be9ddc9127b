//! Attention by head: the permuted form that rewrites make, and the standard operator without caches and windows.

use super::{Cx, Lowered};
use crate::kernel::{Io, text};
use artefact::{Call, Scores};
use ir::{DType, Node, Shape, ValueId};
use kernels::attention::{Attention, HeadStrides, Heads, ScoreMask, attention};
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

/// What the kernel needs besides data.
struct Plan {
    q: HeadStrides,
    k: HeadStrides,
    v: HeadStrides,
    y: HeadStrides,
    mask: Option<MaskPlan>,
    causal: Option<isize>,
    scale: f32,
    softcap: f32,
    unseen: f32,
    batch: usize,
    heads: usize,
    kv_heads: usize,
    queries: usize,
    keys: usize,
    dim: usize,
    value_dim: usize,
}

struct MaskPlan {
    strides: [usize; 4],
    /// The element type is bool; otherwise float32.
    truth: bool,
    fill: Option<f32>,
}

impl MaskPlan {
    fn new(cx: &Cx, mask: ValueId, scores: [usize; 4], fill: Option<f32>) -> Option<MaskPlan> {
        let truth = match cx.graph.dtype(mask)? {
            DType::Bool => true,
            DType::F32 if fill.is_none() => false,
            _ => return None,
        };
        let shape = cx.shape(mask)?;
        if broadcast_shapes(&[&shape, &scores]).ok()?[..] != scores {
            return None;
        }
        let s: [usize; 4] = broadcast_strides(&shape, &scores).try_into().ok()?;
        Some(MaskPlan { strides: s, truth, fill })
    }

    fn mask<'a>(&self, data: &'a [f32]) -> ScoreMask<'a> {
        let [batch, head, query, key] = self.strides;
        ScoreMask { data, fill: self.fill, batch, head, query, key }
    }
}

impl Plan {
    fn run(&self, io: &Io) -> Result<(), String> {
        let y: &mut [f32] = io.output(0);
        // A product over no keys is zero.
        if self.keys == 0 {
            y.fill(0.0);
            return Ok(());
        }
        let truth: Vec<f32> = match &self.mask {
            Some(m) if m.truth => io.input::<u8>(3).iter().map(|&b| self.weight(m, b != 0)).collect(),
            _ => Vec::new(),
        };
        let mask = self.mask.as_ref().map(|m| m.mask(if m.truth { &truth } else { io.input(3) }));
        let a = Attention {
            q: Heads { data: io.input(0), strides: self.q },
            k: Heads { data: io.input(1), strides: self.k },
            v: Heads { data: io.input(2), strides: self.v },
            mask,
            causal: self.causal,
            scale: self.scale,
            softcap: self.softcap,
            batch: self.batch,
            heads: self.heads,
            kv_heads: self.kv_heads,
            queries: self.queries,
            keys: self.keys,
            dim: self.dim,
            value_dim: self.value_dim,
            unseen: self.unseen,
        };
        attention(io.pool, &a, y, self.y).map_err(text)
    }

    /// A truth value as the kernel's mask: chosen or not, or added.
    fn weight(&self, m: &MaskPlan, seen: bool) -> f32 {
        match (m.fill, seen) {
            (Some(_), seen) => f32::from(u8::from(seen)),
            (None, true) => 0.0,
            (None, false) => f32::NEG_INFINITY,
        }
    }

    fn lowered(self, cx: &Cx, reads: Vec<ValueId>, y: ValueId) -> Lowered {
        let per_score = 2.0 * (self.dim + self.value_dim) as f64 + 12.0;
        let flops = (self.batch * self.heads * self.queries * self.keys) as f64 * per_score;
        let call = Call::Attention(self.scores());
        Lowered::kernel("attention", reads, y, flops, move |io| self.run(io)).ahead(cx, |_| Some(call))
    }

    /// As data for an artefact.
    fn scores(&self) -> Scores {
        let mask = |m: &MaskPlan| artefact::Mask { strides: m.strides, truth: m.truth, fill: m.fill };
        Scores {
            q: self.q,
            k: self.k,
            v: self.v,
            y: self.y,
            mask: self.mask.as_ref().map(mask),
            causal: self.causal,
            scale: self.scale,
            softcap: self.softcap,
            unseen: self.unseen,
            batch: self.batch,
            heads: self.heads,
            kv_heads: self.kv_heads,
            queries: self.queries,
            keys: self.keys,
            dim: self.dim,
            value_dim: self.value_dim,
        }
    }
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
    let mask = match n.input(3) {
        Some(m) => {
            reads.push(m);
            Some(MaskPlan::new(cx, m, [batch, heads, queries, keys], n.attrs.float("fill").ok()?)?)
        }
        None => None,
    };
    if mask.as_ref().is_some_and(|m| m.truth && m.fill.is_none()) {
        return None;
    }
    let plan = Plan {
        q: q.heads(whole)?,
        k: k.heads(whole)?,
        v: v.heads(whole)?,
        y: o.heads(whole)?,
        mask,
        causal: None,
        scale: n.attrs.float_or("scale", 1.0).ok()?,
        softcap: 0.0,
        unseen: f32::NAN,
        batch,
        heads,
        kv_heads: heads,
        queries,
        keys,
        dim,
        value_dim,
    };
    plan.fits().then(|| plan.lowered(cx, reads, y))
}

impl Plan {
    /// The kernel takes these strides.
    fn fits(&self) -> bool {
        [&self.q, &self.v, &self.y].iter().all(|s| s.lane == 1) && (self.k.lane == 1 || self.k.position == 1)
    }
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
    let mask = match n.input(3) {
        Some(m) => {
            reads.push(m);
            Some(MaskPlan::new(cx, m, [g.batch, g.q_heads, g.q_len, g.kv_len], None)?)
        }
        None => None,
    };
    // A mask of one column covers the first key only.
    if n.input(3).is_some_and(|m| cx.shape(m).is_none_or(|s| s.last() != Some(&g.kv_len))) {
        return None;
    }
    let plan = Plan {
        q: heads(g.q_heads, g.q_len, g.head),
        k: heads(g.kv_heads, g.kv_len, g.head),
        v: heads(g.kv_heads, g.kv_len, g.v_head),
        y: heads(g.q_heads, g.q_len, g.v_head),
        mask,
        causal: g.causal.then_some(0),
        scale: g.scale as f32,
        softcap: g.softcap as f32,
        unseen: 0.0,
        batch: g.batch,
        heads: g.q_heads,
        kv_heads: g.kv_heads,
        queries: g.q_len,
        keys: g.kv_len,
        dim: g.head,
        value_dim: g.v_head,
    };
    Some(plan.lowered(cx, reads, y))
}

#[cfg(test)]
mod tests;
