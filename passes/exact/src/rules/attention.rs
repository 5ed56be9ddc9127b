//! Attention that exporters wrote out as two matrix products around a softmax, as one operator.
//!
//! The internal operator reads Q, K and V and writes its result through permutations, so that the transposes between
//! heads and positions become strides of one kernel.

use crate::rule::{Cx, Rule};
use egg::Id;
use ir::{Attrs, DType, Dim};

/// Scores, in the forms met before a softmax.
macro_rules! recognise {
    ($name:literal, $scores:literal, $mask:expr) => {
        Rule::build($name, concat!("(MatMul ?m (Softmax ?s ", $scores, ") ?v)"), |cx| {
            let mask = $mask(cx)?;
            attention(cx, mask, false)
        })
        .runtime()
    };
}

/// As [`recognise`], with a guard that exporters put around the softmax of rows that are hidden as a whole.
macro_rules! recognise_guarded {
    ($name:literal, $scores:literal, $mask:expr) => {
        Rule::build(
            $name,
            concat!(
                "(MatMul ?m (Where ?g (IsNaN ?i (Softmax ?s ",
                $scores,
                ")) ?zero (Softmax ?s ",
                $scores,
                ")) ?v)"
            ),
            |cx| {
                let zero = cx.id("?zero")?;
                if cx.scalar(zero)? != 0.0 || cx.rank(zero)? > cx.rank(cx.class())? {
                    return None;
                }
                let mask = $mask(cx)?;
                attention(cx, mask, true)
            },
        )
        .runtime()
    };
}

pub static RULES: &[Rule] = &[
    recognise!("recognise-attention", "(MatMul ?n ?q ?k)", unmasked),
    recognise!("recognise-scaled-attention", "(Mul ?e (MatMul ?n ?q ?k) ?c)", unmasked),
    recognise!("recognise-masked-attention", "(Add ?d (MatMul ?n ?q ?k) ?mask)", added),
    recognise!("recognise-scaled-masked-attention", "(Add ?d (Mul ?e (MatMul ?n ?q ?k) ?c) ?mask)", added),
    recognise!("recognise-filled-attention", "(Where ?w ?mask (MatMul ?n ?q ?k) ?fill)", kept),
    recognise!(
        "recognise-scaled-filled-attention",
        "(Where ?w ?mask (Mul ?e (MatMul ?n ?q ?k) ?c) ?fill)",
        kept
    ),
    recognise!("recognise-attention-filled-first", "(Where ?w ?mask ?fill (MatMul ?n ?q ?k))", hidden),
    recognise!(
        "recognise-scaled-attention-filled-first",
        "(Where ?w ?mask ?fill (Mul ?e (MatMul ?n ?q ?k) ?c))",
        hidden
    ),
    recognise_guarded!("recognise-guarded-attention", "(MatMul ?n ?q ?k)", unmasked),
    recognise_guarded!("recognise-guarded-scaled-attention", "(Mul ?e (MatMul ?n ?q ?k) ?c)", unmasked),
    recognise_guarded!("recognise-guarded-masked-attention", "(Add ?d (MatMul ?n ?q ?k) ?mask)", added),
    recognise_guarded!(
        "recognise-guarded-scaled-masked-attention",
        "(Add ?d (Mul ?e (MatMul ?n ?q ?k) ?c) ?mask)",
        added
    ),
    // Without a mask no row of scores is hidden as a whole, where the standard operator differs from a softmax.
    Rule::build(
        "recognise-standard-attention",
        "(MatMul ?m (Softmax ?s (MatMul ?n ?q ?k)) ?v)",
        standard_attention,
    ),
    Rule::build(
        "recognise-standard-scaled-attention",
        "(MatMul ?m (Softmax ?s (Mul ?e (MatMul ?n ?q ?k) ?c)) ?v)",
        standard_attention,
    ),
    Rule::build("split-standard-attention", "(Attention ?a ?q ?k ?v ?mask ?pk ?pv ?len)", split_standard)
        .runtime(),
    Rule::build("absorb-transpose-of-queries", "(ir.Attention ?a (Transpose ?t ?q) ?k ?v ?mask)", |cx| {
        absorb(cx, "q_perm", "?q")
    })
    .runtime(),
    Rule::build("absorb-transpose-of-keys", "(ir.Attention ?a ?q (Transpose ?t ?k) ?v ?mask)", |cx| {
        absorb(cx, "k_perm", "?k")
    })
    .runtime(),
    Rule::build("absorb-transpose-of-values", "(ir.Attention ?a ?q ?k (Transpose ?t ?v) ?mask)", |cx| {
        absorb(cx, "v_perm", "?v")
    })
    .runtime(),
    Rule::build("absorb-transpose-of-attention", "(Transpose ?t (ir.Attention ?a ?q ?k ?v ?mask))", |cx| {
        let (mut a, t) = (cx.attrs("?a")?, cx.attrs("?t")?);
        let inner = a.ints("y_perm").ok()??.to_vec();
        let outer = permutation(&t, inner.len())?;
        let both: Vec<i64> = outer.iter().map(|&i| inner[i as usize]).collect();
        // The kernel writes whole rows.
        if both.last() != Some(&(both.len() as i64 - 1)) {
            return None;
        }
        a.set("y_perm", both);
        build(cx, a)
    })
    .runtime(),
    Rule::build("fold-scale-of-queries", "(ir.Attention ?a (Mul ?e ?q ?c) ?k ?v ?mask)", |cx| {
        fold_scale(cx, "?q")
    })
    .runtime(),
    Rule::build("fold-scale-of-keys", "(ir.Attention ?a ?q (Mul ?e ?k ?c) ?v ?mask)", |cx| {
        fold_scale(cx, "?k")
    })
    .runtime(),
];

