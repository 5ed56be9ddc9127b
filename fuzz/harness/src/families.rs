//! table: what the wide generator places, one function a family of operators.

use crate::build::Build;
use crate::generate::Case;
use arbitrary::{Result, Unstructured};
use ir::{Attrs, DType, Tensor, ValueId};

/// Most operators in one case.
const MOST: usize = 8;

const FLOAT_UNARY: &[&str] = &[
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "Ceil",
    "Celu",
    "Cos",
    "Cosh",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Log",
    "Mish",
    "Reciprocal",
    "Round",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Swish",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "IsNaN",
    "IsInf",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "MeanVarianceNormalization",
    "Hardmax",
    "DynamicQuantizeLinear",
];
const ANY_UNARY: &[&str] = &[
    "Abs",
    "Neg",
    "Relu",
    "Sign",
    "Identity",
    "Not",
    "BitwiseNot",
    "Flatten",
    "Transpose",
    "Shape",
    "Size",
    "NonZero",
];
const BINARY: &[&str] = &[
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Max",
    "Min",
    "Mod",
    "Pow",
    "PRelu",
    "Mean",
    "Sum",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "And",
    "Or",
    "Xor",
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
];
/// Exponents that compilers take for something simpler, and what lies between them.
const EXPONENTS: &[f64] = &[1.0, 2.0, 3.0, 0.0, 0.5, 1.5, 2.5, -0.5, -1.0, -2.0];
const REDUCE: &[&str] = &[
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
];
const CASTS: &[DType] = &[
    DType::F32,
    DType::F32,
    DType::F16,
    DType::BF16,
    DType::F64,
    DType::I8,
    DType::U8,
    DType::I16,
    DType::U16,
    DType::I32,
    DType::I64,
    DType::U32,
    DType::U64,
    DType::Bool,
];
const DATA: &[DType] = &[
    DType::F32,
    DType::F32,
    DType::F32,
    DType::I64,
    DType::I32,
    DType::U8,
    DType::I8,
    DType::Bool,
    DType::F64,
    DType::F16,
];
const EINSUM: &[(&str, &[usize])] = &[
    ("ij,jk->ik", &[2, 2]),
    ("bij,bjk->bik", &[3, 3]),
    ("ij->ji", &[2]),
    ("ij->", &[2]),
    ("i,j->ij", &[1, 1]),
    ("bij,kj->bik", &[3, 2]),
];

type Family = fn(&mut Build) -> Result<()>;
const FAMILIES: &[Family] = &[
    unary,
    unary,
    binary,
    binary,
    binary,
    reduce,
    conv,
    conv_transpose,
    pool,
    matmul,
    gemm,
    einsum,
    normalise,
    softmax,
    gather,
    scatter,
    slice,
    concat,
    split,
    pad,
    resize,
    cast,
    choose,
    quantize,
    integer_product,
    qlinear,
    top_k,
    cumulative,
    one_hot,
    trilu,
    reshape,
    clip,
    power,
    move_axes,
    shift,
    size_of,
    variadic,
    recurrent,
    attention,
    rotary,
    windowed,
    patches,
    sampled,
    sequences,
    filtered,
    counted,
    parametric,
    spectral,
];

/// A case of any operators and element types.
pub fn wide(u: &mut Unstructured) -> Result<Case> {
    let mut b = Build::new(u);
    let rank = b.below(5)?;
    let (dtype, shape) = (b.one_of(DATA)?, b.shape(rank)?);
    let t = b.tensor(dtype, &shape)?;
    b.input(t);
    for _ in 0..=b.below(MOST)? {
        b.one_of(FAMILIES)?(&mut b)?;
    }
    let produced: Vec<ValueId> =
        b.made.iter().map(|m| m.value).filter(|&v| b.graph.producer(v).is_some()).collect();
    let Some(&last) = produced.last() else { return Err(arbitrary::Error::IncorrectFormat) };
    let middle = produced[b.below(produced.len())?];
    b.graph.add_output("y0", last);
    b.graph.add_output("y1", middle);
    Ok(Case { graph: b.graph, feeds: b.feeds })
}

/// Places operators of one family, whichever.
pub fn any_family(b: &mut Build) -> Result<()> {
    b.one_of(FAMILIES)?(b)
}

fn any(b: &mut Build) -> Result<ValueId> {
    if b.u.ratio(1, 5)? {
        let rank = b.below(5)?;
        let (d, s) = (b.one_of(DATA)?, b.shape(rank)?);
        return b.fresh(d, &s);
    }
    Ok(match b.find(|_| true)? {
        Some(v) => v,
        None => b.need(DType::F32, 2)?,
    })
}

/// An axis of a value, at times counted from the end; 0 for a scalar.
fn axis(b: &mut Build, v: ValueId) -> Result<i64> {
    let rank = b.dims(v).len();
    let a = b.below(rank)? as i64;
    Ok(if b.flip()? { a } else { a - rank as i64 })
}

fn unary(b: &mut Build) -> Result<()> {
    if b.u.ratio(2, 3)? {
        let v = b.float(0)?;
        let op = b.one_of(FLOAT_UNARY)?;
        let outputs = if op == "DynamicQuantizeLinear" { 3 } else { 1 };
        b.place(op, Attrs::new(), &[Some(v)], outputs);
    } else {
        let v = any(b)?;
        let op = b.one_of(ANY_UNARY)?;
        b.plain(op, Attrs::new(), &[v]);
    }
    Ok(())
}

