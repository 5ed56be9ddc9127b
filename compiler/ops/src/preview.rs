//! Preview domains: attention with graphs in its middle, and the steps of three optimizers, as functions of standard
//! operators.

use crate::function::{Body, Function, Outputs, plain};
use ir::DType::{self, BF16, F16, F32, F64, I64};
use ir::{Arity, AttrFormal, AttrKind, Error, Formal, Operator, Result, Signature, Types, ValueId};

const TRAINING: &str = "ai.onnx.preview.training";

pub static OPERATORS: &[&dyn Operator] = &[
    &Function {
        domain: "ai.onnx.preview",
        name: "FlexAttention",
        signature: &FLEX_ATTENTION,
        build: flex_attention,
    },
    &Function { domain: TRAINING, name: "Adagrad", signature: &ADAGRAD, build: adagrad },
    &Function { domain: TRAINING, name: "Adam", signature: &ADAM, build: adam },
    &Function { domain: TRAINING, name: "Momentum", signature: &MOMENTUM, build: momentum },
];

const FLOATS: Types = Types::Of(&[F32, F16, F64, BF16]);
const TRAINED: Types = Types::Of(&[F32, F64]);

const fn f(name: &'static str, type_name: &'static str, types: Types, arity: Arity) -> Formal {
    Formal { name, type_name, types, arity }
}
const fn a(name: &'static str, kind: AttrKind, required: bool) -> AttrFormal {
    AttrFormal { name, kind, required }
}

static FLEX_ATTENTION: Signature = Signature {
    since: &[1],
    inputs: &[
        f("Q", "T1", FLOATS, Arity::Required),
        f("K", "T1", FLOATS, Arity::Required),
        f("V", "T1", FLOATS, Arity::Required),
    ],
    outputs: &[f("Y", "T1", FLOATS, Arity::Required)],
    attrs: &[
        a("prob_mod", AttrKind::Graph, false),
        a("scale", AttrKind::Float, false),
        a("score_mod", AttrKind::Graph, false),
        a("softmax_precision", AttrKind::Int, false),
    ],
};

/// Learning rate, number of updates, then for each tensor: itself, its gradient and its states, kind by kind.
const TRAINING_INPUTS: &[Formal] = &[
    f("R", "T1", TRAINED, Arity::Required),
    f("T", "T2", Types::Of(&[I64]), Arity::Required),
    f("inputs", "T3", TRAINED, Arity::Variadic),
];
const TRAINING_OUTPUTS: &[Formal] = &[f("outputs", "T3", TRAINED, Arity::Variadic)];

static ADAGRAD: Signature = Signature {
    since: &[1],
    inputs: TRAINING_INPUTS,
    outputs: TRAINING_OUTPUTS,
    attrs: &[
        a("decay_factor", AttrKind::Float, false),
        a("epsilon", AttrKind::Float, false),
        a("norm_coefficient", AttrKind::Float, false),
    ],
};
static ADAM: Signature = Signature {
    since: &[1],
    inputs: TRAINING_INPUTS,
    outputs: TRAINING_OUTPUTS,
    attrs: &[
        a("alpha", AttrKind::Float, false),
        a("beta", AttrKind::Float, false),
        a("epsilon", AttrKind::Float, false),
        a("norm_coefficient", AttrKind::Float, false),
        a("norm_coefficient_post", AttrKind::Float, false),
    ],
};
static MOMENTUM: Signature = Signature {
    since: &[1],
    inputs: TRAINING_INPUTS,
    outputs: TRAINING_OUTPUTS,
    attrs: &[
        a("alpha", AttrKind::Float, true),
        a("beta", AttrKind::Float, true),
        a("mode", AttrKind::Str, true),
        a("norm_coefficient", AttrKind::Float, true),
    ],
};

/// Heads of keys or values, each repeated for its group of queries.
fn repeated(b: &mut Body, x: ValueId, group: ValueId, heads: ValueId) -> Result<ValueId> {
    let wide = b.unsqueeze(x, &[2])?;
    let one = b.ints(&[1]);
    let shape = b.concat(0, &[one, one, group, one, one])?;
    let wide = b.op("Expand", &[wide, shape])?;
    let (batch, rest) = (b.ints(&[0]), b.op_with("Shape", plain().with("start", 2), &[x])?);
    let shape = b.concat(0, &[batch, heads, rest])?;
    b.op("Reshape", &[wide, shape])
}

