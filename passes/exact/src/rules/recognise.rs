//! Operators that exporters wrote out in parts, put together again.

use crate::rule::{Cx, Rule, every};
use egg::Id;
use ir::{Attrs, DType, Tensor};

pub static RULES: &[Rule] = &[
    // (x − mean)/√(mean((x − mean)²) + ε) over the last axis; scale and shift join in the two rules after it.
    Rule::build(
        "recognise-layer-norm",
        "(Div ?a ?d (Sqrt ?b (Add ?c (ReduceMean ?r (Mul ?p ?d ?d) ?axes) ?eps)))",
        layer_norm,
    ),
    Rule::build(
        "recognise-layer-norm-by-reciprocal",
        "(Mul ?a ?d (Reciprocal ?e (Sqrt ?b (Add ?c (ReduceMean ?r (Mul ?p ?d ?d) ?axes) ?eps))))",
        layer_norm,
    ),
    // As Keras writes it: rows as the channels of one image, normalised by their own statistics.
    Rule::build(
        "recognise-layer-norm-of-batch-norm",
        "(BatchNormalization ?a ?x ?s ?b (Squeeze ?q (ReduceMean ?r ?x ?axes) ?ones) \
          (Div ?d (ReduceSumSquare ?k (Sub ?u ?x (ReduceMean ?r ?x ?axes)) ?axes) ?n))",
        layer_norm_of_batch_norm,
    ),
    Rule::build(
        "drop-reshapes-around-layer-norm",
        "(Reshape ?r (LayerNormalization ?a (Reshape ?q ?x ?p) ?s ?b) ?t)",
        |cx| {
            let (x, s, b, a) = (cx.id("?x")?, cx.id("?s")?, cx.id("?b")?, cx.attrs("?a")?);
            let shape = cx.shape(x)?;
            let rows = a.int_or("axis", -1).ok()? == -1
                && cx.shape(s)?[..] == shape[shape.len().checked_sub(1)?..];
            let same = cx.ty(x)? == cx.ty(cx.class())? && !shape.contains(&0);
            if rows && same { cx.op("LayerNormalization", a, &[x, s, b]) } else { None }
        },
    ),
    Rule::build("fold-mul-into-layer-norm", "(Mul ?m (LayerNormalization ?a ?x ?s ?b) ?c)", layer_norm_scale),
    Rule::build("fold-add-into-layer-norm", "(Add ?m (LayerNormalization ?a ?x ?s ?b) ?c)", layer_norm_shift),
    // x·(1 + erf(x/√2))/2, in the three orders met in the wild
    Rule::build(
        "recognise-gelu-half-last",
        "(Mul ?a (Mul ?b ?x (Add ?c (Erf ?d (Mul ?e ?x ?k)) ?one)) ?half)",
        gelu_erf,
    ),
    Rule::build(
        "recognise-gelu-half-first",
        "(Mul ?a (Mul ?b ?x ?half) (Add ?c (Erf ?d (Mul ?e ?x ?k)) ?one))",
        gelu_erf,
    ),
    Rule::build(
        "recognise-gelu-half-inside",
        "(Mul ?a ?x (Mul ?b (Add ?c (Erf ?d (Mul ?e ?x ?k)) ?one) ?half))",
        gelu_erf,
    ),
    // x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))/2
    Rule::build(
        "recognise-gelu-tanh-half-first",
        "(Mul ?a (Mul ?b ?x ?half) (Add ?c (Tanh ?d (Mul ?e (Add ?f ?x (Mul ?g (Pow ?h ?x ?three) ?k2)) ?k)) ?one))",
        gelu_tanh,
    ),
    Rule::build(
        "recognise-gelu-tanh-half-inside",
        "(Mul ?a ?x (Mul ?b (Add ?c (Tanh ?d (Mul ?e (Add ?f ?x (Mul ?g (Pow ?h ?x ?three) ?k2)) ?k)) ?one) ?half))",
        gelu_tanh,
    ),
    Rule::build(
        "recognise-gelu-tanh-half-last",
        "(Mul ?a (Mul ?b ?x (Add ?c (Tanh ?d (Mul ?e (Add ?f ?x (Mul ?g (Pow ?h ?x ?three) ?k2)) ?k)) ?one)) ?half)",
        gelu_tanh,
    ),
    // √(2/π)·x·(1 + 0.044715·x²) is the same argument, multiplied out.
    Rule::build(
        "recognise-gelu-tanh-by-square",
        "(Mul ?a (Mul ?b ?x ?half) (Add ?c (Tanh ?d (Mul ?e (Mul ?f ?x ?k) (Add ?g (Mul ?h (Mul ?i ?x ?k2) ?x) ?one))) ?one))",
        gelu_tanh_product,
    ),
    // As JAX writes it, the cube as x·(x·(x·0.044715)).
    Rule::build(
        "recognise-gelu-tanh-by-products",
        "(Mul ?a ?x (Mul ?b (Add ?c (Tanh ?d (Mul ?e (Add ?f ?x (Mul ?g ?x (Mul ?h ?x (Mul ?i ?x ?k2)))) ?k)) ?one) ?half))",
        gelu_tanh_product,
    ),
    Rule::build("cube-to-power", "(Mul ?a (Mul ?b ?x ?x) ?x)", |cx| {
        let x = cx.id("?x")?;
        if cx.constant(x) || !matches!(cx.dtype(x)?, DType::F32 | DType::F16 | DType::F64) {
            return None;
        }
        let three = cx.tensor(Tensor::from_f32s(cx.dtype(x)?, &[], vec![3.0]).ok()?);
        cx.op("Pow", Attrs::new(), &[x, three])
    }),
    // e^(x − max)/Σe^(x − max)
    Rule::build(
        "recognise-softmax",
        "(Div ?a (Exp ?b (Sub ?c ?x (ReduceMax ?m ?x ?axes))) (ReduceSum ?r (Exp ?b (Sub ?c ?x (ReduceMax ?m ?x ?axes))) ?axes))",
        softmax,
    ),
    Rule::build("one-over-to-reciprocal", "(Div ?a ?one ?x)", |cx| {
        let x = cx.id("?x")?;
        if cx.scalar(cx.id("?one")?)? != 1.0 || cx.constant(x) {
            return None;
        }
        same_type(cx, x)?;
        cx.op("Reciprocal", Attrs::new(), &[x])
    }),
    // min(max(x + 3, 0), 6)/6
    Rule::build(
        "recognise-hard-sigmoid",
        "(Mul ?a (Clip ?b (Add ?c ?x ?three) ?lo ?hi) ?sixth)",
        hard_sigmoid,
    ),
    Rule::build("recognise-hard-swish", "(Mul ?a ?x (HardSigmoid ?b ?x))", hard_swish),
    Rule::build(
        "recognise-hard-swish-divided-last",
        "(Mul ?a (Mul ?m ?x (Clip ?b (Add ?c ?x ?three) ?lo ?hi)) ?sixth)",
        hard_swish_parts,
    ),
];

