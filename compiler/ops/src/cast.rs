//! Cast, CastLike and BitCast between every pair of types.

use crate::typing::tensor_type;
use crate::{Op, schema};
use half::{bf16, f16};
use ir::minifloat::{self, Rounding};
use ir::{
    Accuracy, Attrs, DType, Dim, Error, Expr, InferCx, Kind, Operator, Result, Tensor, Value, ValueType,
};

pub static OPERATORS: &[&dyn Operator] = &[
    &Op::new("Cast", &schema::CAST, infer_cast, |cx| {
        let to = target(cx.attrs)?;
        Ok(vec![Value::Tensor(cast_as(cx.tensor(0)?, to, cx.attrs)?)])
    })
    // An expression has no attributes: it saturates, and scales round up.
    .kind(|a| match (target(a), a.int_or("saturate", 1), a.str_or("round_mode", "up")) {
        (Ok(d), Ok(1), Ok("up")) => Kind::Elementwise(Expr::cast(d, Expr::In(0))),
        _ => Kind::Opaque,
    })
    .shape_value(|cx| if target(cx.attrs).ok()?.is_int() { cx.dims(0) } else { None }),
    &Op::new("CastLike", &schema::CAST_LIKE, infer_like, |cx| {
        let to = cx.tensor(1)?.dtype();
        Ok(vec![Value::Tensor(cast_as(cx.tensor(0)?, to, cx.attrs)?)])
    }),
    &Op::new("BitCast", &schema::BIT_CAST, infer_cast, |cx| {
        Ok(vec![Value::Tensor(cx.tensor(0)?.bitcast(target(cx.attrs)?)?)])
    })
    .kind(|_| Kind::Movement)
    .accuracy(Accuracy::Exact),
];

/// The `to` attribute.
pub fn target(attrs: &Attrs) -> Result<DType> {
    let to = attrs.require_int("to")?;
    let dtype = i32::try_from(to).ok().and_then(DType::from_onnx);
    dtype.ok_or_else(|| Error::unsupported(format!("element type number {to}")))
}

fn infer_cast(cx: &InferCx) -> Result<Vec<ValueType>> {
    cx.dtype(0)?;
    Ok(vec![tensor_type(Some(target(cx.attrs)?), cx.shape(0).map(<[Dim]>::to_vec))])
}

fn infer_like(cx: &InferCx) -> Result<Vec<ValueType>> {
    Ok(vec![tensor_type(cx.dtype(1)?, cx.shape(0).map(<[Dim]>::to_vec))])
}

/// A cast with the attributes of the operator.
fn cast_as(t: &Tensor, to: DType, attrs: &Attrs) -> Result<Tensor> {
    let saturate = attrs.int_or("saturate", 1)? != 0;
    let rounding = match attrs.str_or("round_mode", "up")? {
        "up" => Rounding::Up,
        "down" => Rounding::Down,
        "nearest" => Rounding::Nearest,
        m => return Err(Error::model(format!("round_mode '{}' is not known", m.escape_debug()))),
    };
    if to != DType::F8E8M0 || t.dtype() == to {
        return cast(t, to, saturate);
    }
    let values = cast(t, DType::F32, saturate)?.to_f32s()?;
    let bits: Vec<u8> = values.iter().map(|&x| minifloat::encode_e8m0(x, saturate, rounding)).collect();
    Tensor::from_unpacked(to, t.shape(), &bits)
}

/// ONNX Cast: floats round to nearest even, float to integer truncates, out of range float 8 saturates or not.
pub fn cast(t: &Tensor, to: DType, saturate: bool) -> Result<Tensor> {
    let (from, shape) = (t.dtype(), t.shape());
    if from == to {
        return Ok(t.clone());
    }
    if to == DType::String {
        return Tensor::strings(shape, to_strings(t)?);
    }
    if from == DType::String {
        return from_strings(t, to, saturate);
    }
    if from.is_unsigned_int() && from.bits() <= 8 && to == DType::I32 {
        return Tensor::new(shape, t.unpacked()?.into_iter().map(i32::from).collect());
    }
    match (from, to) {
        (DType::I8, DType::F32) => {
            return Tensor::new(shape, t.bytes().iter().map(|&b| f32::from(b as i8)).collect());
        }
        (DType::U8, DType::F32) => {
            return Tensor::new(shape, t.bytes().iter().map(|&b| f32::from(b)).collect());
        }
        _ => {}
    }
    if (from.is_int() || from == DType::Bool) && (to.is_int() || to == DType::Bool) {
        let v = if from == DType::U64 {
            t.data::<u64>()?.iter().map(|&x| x as i64).collect()
        } else {
            t.to_i64s()?
        };
        return Tensor::from_i64s(to, shape, v);
    }
    if from == DType::U64 && to == DType::F32 {
        return Tensor::new(shape, t.data::<u64>()?.iter().map(|&x| x as f32).collect());
    }
    if from == DType::I64 && to == DType::F32 {
        return Tensor::new(shape, t.data::<i64>()?.iter().map(|&x| x as f32).collect());
    }
    from_f64s(to, shape, t.to_f64s()?, saturate)
}