fn flex_attention(b: &mut Body) -> Result<Outputs> {
    let (q, mut k, mut v) = (b.need(0)?, b.need(1)?, b.need(2)?);
    let dtype = b.dtype(q)?;
    let inner = match b.attrs.int("softmax_precision")? {
        Some(n) => i32::try_from(n).ok().and_then(DType::from_onnx).filter(|d| d.is_float()),
        None => Some(if dtype == F64 { F64 } else { F32 }),
    };
    let inner = inner.ok_or_else(|| Error::model("softmax_precision is not a float type"))?;
    if b.size(q, 1) != b.size(k, 1) || b.size(q, 1).is_none() {
        let (heads, own) = (b.dim(q, 1)?, b.dim(k, 1)?);
        let group = b.op("Div", &[heads, own])?;
        k = repeated(b, k, group, heads)?;
        v = repeated(b, v, group, heads)?;
    }
    let root = match b.attrs.float("scale")? {
        Some(s) => b.number(q, s.sqrt())?,
        None => {
            let width = b.dim(q, 3)?;
            let width = b.squeeze(width, &[0])?;
            let width = b.cast(width, F32)?;
            let (once, one) = (b.op("Sqrt", &[width])?, b.number(width, 1.0)?);
            let scale = b.op("Div", &[one, once])?;
            let root = b.op("Sqrt", &[scale])?;
            b.cast(root, dtype)?
        }
    };
    let q = b.op("Mul", &[q, root])?;
    let k = b.op("Mul", &[k, root])?;
    let kt = b.transpose(k, &[0, 1, 3, 2])?;
    let scores = b.op("MatMul", &[q, kt])?;
    let scores = b.cast(scores, inner)?;
    let scores = b.modified("score_mod", scores)?;
    let p = b.op_with("Softmax", plain().with("axis", -1), &[scores])?;
    let p = b.modified("prob_mod", p)?;
    let v = b.cast(v, inner)?;
    let y = b.op("MatMul", &[p, v])?;
    Ok(vec![Some(b.cast(y, dtype)?)])
}

/// What each tensor brings, in the order of the inputs: `kinds` values, the first a tensor, the second its gradient, to
/// which the derivative of its norm is added.
fn tensors(b: &mut Body, kinds: usize) -> Result<Vec<Vec<ValueId>>> {
    let n = b.inputs.len().saturating_sub(2) / kinds;
    if n == 0 || b.inputs.len() != 2 + n * kinds {
        return Err(Error::model(format!(
            "takes two inputs and {kinds} for each tensor, got {}",
            b.inputs.len()
        )));
    }
    let norm = b.attrs.float_or("norm_coefficient", 0.0)?;
    let mut all = Vec::new();
    for i in 0..n {
        let mut own = (0..kinds).map(|k| b.need(2 + k * n + i)).collect::<Result<Vec<_>>>()?;
        if norm != 0.0 {
            let pull = by(b, own[0], norm)?;
            own[1] = b.op("Add", &[pull, own[1]])?;
        }
        all.push(own);
    }
    Ok(all)
}

/// `x · factor`
fn by(b: &mut Body, x: ValueId, factor: f32) -> Result<ValueId> {
    let factor = b.number(x, factor)?;
    b.op("Mul", &[x, factor])
}

/// Results of each tensor as outputs, kind by kind.
fn by_kind(results: Vec<Vec<ValueId>>) -> Outputs {
    let kinds = results.first().map_or(0, Vec::len);
    (0..kinds).flat_map(|k| results.iter().map(move |r| r.get(k).copied())).collect()
}

fn adagrad(b: &mut Body) -> Result<Outputs> {
    let (rate, step) = (b.need(0)?, b.need(1)?);
    let decay = b.attrs.float_or("decay_factor", 0.0)?;
    let epsilon = b.attrs.float_or("epsilon", 1e-6)?;
    let dtype = b.dtype(rate)?;
    let step = b.cast(step, dtype)?;
    let slow = by(b, step, decay)?;
    let one = b.number(slow, 1.0)?;
    let slow = b.op("Add", &[slow, one])?;
    let rate = b.op("Div", &[rate, slow])?;
    let mut done = Vec::new();
    for own in tensors(b, 3)? {
        let [x, g, h] = own[..] else { continue };
        let square = b.op("Mul", &[g, g])?;
        let h = b.op("Add", &[h, square])?;
        let root = b.op("Sqrt", &[h])?;
        let small = b.number(root, epsilon)?;
        let root = b.op("Add", &[root, small])?;
        let rate = {
            let d = b.dtype(x)?;
            b.cast(rate, d)?
        };
        let moved = b.op("Mul", &[rate, g])?;
        let moved = b.op("Div", &[moved, root])?;
        done.push(vec![b.op("Sub", &[x, moved])?, h]);
    }
    Ok(by_kind(done))
}