/// The constant is within float rounding of `want`.
fn close(cx: &Cx, var: &str, want: f64) -> Option<()> {
    let got = cx.scalar(cx.id(var)?)?;
    if (got - want).abs() <= 2e-4 * want.abs() { Some(()) } else { None }
}

/// The class of the same type as the match, so that a scalar constant of higher rank cannot have changed it.
fn same_type(cx: &Cx, x: Id) -> Option<()> {
    if cx.ty(x)? == cx.ty(cx.class())? && cx.dtype(x)?.is_float() { Some(()) } else { None }
}

fn layer_norm(cx: &mut Cx) -> Option<Id> {
    let d = cx.id("?d")?;
    let (_, parts) = cx.find(d, "Sub")?;
    let (x, mean) = (*parts.first()?, *parts.get(1)?);
    let (mean_attrs, mean_inputs) = cx.find(mean, "ReduceMean")?;
    let rank = cx.rank(x)?;
    let reduces_last = |cx: &Cx, attrs: &Attrs, axes: Id| -> Option<bool> {
        let axes = cx.ints(axes)?;
        Some(attrs.int_or("keepdims", 1).ok()? == 1 && (axes == [-1] || axes == [rank as i64 - 1]))
    };
    let variance_attrs = cx.attrs("?r")?;
    let same_input = *mean_inputs.first()? == x;
    if !same_input
        || !reduces_last(cx, &mean_attrs, *mean_inputs.get(1)?)?
        || !reduces_last(cx, &variance_attrs, cx.id("?axes")?)?
    {
        return None;
    }
    let (eps, dtype) = (cx.scalar(cx.id("?eps")?)?, cx.dtype(x)?);
    let n = cx.ty(x)?.shape()?.last()?.known()?;
    if !matches!(dtype, DType::F32 | DType::F16 | DType::F64) {
        return None;
    }
    let ones = cx.tensor(Tensor::from_f32s(dtype, &[n], vec![1.0; n]).ok()?);
    cx.op("LayerNormalization", Attrs::new().with("axis", -1).with("epsilon", eps as f32), &[x, ones])
}