fn binary(b: &mut Build) -> Result<()> {
    let v = any(b)?;
    let d = b.dtype(v);
    let op = b.one_of(BINARY)?;
    let other = b.peer(d, &b.dims(v))?;
    let attrs = if op == "Mod" && d.is_float() { Attrs::new().with("fmod", 1) } else { Attrs::new() };
    let swap = b.flip()?;
    b.plain(op, attrs, &if swap { [other, v] } else { [v, other] });
    Ok(())
}

fn choose(b: &mut Build) -> Result<()> {
    let v = any(b)?;
    let c = b.peer(DType::Bool, &b.dims(v))?;
    let other = b.peer(b.dtype(v), &b.dims(v))?;
    let swap = b.flip()?;
    b.plain("Where", Attrs::new(), &if swap { [c, other, v] } else { [c, v, other] });
    Ok(())
}

fn power(b: &mut Build) -> Result<()> {
    let v = any(b)?;
    let d = b.dtype(v);
    let exponent = *b.u.choose(if d.is_float() { EXPONENTS } else { &EXPONENTS[..3] })?;
    let c = b.scalar(d, exponent)?;
    b.plain("Pow", Attrs::new(), &[v, c]);
    Ok(())
}

fn clip(b: &mut Build) -> Result<()> {
    let v = any(b)?;
    let d = b.dtype(v);
    let low = if b.flip()? { Some(b.scalar(d, 0.0)?) } else { None };
    let high = if b.flip()? { Some(b.scalar(d, 6.0)?) } else { None };
    b.place("Clip", Attrs::new(), &[Some(v), low, high], 1);
    Ok(())
}

fn reduce(b: &mut Build) -> Result<()> {
    let v = any(b)?;
    let keep = i64::from(b.flip()?);
    if b.u.ratio(1, 5)? {
        let a = axis(b, v)?;
        let op = b.one_of(&["ArgMax", "ArgMin"])?;
        let last = i64::from(b.flip()?);
        b.plain(
            op,
            Attrs::new().with("axis", a).with("keepdims", keep).with("select_last_index", last),
            &[v],
        );
        return Ok(());
    }
    let mut axes = Vec::new();
    for i in 0..b.dims(v).len() {
        if b.flip()? {
            axes.push(i as i64);
        }
    }
    let noop = i64::from(b.flip()?);
    let axes = b.ints(axes);
    let op = b.one_of(REDUCE)?;
    b.plain(op, Attrs::new().with("keepdims", keep).with("noop_with_empty_axes", noop), &[v, axes]);
    Ok(())
}

/// Strides, dilations and pads or automatic padding of a window over `spatial`.
fn window(b: &mut Build, kernel: &[usize], dilations: bool) -> Result<Attrs> {
    let n = kernel.len();
    let mut list = |low: usize, high: usize, n: usize| -> Result<Vec<i64>> {
        (0..n).map(|_| Ok(b.u.int_in_range(low..=high)? as i64)).collect()
    };
    let strides = list(1, 3, n)?;
    let dilation = list(1, 2, n)?;
    let least = kernel.iter().copied().min().unwrap_or(1);
    let pads = list(0, least - 1, 2 * n)?;
    let mut attrs = Attrs::new().with("strides", strides);
    if dilations && b.flip()? {
        attrs.set("dilations", dilation);
    }
    match b.below(5)? {
        0 => attrs.set("auto_pad", "SAME_UPPER"),
        1 => attrs.set("auto_pad", "SAME_LOWER"),
        _ => attrs.set("pads", pads),
    }
    Ok(attrs)
}

fn kernel(b: &mut Build, n: usize) -> Result<Vec<usize>> {
    (0..n).map(|_| b.u.int_in_range(1..=3usize)).collect()
}

/// An image-like value of 1 to 3 spatial dims, and its shape.
fn image(b: &mut Build) -> Result<(ValueId, Vec<usize>)> {
    let spatial = b.u.int_in_range(1..=3usize)?;
    let v = b.need(DType::F32, spatial + 2)?;
    Ok((v, b.dims(v)))
}

fn groups(b: &mut Build, channels: usize) -> Result<usize> {
    let all: Vec<usize> = (1..=channels).filter(|&g| channels.is_multiple_of(g)).collect();
    if all.is_empty() { Ok(1) } else { b.one_of(&all) }
}

fn conv(b: &mut Build) -> Result<()> {
    let (v, s) = image(b)?;
    let g = groups(b, s[1])?;
    let k = kernel(b, s.len() - 2)?;
    let cout = g * b.one_of(&[1, 1, 2, 3, 5, 8])?;
    let w = b.finite(&[&[cout, s[1] / g], &k[..]].concat())?;
    let bias = if b.flip()? { Some(b.fresh(DType::F32, &[cout])?) } else { None };
    let attrs = window(b, &k, true)?.with("group", g as i64);
    b.place("Conv", attrs, &[Some(v), Some(w), bias], 1);
    Ok(())
}

fn conv_transpose(b: &mut Build) -> Result<()> {
    let (v, s) = image(b)?;
    let g = groups(b, s[1])?;
    let k = kernel(b, s.len() - 2)?;
    let out = b.one_of(&[1, 2, 3, 5])?;
    let w = b.finite(&[&[s[1], out], &k[..]].concat())?;
    let bias = if b.flip()? { Some(b.fresh(DType::F32, &[out * g])?) } else { None };
    let attrs = window(b, &k, true)?.with("group", g as i64);
    b.place("ConvTranspose", attrs, &[Some(v), Some(w), bias], 1);
    Ok(())
}