/// 1 − base^step
fn corrected(b: &mut Body, base: f32, step: ValueId) -> Result<ValueId> {
    let (base, one) = (b.number(step, base)?, b.number(step, 1.0)?);
    let p = b.op("Pow", &[base, step])?;
    b.op("Sub", &[one, p])
}

fn adam(b: &mut Body) -> Result<Outputs> {
    let (rate, step) = (b.need(0)?, b.need(1)?);
    let (alpha, beta) = (b.attrs.float_or("alpha", 0.9)?, b.attrs.float_or("beta", 0.999)?);
    let epsilon = b.attrs.float_or("epsilon", 1e-6)?;
    let post = b.attrs.float_or("norm_coefficient_post", 0.0)?;
    let dtype = b.dtype(rate)?;
    let zero = b.constant(ir::Tensor::scalar(0i64));
    let later = b.op("Greater", &[step, zero])?;
    let step = b.cast(step, dtype)?;
    let (second, first) = (corrected(b, beta, step)?, corrected(b, alpha, step)?);
    let root = b.op("Sqrt", &[second])?;
    let adjusted = b.op("Mul", &[rate, root])?;
    let adjusted = b.op("Div", &[adjusted, first])?;
    let rate = b.op("Where", &[later, adjusted, rate])?;
    let mut done = Vec::new();
    for own in tensors(b, 4)? {
        let [x, g, v, h] = own[..] else { continue };
        let (kept, new) = (by(b, v, alpha)?, by(b, g, 1.0 - alpha)?);
        let v = b.op("Add", &[kept, new])?;
        let square = b.op("Mul", &[g, g])?;
        let (kept, new) = (by(b, h, beta)?, by(b, square, 1.0 - beta)?);
        let h = b.op("Add", &[kept, new])?;
        let root = b.op("Sqrt", &[h])?;
        let small = b.number(root, epsilon)?;
        let root = b.op("Add", &[root, small])?;
        let moved = b.op("Div", &[v, root])?;
        let rate = {
            let d = b.dtype(x)?;
            b.cast(rate, d)?
        };
        let moved = b.op("Mul", &[rate, moved])?;
        let mut x = b.op("Sub", &[x, moved])?;
        if post != 0.0 {
            x = by(b, x, 1.0 - post)?;
        }
        done.push(vec![x, v, h]);
    }
    Ok(by_kind(done))
}

fn momentum(b: &mut Body) -> Result<Outputs> {
    let (rate, step) = (b.need(0)?, b.need(1)?);
    let alpha = b.attrs.float_or("alpha", 0.0)?;
    let beta = b.attrs.float_or("beta", 0.0)?;
    let nesterov = match b.attrs.str_or("mode", "standard")? {
        "standard" => false,
        "nesterov" => true,
        m => return Err(Error::model(format!("mode '{}' is not known", m.escape_debug()))),
    };
    let dtype = b.dtype(rate)?;
    let zero = b.constant(ir::Tensor::scalar(0i64));
    let later = b.op("Greater", &[step, zero])?;
    let (beta, one) = (b.number(rate, beta)?, b.number(rate, 1.0)?);
    let weight = b.op("Where", &[later, beta, one])?;
    let mut done = Vec::new();
    for own in tensors(b, 3)? {
        let [x, g, v] = own[..] else { continue };
        let d = b.dtype(x)?;
        let (rate, weight) = if d == dtype { (rate, weight) } else { (b.cast(rate, d)?, b.cast(weight, d)?) };
        let kept = by(b, v, alpha)?;
        let new = b.op("Mul", &[weight, g])?;
        let v = b.op("Add", &[kept, new])?;
        let way = if nesterov {
            let ahead = by(b, v, alpha)?;
            b.op("Add", &[g, ahead])?
        } else {
            v
        };
        let moved = b.op("Mul", &[rate, way])?;
        done.push(vec![b.op("Sub", &[x, moved])?, v]);
    }
    Ok(by_kind(done))
}