fn layer_norm_of_batch_norm(cx: &mut Cx) -> Option<Id> {
    let (x, a) = (cx.id("?x")?, cx.attrs("?a")?);
    let (shape, dtype) = (cx.shape(x)?, cx.dtype(x)?);
    let [1, rows, rest @ ..] = &shape[..] else { return None };
    let size = rest.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
    let rank = shape.len() as i64;
    let mut axes: Vec<i64> =
        cx.ints(cx.id("?axes")?)?.into_iter().map(|d| if d < 0 { d + rank } else { d }).collect();
    axes.sort_unstable();
    let keeps = |cx: &Cx, attrs: &str| cx.attrs(attrs)?.int_or("keepdims", 1).ok();
    let all = |cx: &Cx, var: &str, value: f64| Some(every(&cx.value(cx.id(var)?)?, |v| v == value));
    let statistics = axes.into_iter().eq([0].into_iter().chain(2..rank))
        && (keeps(cx, "?r")?, keeps(cx, "?k")?) == (1, 0)
        && cx.scalar(cx.id("?n")?)? == size as f64;
    let plain = a.int_or("training_mode", 0).ok()? == 0 && all(cx, "?s", 1.0)? && all(cx, "?b", 0.0)?;
    if !statistics
        || !plain
        || size == 0
        || *rows == 0
        || !matches!(dtype, DType::F32 | DType::F16 | DType::F64)
    {
        return None;
    }
    let epsilon = a.float_or("epsilon", 1e-5).ok()?;
    let ones = cx.tensor(Tensor::from_f32s(dtype, &[size], vec![1.0; size]).ok()?);
    let (flat, whole) = (cx.int_vector(&[*rows as i64, size as i64]), shape.iter().map(|&d| d as i64));
    let whole = cx.int_vector(&whole.collect::<Vec<_>>());
    let x = cx.op("Reshape", Attrs::new(), &[x, flat])?;
    let y =
        cx.op("LayerNormalization", Attrs::new().with("axis", -1).with("epsilon", epsilon), &[x, ones])?;
    cx.op("Reshape", Attrs::new(), &[y, whole])
}

/// Parts of a matched LayerNormalization over the last axis, and a constant vector that applies to it.
fn layer_norm_parts(cx: &Cx) -> Option<(Attrs, Id, Id, Id, Id)> {
    let (a, x, s, b, c) = (cx.attrs("?a")?, cx.id("?x")?, cx.id("?s")?, cx.id("?b")?, cx.id("?c")?);
    let rank = cx.rank(x)? as i64;
    let axis = a.int_or("axis", -1).ok()?;
    let vector = cx.constant(c) && cx.shape(c)? == cx.shape(s)? && cx.rank(s)? == 1;
    if !(axis == -1 || axis == rank - 1) || !vector || !cx.constant(s) {
        return None;
    }
    Some((a, x, s, b, c))
}

