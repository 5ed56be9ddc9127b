//! The "ai.onnx.ml" domain, as far as functions of standard operators go; trees are in `trees.rs`.

use crate::function::{Body, Function, Outputs, plain};
use ir::DType::{F32, F64, I32, I64, String};
use ir::{Arity, AttrFormal, AttrKind, Error, Formal, Operator, Result, Signature, Tensor, Types};

pub const DOMAIN: &str = "ai.onnx.ml";

pub static OPERATORS: &[&dyn Operator] = &[
    &Function {
        domain: DOMAIN,
        name: "ArrayFeatureExtractor",
        signature: &ARRAY_FEATURE_EXTRACTOR,
        build: extract,
    },
    &Function { domain: DOMAIN, name: "Binarizer", signature: &BINARIZER, build: binarize },
    &Function { domain: DOMAIN, name: "Scaler", signature: &SCALER, build: scale },
];

const NUMBERS: Types = Types::Of(&[F32, F64, I64, I32]);

const fn f(name: &'static str, type_name: &'static str, types: Types) -> Formal {
    Formal { name, type_name, types, arity: Arity::Required }
}
const fn a(name: &'static str, kind: AttrKind) -> AttrFormal {
    AttrFormal { name, kind, required: false }
}

static ARRAY_FEATURE_EXTRACTOR: Signature = Signature {
    since: &[1],
    inputs: &[f("X", "T", Types::Of(&[F32, F64, I64, I32, String])), f("Y", "I", Types::Of(&[I64]))],
    outputs: &[f("Z", "T", Types::Of(&[F32, F64, I64, I32, String]))],
    attrs: &[],
};
static BINARIZER: Signature = Signature {
    since: &[1],
    inputs: &[f("X", "T", NUMBERS)],
    outputs: &[f("Y", "T", NUMBERS)],
    attrs: &[a("threshold", AttrKind::Float)],
};
static SCALER: Signature = Signature {
    since: &[1],
    inputs: &[f("X", "T", NUMBERS)],
    outputs: &[f("Y", "O", Types::Of(&[F32]))],
    attrs: &[a("offset", AttrKind::Floats), a("scale", AttrKind::Floats)],
};

/// Entries of the last axis; a vector becomes one row.
fn extract(b: &mut Body) -> Result<Outputs> {
    let x = b.need(0)?;
    let row = b.rank(x)? == 1;
    let indices = b.reshape(b.need(1)?, &[-1])?;
    let z = b.op_with("Gather", plain().with("axis", -1), &[x, indices])?;
    Ok(vec![Some(if row { b.unsqueeze(z, &[0])? } else { z })])
}

/// 1 above the threshold, else 0.
fn binarize(b: &mut Body) -> Result<Outputs> {
    let x = b.need(0)?;
    let dtype = b.dtype(x)?;
    // Thresholds are floats, whatever is compared with them.
    let wide = if dtype == F32 { F32 } else { F64 };
    let value = b.cast(x, wide)?;
    let threshold = b.number(value, b.attrs.float_or("threshold", 0.0)?)?;
    let above = b.op("Greater", &[value, threshold])?;
    Ok(vec![Some(b.cast(above, dtype)?)])
}

/// (x − offset) · scale, one of each or one for each feature.
fn scale(b: &mut Body) -> Result<Outputs> {
    let mut x = b.cast(b.need(0)?, F32)?;
    for (name, op) in [("offset", "Sub"), ("scale", "Mul")] {
        let values = b.attrs.floats(name)?.map(<[f32]>::to_vec).unwrap_or_default();
        if values.is_empty() {
            return Err(Error::model(format!("attribute '{name}' is empty")));
        }
        let values = b.constant(Tensor::vector(values));
        x = b.op(op, &[x, values])?;
    }
    Ok(vec![Some(x)])
}