fn pool(b: &mut Build) -> Result<()> {
    let (v, s) = image(b)?;
    let k = kernel(b, s.len() - 2)?;
    let op = b.one_of(&["MaxPool", "AveragePool", "LpPool"])?;
    let mut attrs = window(b, &k, true)?.with("ceil_mode", i64::from(b.flip()?));
    attrs.set("kernel_shape", k.iter().map(|&k| k as i64).collect::<Vec<i64>>());
    if op == "AveragePool" {
        attrs.set("count_include_pad", i64::from(b.flip()?));
    }
    b.plain(op, attrs, &[v]);
    Ok(())
}

fn matmul(b: &mut Build) -> Result<()> {
    let v = b.float(1)?;
    let s = b.dims(v);
    let (k, n) = (s[s.len() - 1], b.size()?);
    let shape = match b.below(3)? {
        0 => vec![k],
        1 if s.len() > 2 => [&s[..s.len() - 2], &[k, n]].concat(),
        _ => vec![k, n],
    };
    let w = b.fresh(DType::F32, &shape)?;
    b.plain("MatMul", Attrs::new(), &[v, w]);
    Ok(())
}

fn gemm(b: &mut Build) -> Result<()> {
    let v = b.need(DType::F32, 2)?;
    let (ta, tb) = (b.flip()?, b.flip()?);
    let s = b.dims(v);
    let (m, k) = if ta { (s[1], s[0]) } else { (s[0], s[1]) };
    let n = b.size()?;
    let w = b.fresh(DType::F32, &if tb { [n, k] } else { [k, n] })?;
    let c = if b.flip()? { Some(b.peer(DType::F32, &[m, n])?) } else { None };
    let (alpha, beta) = (b.one_of(&[1.0f32, 0.5, -2.0])?, b.one_of(&[1.0f32, 0.0, 3.0])?);
    let attrs = Attrs::new()
        .with("transA", i64::from(ta))
        .with("transB", i64::from(tb))
        .with("alpha", alpha)
        .with("beta", beta);
    b.place("Gemm", attrs, &[Some(v), Some(w), c], 1);
    Ok(())
}

fn einsum(b: &mut Build) -> Result<()> {
    let (equation, ranks) = b.one_of(EINSUM)?;
    let v = b.need(DType::F32, ranks[0])?;
    let s = b.dims(v);
    let mut inputs = vec![v];
    if let Some(&rank) = ranks.get(1) {
        let n = b.size()?;
        let shape = match (equation, rank) {
            ("bij,kj->bik", _) => vec![n, s[2]],
            (_, 3) => vec![s[0], s[2], n],
            (_, 2) => vec![s[1], n],
            _ => vec![n],
        };
        inputs.push(b.fresh(DType::F32, &shape)?);
    }
    b.plain("Einsum", Attrs::new().with("equation", equation), &inputs);
    Ok(())
}

fn normalise(b: &mut Build) -> Result<()> {
    let v = b.float(2)?;
    let s = b.dims(v);
    let c = s[1];
    let op = b.one_of(&[
        "BatchNormalization",
        "BatchNormalization",
        "LayerNormalization",
        "InstanceNormalization",
        "GroupNormalization",
        "RMSNormalization",
        "LRN",
        "LpNormalization",
    ])?;
    let (attrs, n, count) = match op {
        "BatchNormalization" => (Attrs::new(), vec![c], 4),
        "InstanceNormalization" => (Attrs::new(), vec![c], 2),
        "GroupNormalization" => (Attrs::new().with("num_groups", groups(b, c)? as i64), vec![c], 2),
        "LRN" => (Attrs::new().with("size", 3), vec![], 0),
        "LpNormalization" => {
            (Attrs::new().with("axis", axis(b, v)?).with("p", b.one_of(&[1i64, 2])?), vec![], 0)
        }
        _ => {
            let a = b.below(s.len())?;
            let both = if op == "LayerNormalization" { b.below(2)? } else { 0 };
            (Attrs::new().with("axis", a as i64), s[a..].to_vec(), 1 + both)
        }
    };
    let mut inputs = vec![v];
    // Parameters of trained models are constants, all of them.
    let trained = b.u.ratio(3, 4)?;
    for i in 0..count {
        let p = if trained {
            let t = b.tensor(DType::F32, &n)?;
            b.constant(t)
        } else {
            b.fresh(DType::F32, &n)?
        };
        if i == 3 {
            // A variance is not negative.
            let t = b.known(p).and_then(|t| t.to_f32s().ok()).unwrap_or_default();
            let t = Tensor::new(&n, t.into_iter().map(|x| x.abs() + 0.1).collect());
            let Ok(t) = t else { return Ok(()) };
            inputs.push(b.constant(t));
        } else {
            inputs.push(p);
        }
    }
    b.plain(op, attrs, &inputs);
    Ok(())
}

fn softmax(b: &mut Build) -> Result<()> {
    let v = b.float(1)?;
    let a = axis(b, v)?;
    let op = b.one_of(&["Softmax", "LogSoftmax", "Hardmax"])?;
    b.plain(op, Attrs::new().with("axis", a), &[v]);
    Ok(())
}

/// Indices into a dimension of `n`, some counted from the end.
fn indices(b: &mut Build, n: usize, shape: &[usize]) -> Result<Option<ValueId>> {
    let Some(n) = i64::try_from(n).ok().filter(|&n| n > 0) else { return Ok(None) };
    let count = shape.iter().product::<usize>().min(400);
    let data: Vec<i64> = (0..count).map(|_| b.u.int_in_range(-n..=n - 1)).collect::<Result<_>>()?;
    Ok(Tensor::new(shape, data).ok().map(|t| b.graph.add_initializer("at", t)))
}

