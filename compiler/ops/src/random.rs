//! Operators that draw random numbers, and Dropout. Only type and shape of the draws are defined; ours are seeded.

use crate::typing::{one, tensor_type};
use crate::{Op, schema};
use ir::{
    Accuracy, Attrs, DType, Dim, Error, EvalCx, InferCx, Operator, Result, Tensor, Value, ValueType, budget,
};

macro_rules! row {
    ($name:literal, $sig:ident, $infer:ident, $eval:expr) => {
        Op::new($name, &schema::$sig, $infer, $eval).accuracy(Accuracy::Random)
    };
}

pub static OPERATORS: &[&dyn Operator] = &[
    &row!("RandomNormal", RANDOM_NORMAL, infer_shaped, |cx| shaped(cx, normal)),
    &row!("RandomUniform", RANDOM_UNIFORM, infer_shaped, |cx| shaped(cx, uniform)),
    &row!("RandomNormalLike", RANDOM_NORMAL_LIKE, infer_like, |cx| like(cx, normal)),
    &row!("RandomUniformLike", RANDOM_UNIFORM_LIKE, infer_like, |cx| like(cx, uniform)),
    &row!("Bernoulli", BERNOULLI, infer_like, bernoulli),
    &row!("Multinomial", MULTINOMIAL, infer_multinomial, multinomial),
    &Op::new("Dropout", &schema::DROPOUT, infer_dropout, dropout),
];

/// SplitMix64, seeded by the node's `seed` or its name.
struct Rng(u64);

impl Rng {
    fn new(cx: &EvalCx) -> Result<Rng> {
        let seed = match cx.attrs.get("seed") {
            Some(ir::Attr::Int(i)) => *i as u64,
            _ => match cx.attrs.float("seed")? {
                Some(s) => u64::from(s.to_bits()),
                None => cx.node.bytes().fold(7, |h: u64, b| h.wrapping_mul(31).wrapping_add(u64::from(b))),
            },
        };
        Ok(Rng(seed))
    }
    /// Uniform in `0..1`.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

type Draw = fn(&Attrs, &mut Rng) -> Result<f64>;

fn normal(a: &Attrs, r: &mut Rng) -> Result<f64> {
    let (mean, scale) = (f64::from(a.float_or("mean", 0.0)?), f64::from(a.float_or("scale", 1.0)?));
    let radius = (-2.0 * (1.0 - r.next()).ln()).sqrt();
    Ok(mean + scale * radius * (std::f64::consts::TAU * r.next()).cos())
}

fn uniform(a: &Attrs, r: &mut Rng) -> Result<f64> {
    let (low, high) = (f64::from(a.float_or("low", 0.0)?), f64::from(a.float_or("high", 1.0)?));
    Ok(low + (high - low) * r.next())
}

fn dtype(attrs: &Attrs, default: Option<DType>) -> Result<Option<DType>> {
    match attrs.int("dtype")? {
        None => Ok(default),
        Some(n) => i32::try_from(n)
            .ok()
            .and_then(DType::from_onnx)
            .map(Some)
            .ok_or_else(|| Error::unsupported(format!("element type number {n}"))),
    }
}

fn sizes(attrs: &Attrs) -> Result<Vec<usize>> {
    let shape = attrs.require_ints("shape")?;
    shape
        .iter()
        .map(|&d| usize::try_from(d).map_err(|_| Error::model(format!("dimension {d} is negative"))))
        .collect()
}

fn infer_shaped(cx: &InferCx) -> Result<Vec<ValueType>> {
    let shape = sizes(cx.attrs)?.into_iter().map(Dim::Known).collect();
    Ok(vec![tensor_type(dtype(cx.attrs, Some(DType::F32))?, Some(shape))])
}

fn infer_like(cx: &InferCx) -> Result<Vec<ValueType>> {
    Ok(vec![tensor_type(dtype(cx.attrs, cx.dtype(0)?)?, cx.shape(0).map(<[Dim]>::to_vec))])
}

fn drawn(cx: &EvalCx, dtype: DType, shape: &[usize], f: Draw) -> Result<Vec<Value>> {
    if !dtype.is_float() {
        return Err(Error::model(format!("random numbers of type {dtype}: dtype must name a float type")));
    }
    budget::bytes(DType::F64, shape)?;
    let mut rng = Rng::new(cx)?;
    let v = (0..budget::elements(shape)?).map(|_| f(cx.attrs, &mut rng)).collect::<Result<_>>()?;
    Ok(one(Tensor::from_f64s(dtype, shape, v)?))
}

fn shaped(cx: &EvalCx, f: Draw) -> Result<Vec<Value>> {
    drawn(cx, dtype(cx.attrs, Some(DType::F32))?.unwrap_or(DType::F32), &sizes(cx.attrs)?, f)
}

fn like(cx: &EvalCx, f: Draw) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    drawn(cx, dtype(cx.attrs, Some(x.dtype()))?.unwrap_or(x.dtype()), x.shape(), f)
}