/// A mask and, where scores are replaced, what by.
type Mask = Option<(Id, Option<f32>)>;

fn unmasked(_: &mut Cx) -> Option<Mask> {
    Some(None)
}

fn added(cx: &mut Cx) -> Option<Mask> {
    let mask = cx.id("?mask")?;
    if cx.dtype(mask)? == DType::F32 { Some(Some((mask, None))) } else { None }
}

fn kept(cx: &mut Cx) -> Option<Mask> {
    let (mask, fill) = (cx.id("?mask")?, cx.id("?fill")?);
    let scalar = cx.shape(fill)?.len() <= cx.rank(cx.class())?;
    let fill = cx.scalar(fill).filter(|_| scalar)?;
    Some(Some((mask, Some(fill as f32))))
}

fn hidden(cx: &mut Cx) -> Option<Mask> {
    let (_, fill) = kept(cx)??;
    let mask = cx.op("Not", Attrs::new(), &[cx.id("?mask")?])?;
    Some(Some((mask, fill)))
}

/// Rank, queries and keys of a match whose operands have one rank, are computed, and meet in a softmax over keys.
struct Scores {
    rank: usize,
    q: Id,
    k: Id,
    v: Id,
    scale: f64,
}

fn scores(cx: &Cx) -> Option<Scores> {
    let (q, k, v) = (cx.id("?q")?, cx.id("?k")?, cx.id("?v")?);
    let rank = cx.rank(cx.class())?;
    let axis = cx.attrs("?s")?.int_or("axis", -1).ok()?;
    // Products with weights are faster by themselves, packed once.
    let fits = [q, k, v]
        .iter()
        .all(|&t| cx.rank(t) == Some(rank) && cx.dtype(t) == Some(DType::F32) && !cx.constant(t));
    if !fits || !(2..=4).contains(&rank) || !(axis == -1 || axis == rank as i64 - 1) {
        return None;
    }
    let scale = match cx.id("?c") {
        Some(c) => cx.scalar(c).filter(|_| cx.rank(c).is_some_and(|r| r <= rank) && cx.tame(c))?,
        None => 1.0,
    };
    Some(Scores { rank, q, k, v, scale })
}

fn identity(rank: usize) -> Vec<i64> {
    (0..rank as i64).collect()
}

fn swapped(rank: usize) -> Vec<i64> {
    let mut p = identity(rank);
    p.swap(rank - 2, rank - 1);
    p
}

fn attention(cx: &mut Cx, mask: Mask, guard: bool) -> Option<Id> {
    let s = scores(cx)?;
    // Known sizes: code is generated for them.
    let (q, k) = (cx.shape(s.q)?, cx.shape(s.k)?);
    cx.shape(s.v)?;
    if let Some((m, _)) = mask {
        let leading = ops::broadcast::broadcast_shapes(&[&q[..s.rank - 2], &k[..s.rank - 2]]).ok()?;
        let mut all = leading;
        all.extend([q[s.rank - 2], k[s.rank - 1]]);
        // A mask that widens the scores belongs to a larger product.
        if ops::broadcast::broadcast_shapes(&[&cx.shape(m)?, &all]).ok()? != all {
            return None;
        }
    }
    let mut a = Attrs::new().with("scale", s.scale as f32).with("k_perm", swapped(s.rank));
    for name in ["q_perm", "v_perm", "y_perm"] {
        a.set(name, identity(s.rank));
    }
    if guard {
        a.set("guard", 1i64);
    }
    let mut inputs = vec![s.q, s.k, s.v];
    if let Some((m, fill)) = mask {
        inputs.push(m);
        if let Some(f) = fill {
            a.set("fill", f);
        }
    }
    cx.op_in("ir.", "Attention", a, &inputs)
}