fn gather(b: &mut Build) -> Result<()> {
    let v = any(b)?;
    let s = b.dims(v);
    if s.is_empty() {
        return Ok(());
    }
    let a = b.below(s.len())?;
    let op = b.one_of(&["Gather", "GatherElements", "GatherND"])?;
    let count = b.one_of(&[1, 2, 3, 7])?;
    let shape = match op {
        "Gather" => b.one_of::<&[usize]>(&[&[], &[3], &[2, 2], &[0]])?.to_vec(),
        "GatherElements" => s.iter().enumerate().map(|(i, &n)| if i == a { count } else { n }).collect(),
        _ => vec![count, 1],
    };
    let n = if op == "GatherND" { s[0] } else { s[a] };
    let Some(at) = indices(b, n, &shape)? else { return Ok(()) };
    let attrs = if op == "GatherND" { Attrs::new() } else { Attrs::new().with("axis", a as i64) };
    b.plain(op, attrs, &[v, at]);
    Ok(())
}

fn scatter(b: &mut Build) -> Result<()> {
    let v = any(b)?;
    let s = b.dims(v);
    if s.is_empty() {
        return Ok(());
    }
    let reduction = b.one_of(&["none", "add", "mul", "max", "min"])?;
    // Without a reduction the last of equal indices is not defined: one index then.
    let count = if reduction == "none" { 1 } else { b.one_of(&[1, 2, 3])? };
    let mut attrs = Attrs::new().with("reduction", reduction);
    let (op, shape, n, updates) = if b.flip()? {
        let a = b.below(s.len())?;
        attrs.set("axis", a as i64);
        let mut shape = s.clone();
        shape[a] = count;
        ("ScatterElements", shape.clone(), s[a], shape)
    } else {
        ("ScatterND", vec![count, 1], s[0], [&[count], &s[1..]].concat())
    };
    let Some(at) = indices(b, n, &shape)? else { return Ok(()) };
    let w = b.fresh(b.dtype(v), &updates)?;
    b.plain(op, attrs, &[v, at, w]);
    Ok(())
}

fn slice(b: &mut Build) -> Result<()> {
    let v = any(b)?;
    let a = axis(b, v)?;
    let (start, end) = (b.u.int_in_range(-9..=9i64)?, b.u.int_in_range(-9..=9i64)?);
    let end = if b.flip()? { i64::MAX } else { end };
    let step = b.one_of(&[1i64, 1, 2, 3, -1, -2])?;
    let end = if step < 0 && b.flip()? { i64::MIN } else { end };
    let inputs = [b.ints(vec![start]), b.ints(vec![end]), b.ints(vec![a]), b.ints(vec![step])];
    b.plain("Slice", Attrs::new(), &[v, inputs[0], inputs[1], inputs[2], inputs[3]]);
    Ok(())
}

fn concat(b: &mut Build) -> Result<()> {
    let v = any(b)?;
    let a = axis(b, v)?;
    let mut s = b.dims(v);
    if s.is_empty() {
        return Ok(());
    }
    let at = a.rem_euclid(s.len() as i64) as usize;
    s[at] = b.size()?;
    let w = b.fresh(b.dtype(v), &s)?;
    let inputs: &[ValueId] = match b.below(4)? {
        0 => &[v, v],
        1 => &[v],
        2 => &[w, v],
        _ => &[v, w, v],
    };
    b.plain("Concat", Attrs::new().with("axis", a), inputs);
    Ok(())
}

fn split(b: &mut Build) -> Result<()> {
    let v = any(b)?;
    let s = b.dims(v);
    if s.is_empty() {
        return Ok(());
    }
    let a = b.below(s.len())?;
    if b.flip()? {
        let first = b.below(s[a] + 1)?;
        let sizes = b.ints(vec![first as i64, (s[a] - first) as i64]);
        b.place("Split", Attrs::new().with("axis", a as i64), &[Some(v), Some(sizes)], 2);
    } else {
        let n = b.u.int_in_range(1..=3usize)?;
        b.place("Split", Attrs::new().with("axis", a as i64).with("num_outputs", n as i64), &[Some(v)], n);
    }
    Ok(())
}

fn pad(b: &mut Build) -> Result<()> {
    let v = any(b)?;
    let n = b.dims(v).len();
    let mode = b.one_of(&["constant", "constant", "reflect", "edge", "wrap"])?;
    let low = if mode == "constant" { -1 } else { 0 };
    let amounts = (0..2 * n).map(|_| b.u.int_in_range(low..=2i64)).collect::<Result<Vec<_>>>()?;
    let amounts = b.ints(amounts);
    let value = if b.flip()? { Some(b.scalar(b.dtype(v), 1.0)?) } else { None };
    b.place("Pad", Attrs::new().with("mode", mode), &[Some(v), Some(amounts), value], 1);
    Ok(())
}