fn layer_norm_scale(cx: &mut Cx) -> Option<Id> {
    let (a, x, s, b, c) = layer_norm_parts(cx)?;
    let s = cx.op("Mul", Attrs::new(), &[s, c])?;
    let b = if cx.absent(b) { b } else { cx.op("Mul", Attrs::new(), &[b, c])? };
    cx.op("LayerNormalization", a, &[x, s, b])
}

fn layer_norm_shift(cx: &mut Cx) -> Option<Id> {
    let (a, x, s, b, c) = layer_norm_parts(cx)?;
    let b = if cx.absent(b) { c } else { cx.op("Add", Attrs::new(), &[b, c])? };
    cx.op("LayerNormalization", a, &[x, s, b])
}

fn gelu_erf(cx: &mut Cx) -> Option<Id> {
    let x = cx.id("?x")?;
    close(cx, "?half", 0.5)?;
    close(cx, "?one", 1.0)?;
    close(cx, "?k", std::f64::consts::FRAC_1_SQRT_2)?;
    same_type(cx, x)?;
    cx.op("Gelu", Attrs::new(), &[x])
}

fn gelu_tanh(cx: &mut Cx) -> Option<Id> {
    let x = cx.id("?x")?;
    close(cx, "?half", 0.5)?;
    close(cx, "?one", 1.0)?;
    close(cx, "?three", 3.0)?;
    close(cx, "?k", (2.0 / std::f64::consts::PI).sqrt())?;
    close(cx, "?k2", 0.044715)?;
    same_type(cx, x)?;
    cx.op("Gelu", Attrs::new().with("approximate", "tanh"), &[x])
}

fn gelu_tanh_product(cx: &mut Cx) -> Option<Id> {
    let x = cx.id("?x")?;
    close(cx, "?half", 0.5)?;
    close(cx, "?one", 1.0)?;
    close(cx, "?k", (2.0 / std::f64::consts::PI).sqrt())?;
    close(cx, "?k2", 0.044715)?;
    same_type(cx, x)?;
    cx.op("Gelu", Attrs::new().with("approximate", "tanh"), &[x])
}

fn softmax(cx: &mut Cx) -> Option<Id> {
    let (x, axes) = (cx.id("?x")?, cx.ints(cx.id("?axes")?)?);
    same_type(cx, x)?;
    let keeps =
        ["?m", "?r"].iter().all(|r| cx.attrs(r).and_then(|a| a.int_or("keepdims", 1).ok()) == Some(1));
    let [axis] = axes[..] else { return None };
    if keeps { cx.op("Softmax", Attrs::new().with("axis", axis), &[x]) } else { None }
}

fn relu6_of_x_plus_3(cx: &Cx) -> Option<Id> {
    let x = cx.id("?x")?;
    close(cx, "?three", 3.0)?;
    close(cx, "?hi", 6.0)?;
    close(cx, "?sixth", 1.0 / 6.0)?;
    if cx.scalar(cx.id("?lo")?)? != 0.0 {
        return None;
    }
    same_type(cx, x)?;
    Some(x)
}

fn hard_sigmoid(cx: &mut Cx) -> Option<Id> {
    let x = relu6_of_x_plus_3(cx)?;
    cx.op("HardSigmoid", Attrs::new().with("alpha", 1.0f32 / 6.0).with("beta", 0.5f32), &[x])
}

fn hard_swish(cx: &mut Cx) -> Option<Id> {
    let (x, a) = (cx.id("?x")?, cx.attrs("?b")?);
    let (alpha, beta) = (a.float_or("alpha", 0.2).ok()?, a.float_or("beta", 0.5).ok()?);
    if (alpha - 1.0 / 6.0).abs() > 1e-5 || (beta - 0.5).abs() > 1e-6 {
        return None;
    }
    cx.op("HardSwish", Attrs::new(), &[x])
}

fn hard_swish_parts(cx: &mut Cx) -> Option<Id> {
    let x = relu6_of_x_plus_3(cx)?;
    cx.op("HardSwish", Attrs::new(), &[x])
}