/// The standard operator came with opset 23; files that were older stay so.
fn standard_attention(cx: &mut Cx) -> Option<Id> {
    let s = scores(cx)?;
    let same = |a: &Dim, b: &Dim| a == b && *a != Dim::Unknown;
    let shape = |id: Id| cx.ty(id)?.shape();
    let (q, k, v) = (shape(s.q)?, shape(s.k)?, shape(s.v)?);
    let leading = s.rank == 4 && (0..2).all(|d| same(&q[d], &k[d]) && same(&q[d], &v[d]));
    if cx.opset() < 23 || !leading || !same(&q[3], &k[2]) || !same(&k[3], &v[2]) {
        return None;
    }
    let k = cx.op("Transpose", Attrs::new().with("perm", swapped(4)), &[s.k])?;
    cx.op("Attention", Attrs::new().with("scale", s.scale as f32), &[s.q, k, s.v])
}

/// The standard operator where it is a plain softmax, so that what surrounds it can join.
fn split_standard(cx: &mut Cx) -> Option<Id> {
    let (a, q, k, v) = (cx.attrs("?a")?, cx.id("?q")?, cx.id("?k")?, cx.id("?v")?);
    let rest = ["?mask", "?pk", "?pv", "?len"].map(|v| cx.id(v));
    let plain = rest.iter().all(|&id| id.is_some_and(|id| cx.absent(id)))
        && a.int_or("is_causal", 0).ok()? == 0
        && a.float_or("softcap", 0.0).ok()? <= 0.0
        && ["left_window_size", "right_window_size"].iter().all(|w| a.int_or(w, -1).ok() == Some(-1));
    let (qs, ks, vs) = (cx.shape(q)?, cx.shape(k)?, cx.shape(v)?);
    let four = [&qs, &ks, &vs].iter().all(|s| s.len() == 4);
    if !plain || !four || qs[1] != ks[1] || cx.dtype(q)? != DType::F32 {
        return None;
    }
    let g = ops::attention::geometry(&a, &qs, &ks, &vs, 0).ok()?;
    let mut b = Attrs::new().with("scale", g.scale as f32);
    for name in ["q_perm", "k_perm", "v_perm", "y_perm"] {
        b.set(name, identity(4));
    }
    cx.op_in("ir.", "Attention", b, &[q, k, v])
}

/// The permutation of a Transpose; the default reverses.
fn permutation(t: &Attrs, rank: usize) -> Option<Vec<i64>> {
    let p = t.ints("perm").ok()?.map_or_else(|| (0..rank as i64).rev().collect(), <[i64]>::to_vec);
    let mut sorted = p.clone();
    sorted.sort_unstable();
    if sorted == identity(rank) { Some(p) } else { None }
}

/// The matched operator with other attributes, over the variables as bound.
fn build(cx: &mut Cx, a: Attrs) -> Option<Id> {
    let inputs = [cx.id("?q")?, cx.id("?k")?, cx.id("?v")?, cx.id("?mask")?];
    cx.op_in("ir.", "Attention", a, &inputs)
}

/// Reads `x` through both permutations, if the kernel can: rows of an operand are contiguous, those of keys may be columns.
fn absorb(cx: &mut Cx, name: &str, x: &str) -> Option<Id> {
    let (mut a, t, rank) = (cx.attrs("?a")?, cx.attrs("?t")?, cx.rank(cx.id(x)?)?);
    let inner = permutation(&t, rank)?;
    let outer = a.ints(name).ok()??.to_vec();
    let both: Vec<i64> = outer.iter().map(|&o| inner.get(o as usize).copied()).collect::<Option<_>>()?;
    let last = both.iter().position(|&d| d == rank as i64 - 1)?;
    if last + 1 != rank && !(name == "k_perm" && last + 2 == rank) {
        return None;
    }
    a.set(name, both);
    build(cx, a)
}

/// (c·q)·kᵀ = c·(q·kᵀ)
fn fold_scale(cx: &mut Cx, x: &str) -> Option<Id> {
    let (mut a, x, c) = (cx.attrs("?a")?, cx.id(x)?, cx.id("?c")?);
    if cx.constant(x) || cx.rank(c)? > cx.rank(x)? || !cx.tame(c) {
        return None;
    }
    let scale = f64::from(a.float_or("scale", 1.0).ok()?) * cx.scalar(c)?;
    a.set("scale", scale as f32);
    build(cx, a)
}