fn resize(b: &mut Build) -> Result<()> {
    let (v, s) = image(b)?;
    let mode = b.one_of(&["nearest", "linear", "cubic"])?;
    let transform = b.one_of(&[
        "half_pixel",
        "asymmetric",
        "align_corners",
        "pytorch_half_pixel",
        "half_pixel_symmetric",
    ])?;
    let nearest = b.one_of(&["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])?;
    let mut attrs = Attrs::new().with("mode", mode).with("coordinate_transformation_mode", transform);
    if mode == "nearest" {
        attrs.set("nearest_mode", nearest);
    }
    if mode != "nearest" && b.u.ratio(1, 4)? {
        attrs.set("antialias", 1);
    }
    let mut scales = vec![1.0f32; 2];
    for _ in 2..s.len() {
        scales.push(b.one_of(&[1.0, 2.0, 0.5, 1.5, 0.7])?);
    }
    let scales = b.graph.add_initializer("scales", Tensor::vector(scales));
    b.place("Resize", attrs, &[Some(v), None, Some(scales)], 1);
    Ok(())
}

fn cast(b: &mut Build) -> Result<()> {
    let v = any(b)?;
    let to = b.one_of(CASTS)?;
    // Floats beyond an integer's range have no defined value.
    let wild = b.known(v).is_some_and(|t| {
        t.dtype().is_float()
            && !to.is_float()
            && t.to_f64s().is_ok_and(|x| {
                let (low, high) = to.int_range().unwrap_or((i128::MIN, i128::MAX));
                x.iter().any(|&x| !x.is_finite() || x <= low as f64 - 1.0 || x >= high as f64)
            })
    });
    if !wild {
        b.plain("Cast", Attrs::new().with("to", i64::from(to.onnx())), &[v]);
    }
    Ok(())
}

/// A positive scale and a zero point, per tensor or along `n` channels.
fn scale(b: &mut Build, dtype: DType, n: Option<usize>) -> Result<[ValueId; 2]> {
    let shape: Vec<usize> = n.into_iter().collect();
    let t = b.tensor(DType::U8, &shape)?;
    let scales: Vec<f32> = t.to_f32s().unwrap_or_default().iter().map(|x| (x + 1.0) / 4096.0).collect();
    let s = Tensor::new(&shape, scales).map_err(|_| arbitrary::Error::IncorrectFormat)?;
    let s = b.graph.add_initializer("scale", s);
    let z = if b.flip()? {
        b.tensor(dtype, &shape)?
    } else {
        Tensor::zeros(dtype, &shape).map_err(|_| arbitrary::Error::IncorrectFormat)?
    };
    Ok([s, b.graph.add_initializer("zero", z)])
}

fn quantize(b: &mut Build) -> Result<()> {
    let d = b.one_of(&[DType::U8, DType::I8])?;
    if let Some(v) = b.find(|t| t.dtype() == d)?
        && b.flip()?
    {
        let [s, z] = scale(b, d, None)?;
        b.plain("DequantizeLinear", Attrs::new(), &[v, s, z]);
        return Ok(());
    }
    let v = b.float(1)?;
    let a = axis(b, v)?;
    let shape = b.dims(v);
    let n = shape[a.rem_euclid(shape.len() as i64) as usize];
    let channels = if b.u.ratio(1, 3)? { Some(n) } else { None };
    let [s, z] = scale(b, d, channels)?;
    let attrs = if channels.is_some() { Attrs::new().with("axis", a) } else { Attrs::new() };
    b.plain("QuantizeLinear", attrs.clone(), &[v, s, z]);
    if let Some(q) = b.made.last().map(|m| m.value)
        && b.dtype(q) == d
        && b.flip()?
    {
        b.plain("DequantizeLinear", attrs, &[q, s, z]);
    }
    Ok(())
}

/// 8-bit operands: of a product, or of a convolution.
fn operands(b: &mut Build) -> Result<(bool, ValueId, ValueId, DType, DType, usize)> {
    let (da, dw) = (b.one_of(&[DType::U8, DType::I8])?, b.one_of(&[DType::U8, DType::I8])?);
    if b.flip()? {
        let v = b.need(da, 2)?;
        let (k, n) = (b.dims(v)[1], b.size()?);
        return Ok((false, v, b.fresh(dw, &[k, n])?, da, dw, n));
    }
    let v = b.need(da, 4)?;
    let n = b.one_of(&[1, 2, 3, 8, 17])?;
    let k = kernel(b, 2)?;
    let c = b.dims(v)[1];
    Ok((true, v, b.fresh(dw, &[n, c, k[0], k[1]])?, da, dw, n))
}

fn integer_product(b: &mut Build) -> Result<()> {
    let (conv, v, w, da, dw, n) = operands(b)?;
    let za = scale(b, da, None)?[1];
    let per = if b.u.ratio(1, 3)? { Some(n) } else { None };
    let zw = scale(b, dw, per)?[1];
    b.plain(if conv { "ConvInteger" } else { "MatMulInteger" }, Attrs::new(), &[v, w, za, zw]);
    Ok(())
}

fn qlinear(b: &mut Build) -> Result<()> {
    let (conv, v, w, da, dw, n) = operands(b)?;
    let per = if b.u.ratio(1, 3)? { Some(n) } else { None };
    let dy = b.one_of(&[DType::U8, DType::I8])?;
    let ([sa, za], [sw, zw], [sy, zy]) = (scale(b, da, None)?, scale(b, dw, per)?, scale(b, dy, None)?);
    let mut inputs: Vec<_> = [v, sa, za, w, sw, zw, sy, zy].into_iter().map(Some).collect();
    if conv && b.flip()? {
        inputs.push(Some(b.fresh(DType::I32, &[n])?));
    }
    let attrs = if conv { window(b, &[3, 3], true)? } else { Attrs::new() };
    b.place(if conv { "QLinearConv" } else { "QLinearMatMul" }, attrs, &inputs, 1);
    Ok(())
}

fn top_k(b: &mut Build) -> Result<()> {
    let v = any(b)?;
    let a = axis(b, v)?;
    let k = b.u.int_in_range(1..=3i64)?;
    let k = b.ints(vec![k]);
    let largest = i64::from(b.flip()?);
    b.place("TopK", Attrs::new().with("axis", a).with("largest", largest), &[Some(v), Some(k)], 2);
    Ok(())
}

fn cumulative(b: &mut Build) -> Result<()> {
    let v = any(b)?;
    let a = axis(b, v)?;
    let a = b.graph.add_initializer("axis", Tensor::scalar(a));
    let attrs = Attrs::new().with("exclusive", i64::from(b.flip()?)).with("reverse", i64::from(b.flip()?));
    let op = b.one_of(&["CumSum", "CumSum", "CumProd"])?;
    b.plain(op, attrs, &[v, a]);
    Ok(())
}

fn one_hot(b: &mut Build) -> Result<()> {
    let v = match b.find(|t| t.dtype() == DType::I64)? {
        Some(v) => v,
        None => b.need(DType::I64, 1)?,
    };
    let depth = b.ints(vec![5]);
    let values = b.graph.add_initializer("values", Tensor::vector(vec![0.0f32, 1.0]));
    let a = b.one_of(&[-1i64, 0])?;
    b.plain("OneHot", Attrs::new().with("axis", a), &[v, depth, values]);
    Ok(())
}

fn trilu(b: &mut Build) -> Result<()> {
    let v = any(b)?;
    let k = b.u.int_in_range(-2..=2i64)?;
    let k = b.graph.add_initializer("k", Tensor::scalar(k));
    let upper = i64::from(b.flip()?);
    b.plain("Trilu", Attrs::new().with("upper", upper), &[v, k]);
    Ok(())
}

fn reshape(b: &mut Build) -> Result<()> {
    let v = any(b)?;
    let s: Vec<i64> = b.dims(v).iter().map(|&n| n as i64).collect();
    match b.below(5)? {
        0 => {
            let t = b.ints(vec![-1]);
            b.plain("Reshape", Attrs::new(), &[v, t]);
        }
        1 if s.len() > 1 => {
            let t = b.ints([&[0, -1], &s[2..]].concat());
            b.plain("Reshape", Attrs::new(), &[v, t]);
        }
        2 => {
            let a = b.ints(vec![0]);
            let op = b.one_of(&["Unsqueeze", "Squeeze"])?;
            b.plain(op, Attrs::new(), &[v, a]);
        }
        3 => {
            let t = b.ints([&[2], &s[..]].concat());
            b.plain("Expand", Attrs::new(), &[v, t]);
        }
        _ => {
            let repeats = s.iter().map(|_| b.u.int_in_range(1..=2i64)).collect::<Result<Vec<_>>>()?;
            let t = b.ints(repeats);
            b.plain("Tile", Attrs::new(), &[v, t]);
        }
    }
    Ok(())
}

fn move_axes(b: &mut Build) -> Result<()> {
    let v = any(b)?;
    let n = b.dims(v).len();
    let mut perm: Vec<i64> = (0..n as i64).collect();
    for i in (1..n).rev() {
        let j = b.below(i + 1)?;
        perm.swap(i, j);
    }
    match b.below(4)? {
        0 => b.plain("DepthToSpace", Attrs::new().with("blocksize", 2), &[v]),
        1 => b.plain("SpaceToDepth", Attrs::new().with("blocksize", 2), &[v]),
        _ => b.plain("Transpose", Attrs::new().with("perm", perm), &[v]),
    }
    Ok(())
}

/// Shifts of unsigned integers, by as many bits as there are and more.
fn shift(b: &mut Build) -> Result<()> {
    let d = b.one_of(&[DType::U8, DType::U16, DType::U32, DType::U64])?;
    let v = b.need(d, 1)?;
    let by = b.peer(d, &b.dims(v))?;
    let direction = b.one_of(&["LEFT", "RIGHT"])?;
    b.plain("BitShift", Attrs::new().with("direction", direction), &[v, by]);
    Ok(())
}

/// Values that depend on shapes only.
fn size_of(b: &mut Build) -> Result<()> {
    let v = any(b)?;
    match b.below(4)? {
        0 => {
            let (start, end) = (b.u.int_in_range(-5..=5i64)?, b.u.int_in_range(-5..=5i64)?);
            b.plain("Shape", Attrs::new().with("start", start).with("end", end), &[v]);
        }
        1 => {
            let s = b.dims(v).iter().map(|&n| n as i64).collect();
            let (d, x) = (b.one_of(DATA)?, b.one_of(&[0.0, 1.0, 3.0])?);
            let one = Tensor::from_f64s(d, &[1], vec![x])
                .or_else(|_| Tensor::from_i64s(d, &[1], vec![x as i64]))
                .map_err(|_| arbitrary::Error::IncorrectFormat)?;
            let shape = b.ints(s);
            b.plain("ConstantOfShape", Attrs::new().with("value", one), &[shape]);
        }
        2 => {
            let v = b.need(DType::F32, 2)?;
            let (k, d) = (b.u.int_in_range(-3..=3i64)?, b.one_of(DATA)?);
            b.plain("EyeLike", Attrs::new().with("k", k).with("dtype", i64::from(d.onnx())), &[v]);
        }
        _ => {
            let d = b.one_of(&[DType::I64, DType::I32, DType::F32])?;
            let parts = [b.scalar(d, 1.0)?, b.scalar(d, 9.0)?, b.scalar(d, 2.0)?];
            b.plain("Range", Attrs::new(), &parts);
        }
    }
    Ok(())
}

/// Operators of any number of operands.
fn variadic(b: &mut Build) -> Result<()> {
    let v = any(b)?;
    let mut inputs = vec![v];
    for _ in 0..b.below(3)? {
        inputs.push(b.peer(b.dtype(v), &b.dims(v))?);
    }
    let op = b.one_of(&["Sum", "Mean", "Max", "Min"])?;
    b.plain(op, Attrs::new(), &inputs);
    Ok(())
}

fn recurrent(b: &mut Build) -> Result<()> {
    let (op, gates) = b.one_of(&[("RNN", 1usize), ("GRU", 3), ("LSTM", 4)])?;
    let v = b.need(DType::F32, 3)?;
    let s = b.dims(v);
    let h = b.one_of(&[1usize, 2, 5, 8])?;
    let direction = b.one_of(&["forward", "reverse", "bidirectional"])?;
    let n = if direction == "bidirectional" { 2 } else { 1 };
    let w = b.finite(&[n, gates * h, s[2]])?;
    let r = b.finite(&[n, gates * h, h])?;
    let bias = if b.flip()? { Some(b.finite(&[n, 2 * gates * h])?) } else { None };
    let start = if b.flip()? { Some(b.finite(&[n, s[1], h])?) } else { None };
    let mut attrs = Attrs::new().with("hidden_size", h as i64).with("direction", direction);
    if op == "GRU" {
        attrs.set("linear_before_reset", i64::from(b.flip()?));
    }
    let outputs = if op == "LSTM" { 3 } else { 2 };
    b.place(op, attrs, &[Some(v), Some(w), Some(r), bias, None, start], outputs);
    Ok(())
}

fn attention(b: &mut Build) -> Result<()> {
    let (batch, heads) = (b.u.int_in_range(1..=2usize)?, b.one_of(&[1usize, 2, 3])?);
    let (rows, cols, side) =
        (b.one_of(&[1usize, 3, 8])?, b.one_of(&[1usize, 4, 9])?, b.one_of(&[1usize, 2, 8])?);
    let q = b.finite(&[batch, heads, rows, side])?;
    let k = b.finite(&[batch, heads, cols, side])?;
    let v = b.finite(&[batch, heads, cols, side])?;
    let mask = match b.below(3)? {
        0 => Some(b.finite(&[rows, cols])?),
        1 => Some(b.fresh(DType::Bool, &[rows, cols])?),
        _ => None,
    };
    let mut attrs = Attrs::new().with("is_causal", i64::from(b.u.ratio(1, 4)?));
    if b.u.ratio(1, 4)? {
        attrs.set("softcap", 2.0f32);
    }
    b.place("Attention", attrs, &[Some(q), Some(k), Some(v), mask], 1);
    Ok(())
}

fn rotary(b: &mut Build) -> Result<()> {
    let (heads, rows, half) = (b.one_of(&[1usize, 2])?, b.one_of(&[1usize, 3])?, b.one_of(&[1usize, 4])?);
    let x = b.fresh(DType::F32, &[1, heads, rows, 2 * half])?;
    let (cos, sin) = (b.fresh(DType::F32, &[1, rows, half])?, b.fresh(DType::F32, &[1, rows, half])?);
    let attrs = Attrs::new().with("interleaved", i64::from(b.flip()?));
    b.plain("RotaryEmbedding", attrs, &[x, cos, sin]);
    Ok(())
}

/// Windows of signals.
fn windowed(b: &mut Build) -> Result<()> {
    let op = b.one_of(&["HannWindow", "HammingWindow", "BlackmanWindow"])?;
    let n = b.u.int_in_range(1..=17i64)?;
    let n = b.graph.add_initializer("n", Tensor::scalar(n));
    let periodic = i64::from(b.flip()?);
    b.plain(op, Attrs::new().with("periodic", periodic), &[n]);
    Ok(())
}

/// Images from and in patches.
fn patches(b: &mut Build) -> Result<()> {
    match b.below(4)? {
        0 => {
            let (h, w) = (b.u.int_in_range(3..=6usize)?, b.u.int_in_range(3..=6usize)?);
            let v = b.fresh(DType::F32, &[1, 8, (h - 1) * (w - 1)])?;
            let (image, block) = (b.ints(vec![h as i64, w as i64]), b.ints(vec![2, 2]));
            b.plain("Col2Im", Attrs::new(), &[v, image, block]);
        }
        1 => {
            let v = any(b)?;
            let a = axis(b, v)?;
            let n = b.u.int_in_range(0..=7i64)?;
            let n = b.ints(vec![n]);
            b.plain("CenterCropPad", Attrs::new().with("axes", vec![a]), &[v, n]);
        }
        2 => {
            let v = b.need(DType::F32, 4)?;
            let side = b.u.int_in_range(1..=3i64)?;
            let mut rois = Vec::new();
            for _ in 0..2 {
                let (x, y) = (b.below(3)? as f32, b.below(3)? as f32);
                rois.extend([x, y, x + 2.5, y + 1.5]);
            }
            let rois = Tensor::new(&[2, 4], rois).map_err(|_| arbitrary::Error::IncorrectFormat)?;
            let rois = b.constant(rois);
            let at = b.ints(vec![0, 0]);
            let mode = b.one_of(&["avg", "max"])?;
            let attrs = Attrs::new()
                .with("output_height", side)
                .with("output_width", side)
                .with("mode", mode)
                .with("coordinate_transformation_mode", b.one_of(&["half_pixel", "output_half_pixel"])?)
                .with("spatial_scale", b.one_of(&[1.0f32, 0.5, 3.0])?)
                .with("sampling_ratio", b.u.int_in_range(0..=3i64)?);
            b.plain("RoiAlign", attrs, &[v, rois, at]);
        }
        _ => {
            let v = b.need(DType::F32, 4)?;
            let s = b.dims(v);
            let k = b.ints(vec![1, s[1] as i64, 3, 4]);
            let theta = b.finite(&[1, 2, 3])?;
            let corners = i64::from(b.flip()?);
            b.plain("AffineGrid", Attrs::new().with("align_corners", corners), &[theta, k]);
        }
    }
    Ok(())
}

fn sampled(b: &mut Build) -> Result<()> {
    let v = b.need(DType::F32, 4)?;
    let s = b.dims(v);
    let (h, w) = (b.u.int_in_range(1..=4usize)?, b.u.int_in_range(1..=4usize)?);
    let grid = b.finite(&[s[0], h, w, 2])?;
    let mode = b.one_of(&["linear", "nearest", "cubic"])?;
    let padding = b.one_of(&["zeros", "border", "reflection"])?;
    let attrs = Attrs::new()
        .with("mode", mode)
        .with("padding_mode", padding)
        .with("align_corners", i64::from(b.flip()?));
    b.plain("GridSample", attrs, &[v, grid]);
    Ok(())
}

/// Order along an axis.
fn sequences(b: &mut Build) -> Result<()> {
    let v = any(b)?;
    let s = b.dims(v);
    if s.len() < 2 {
        return Ok(());
    }
    if b.flip()? {
        let lengths: Vec<i64> =
            (0..s[1]).map(|_| b.u.int_in_range(1..=s[0].max(1) as i64)).collect::<Result<_>>()?;
        let lengths = b.ints(lengths);
        b.plain("ReverseSequence", Attrs::new().with("time_axis", 0).with("batch_axis", 1), &[v, lengths]);
    } else {
        let last = s.len() as i64 - 1;
        b.plain("Transpose", Attrs::new(), &[v]);
        let a = b.u.int_in_range(-last..=last)?;
        b.plain("Flatten", Attrs::new().with("axis", a), &[v]);
    }
    Ok(())
}

/// Results whose size depends on values.
fn filtered(b: &mut Build) -> Result<()> {
    let v = any(b)?;
    let s = b.dims(v);
    match b.below(3)? {
        0 if !s.is_empty() => {
            let a = b.below(s.len())?;
            let n = b.u.int_in_range(0..=s[a])?;
            let keep = b.fresh(DType::Bool, &[n])?;
            b.plain("Compress", Attrs::new().with("axis", a as i64), &[v, keep]);
        }
        1 => {
            let sorted = i64::from(b.flip()?);
            b.place("Unique", Attrs::new().with("sorted", sorted), &[Some(v)], 4);
        }
        _ => b.plain("NonZero", Attrs::new(), &[v]),
    }
    Ok(())
}

/// Losses and norms.
fn counted(b: &mut Build) -> Result<()> {
    let v = b.need(DType::F32, 2)?;
    let s = b.dims(v);
    let op = b.one_of(&["SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss", "GlobalLpPool", "Det"])?;
    match op {
        "Det" => {
            let n = b.u.int_in_range(1..=4usize)?;
            let m = b.finite(&[2, n, n])?;
            b.plain(op, Attrs::new(), &[m]);
        }
        "GlobalLpPool" => {
            let (v, _) = image(b)?;
            let p = b.one_of(&[1i64, 2, 3])?;
            b.plain(op, Attrs::new().with("p", p), &[v]);
        }
        _ => {
            let top = s[1].max(1) as i64 - 1;
            let labels: Vec<i64> = (0..s[0]).map(|_| b.u.int_in_range(0..=top)).collect::<Result<_>>()?;
            let labels = b.ints(labels);
            let reduction = b.one_of(&["none", "sum", "mean"])?;
            b.plain(op, Attrs::new().with("reduction", reduction), &[v, labels]);
        }
    }
    Ok(())
}

/// Element-wise operators with parameters of their own.
fn parametric(b: &mut Build) -> Result<()> {
    let v = b.float(0)?;
    let op =
        b.one_of(&["Elu", "Celu", "LeakyRelu", "ThresholdedRelu", "HardSigmoid", "Selu", "Shrink", "Swish"])?;
    let x = b.one_of(&[0.0f32, 0.3, 1.0, 2.5])?;
    let mut attrs = Attrs::new();
    if op == "Shrink" {
        attrs.set("lambd", x);
        attrs.set("bias", 0.25f32);
    } else if op != "Celu" || x != 0.0 {
        attrs.set("alpha", x);
    }
    b.plain(op, attrs, &[v]);
    Ok(())
}

/// Fourier transforms.
fn spectral(b: &mut Build) -> Result<()> {
    let n = b.u.int_in_range(1..=9usize)?;
    let complex = b.u.int_in_range(1..=2usize)?;
    let v = b.fresh(DType::F32, &[1, n, complex])?;
    let a = b.graph.add_initializer("axis", Tensor::scalar(1i64));
    let inverse = i64::from(complex == 2 && b.flip()?);
    b.place("DFT", Attrs::new().with("inverse", inverse), &[Some(v), None, Some(a)], 1);
    Ok(())
}