fn bernoulli(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let mut rng = Rng::new(cx)?;
    let to = dtype(cx.attrs, Some(x.dtype()))?.unwrap_or(x.dtype());
    let v = x.to_f64s()?.into_iter().map(|p| f64::from(u8::from(rng.next() < p))).collect();
    Ok(one(crate::cast::cast(&Tensor::new::<f64>(x.shape(), v)?, to, true)?))
}

fn infer_multinomial(cx: &InferCx) -> Result<Vec<ValueType>> {
    let n = usize::try_from(cx.attrs.int_or("sample_size", 1)?)
        .map_err(|_| Error::model("sample_size is negative"))?;
    let batch = cx.shape(0).and_then(|s| s.first().cloned()).unwrap_or(Dim::Unknown);
    Ok(vec![tensor_type(dtype(cx.attrs, Some(DType::I32))?, Some(vec![batch, Dim::Known(n)]))])
}

/// Draws classes with probabilities proportional to e^x.
fn multinomial(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let &[batch, classes] = x.shape() else { return Err(Error::model("input must have 2 dims")) };
    let n = usize::try_from(cx.attrs.int_or("sample_size", 1)?)
        .map_err(|_| Error::model("sample_size is negative"))?;
    let to = dtype(cx.attrs, Some(DType::I32))?.unwrap_or(DType::I32);
    budget::bytes(DType::I64, &[batch, n])?;
    let mut rng = Rng::new(cx)?;
    let mut picks = Vec::new();
    for row in x.to_f64s()?.chunks(classes.max(1)) {
        let mut p = row.to_vec();
        crate::softmax::softmax(&mut p);
        for _ in 0..n {
            let mut left = rng.next();
            let hit = p.iter().position(|&q| {
                left -= q;
                left < 0.0
            });
            picks.push(hit.unwrap_or(classes.saturating_sub(1)) as i64);
        }
    }
    Ok(one(Tensor::from_i64s(to, &[batch, n], picks)?))
}

fn infer_dropout(cx: &InferCx) -> Result<Vec<ValueType>> {
    let mask = tensor_type(Some(DType::Bool), cx.shape(0).map(<[Dim]>::to_vec));
    cx.dtype(0)?;
    Ok(vec![cx.input(0)?.clone(), mask])
}

/// The identity unless `training_mode`; then elements are dropped with probability `ratio` and the rest is scaled.
fn dropout(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let training = cx.optional_ints(2)?.and_then(|v| v.first().copied()).unwrap_or(0) != 0;
    let ratio =
        cx.optional(1)?.map(Tensor::to_f64s).transpose()?.and_then(|v| v.first().copied()).unwrap_or(0.5);
    if !training || ratio == 0.0 {
        let mask = Tensor::new(x.shape(), vec![true; x.len()])?;
        return Ok(vec![x.clone().into(), mask.into()]);
    }
    if !(0.0..1.0).contains(&ratio) {
        return Err(Error::data(format!("ratio {ratio} is outside 0..1")));
    }
    let mut rng = Rng::new(cx)?;
    let keep: Vec<bool> = (0..x.len()).map(|_| rng.next() >= ratio).collect();
    let v =
        x.to_f64s()?.into_iter().zip(&keep).map(|(x, &k)| if k { x / (1.0 - ratio) } else { 0.0 }).collect();
    Ok(vec![Tensor::from_f64s(x.dtype(), x.shape(), v)?.into(), Tensor::new(x.shape(), keep)?.into()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_integers_are_the_models_fault() {
        let text = "g (int64[3] x) => (int64[3] y) { y = RandomNormalLike (x) }";
        let mut g = ir::text::parse(text, &crate::Standard).unwrap();
        ir::infer(&mut g).unwrap();
        let feeds = ir::Feeds::from([("x".to_string(), Tensor::vector(vec![1i64; 3]).into())]);
        let e = ir::Evaluate::run(&ir::Reference, &g, &feeds, &[]).unwrap_err();
        assert_eq!(e.blame, ir::Blame::Model, "{e}");
    }

    #[test]
    fn draws_have_the_asked_moments() {
        let (mut rng, a) = (Rng(3), Attrs::new().with("mean", 2.0f32).with("scale", 3.0f32));
        let v: Vec<f64> = (0..20_000).map(|_| normal(&a, &mut rng).unwrap()).collect();
        let mean = v.iter().sum::<f64>() / v.len() as f64;
        let variance = v.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / v.len() as f64;
        assert!((mean - 2.0).abs() < 0.1 && (variance - 9.0).abs() < 0.4, "{mean} {variance}");
    }
}