fn from_f64s(to: DType, shape: &[usize], v: Vec<f64>, saturate: bool) -> Result<Tensor> {
    match to {
        DType::F32 => Tensor::new(shape, v.into_iter().map(|x| x as f32).collect()),
        DType::F64 | DType::F16 | DType::BF16 => Tensor::from_f64s(to, shape, v),
        DType::Bool => Tensor::new(shape, v.into_iter().map(|x| x != 0.0).collect::<Vec<bool>>()),
        DType::U64 => Tensor::new(
            shape,
            v.into_iter().map(|x| if x < 0.0 { x as i64 as u64 } else { x as u64 }).collect(),
        ),
        d if d.is_int() => Tensor::from_i64s(d, shape, v.into_iter().map(|x| x as i64).collect()),
        d => {
            let bits: Option<Vec<u8>> =
                v.into_iter().map(|x| minifloat::encode(d, x as f32, saturate)).collect();
            let bits = bits.ok_or_else(|| Error::unsupported(format!("cast to {d}")))?;
            Tensor::from_unpacked(d, shape, &bits)
        }
    }
}

fn to_strings(t: &Tensor) -> Result<Vec<String>> {
    ir::budget::check_texts(t.len())?;
    Ok(match t.dtype() {
        DType::Bool => {
            t.data::<bool>()?.iter().map(|b| if *b { "True" } else { "False" }.to_string()).collect()
        }
        DType::U64 => t.data::<u64>()?.iter().map(u64::to_string).collect(),
        d if d.is_int() => t.to_i64s()?.iter().map(i64::to_string).collect(),
        DType::F32 => t.data::<f32>()?.iter().map(|x| float_text(&format!("{x}"), f64::from(*x))).collect(),
        DType::F16 => t.data::<f16>()?.iter().map(|x| float_text(&format!("{x}"), x.to_f64())).collect(),
        DType::BF16 => t.data::<bf16>()?.iter().map(|x| float_text(&format!("{x}"), x.to_f64())).collect(),
        DType::F64 => t.data::<f64>()?.iter().map(|x| float_text(&format!("{x}"), *x)).collect(),
        d => return Err(Error::unsupported(format!("cast from {d} to string"))),
    })
}

/// Names of special values as numpy writes them.
fn float_text(plain: &str, x: f64) -> String {
    if x.is_nan() {
        "NaN".into()
    } else if x.is_infinite() {
        if x > 0.0 { "INF" } else { "-INF" }.into()
    } else {
        plain.to_string()
    }
}

fn from_strings(t: &Tensor, to: DType, saturate: bool) -> Result<Tensor> {
    let texts = t.string_data()?;
    let bad = |s: &str| Error::data(format!("'{}' is not a number", s.escape_debug()));
    if to.is_int() || to == DType::Bool {
        let v = texts.iter().map(|s| s.trim().parse::<i64>().map_err(|_| bad(s))).collect::<Result<Vec<_>>>();
        if let Ok(v) = v {
            return Tensor::from_i64s(to, t.shape(), v);
        }
    }
    let v = texts
        .iter()
        .map(|s| match s.trim().to_ascii_lowercase().as_str() {
            "+inf" | "inf" => Ok(f64::INFINITY),
            "-inf" => Ok(f64::NEG_INFINITY),
            "nan" => Ok(f64::NAN),
            s => s.parse().map_err(|_| bad(s)),
        })
        .collect::<Result<Vec<f64>>>()?;
    from_f64s(to, t.shape(), v, saturate)
}
