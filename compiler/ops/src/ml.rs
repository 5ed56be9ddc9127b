//! The "ai.onnx.ml" domain: functions of standard operators here and in `linear.rs`, others with semantics of their own.

pub(crate) mod forest;
pub(crate) mod labels;
pub(crate) mod linear;
mod scores;
pub(crate) mod svm;

use crate::function::{Body, Function, Outputs, plain};
use ir::DType::{F32, F64, I32, I64, String};
use ir::{Arity, AttrFormal, AttrKind, Attrs, Error, Formal, Operator, Result, Signature, Tensor, Types};

pub const DOMAIN: &str = "ai.onnx.ml";

pub static OPERATORS: &[&dyn Operator] = &[
    &Function {
        domain: DOMAIN,
        name: "ArrayFeatureExtractor",
        signature: &ARRAY_FEATURE_EXTRACTOR,
        build: extract,
    },
    &Function { domain: DOMAIN, name: "Binarizer", signature: &BINARIZER, build: binarize },
    &Function { domain: DOMAIN, name: "FeatureVectorizer", signature: &FEATURE_VECTORIZER, build: vectorize },
    &Function { domain: DOMAIN, name: "Imputer", signature: &IMPUTER, build: impute },
    &Function { domain: DOMAIN, name: "Normalizer", signature: &NORMALIZER, build: normalize },
    &Function { domain: DOMAIN, name: "Scaler", signature: &SCALER, build: scale },
    &Function { domain: DOMAIN, name: "ZipMap", signature: &ZIP_MAP, build: zip },
];

pub(crate) const NUMBERS: Types = Types::Of(&[F32, F64, I64, I32]);
pub(crate) const FLOATS: Types = Types::Of(&[F32]);
pub(crate) const LABELS: Types = Types::Of(&[String, I64]);

pub(crate) const fn f(name: &'static str, type_name: &'static str, types: Types) -> Formal {
    Formal { name, type_name, types, arity: Arity::Required }
}
pub(crate) const fn a(name: &'static str, kind: AttrKind) -> AttrFormal {
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
static FEATURE_VECTORIZER: Signature = Signature {
    since: &[1],
    inputs: &[Formal { name: "X", type_name: "T1", types: NUMBERS, arity: Arity::Variadic }],
    outputs: &[f("Y", "O", FLOATS)],
    attrs: &[a("inputdimensions", AttrKind::Ints)],
};
static IMPUTER: Signature = Signature {
    since: &[1],
    inputs: &[f("X", "T", NUMBERS)],
    outputs: &[f("Y", "T", NUMBERS)],
    attrs: &[
        a("imputed_value_floats", AttrKind::Floats),
        a("imputed_value_int64s", AttrKind::Ints),
        a("replaced_value_float", AttrKind::Float),
        a("replaced_value_int64", AttrKind::Int),
    ],
};
static NORMALIZER: Signature = Signature {
    since: &[1],
    inputs: &[f("X", "T", NUMBERS)],
    outputs: &[f("Y", "O", FLOATS)],
    attrs: &[a("norm", AttrKind::Str)],
};
static SCALER: Signature = Signature {
    since: &[1],
    inputs: &[f("X", "T", NUMBERS)],
    outputs: &[f("Y", "O", Types::Of(&[F32]))],
    attrs: &[a("offset", AttrKind::Floats), a("scale", AttrKind::Floats)],
};
static ZIP_MAP: Signature = Signature {
    since: &[1],
    inputs: &[f("X", "T", FLOATS)],
    outputs: &[f("Z", "T", FLOATS)],
    attrs: &[a("classlabels_int64s", AttrKind::Ints), a("classlabels_strings", AttrKind::Strs)],
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

/// Inputs under each other as columns, each cut or filled with zeros to its width.
fn vectorize(b: &mut Body) -> Result<Outputs> {
    let widths = b.attrs.require_ints("inputdimensions")?.to_vec();
    if widths.len() != b.inputs.len() || widths.iter().any(|&w| w < 0) {
        return Err(Error::model(format!("inputdimensions {widths:?} for {} inputs", b.inputs.len())));
    }
    let mut parts = Vec::new();
    for (i, &width) in widths.iter().enumerate() {
        let x = b.cast(b.need(i)?, F32)?;
        let x = if b.rank(x)? == 1 { b.unsqueeze(x, &[0])? } else { b.op_with("Flatten", plain(), &[x])? };
        // As many zeros as columns are asked for are always enough.
        let (before, after) = ([0i64, 0], [0, width]);
        let pads = b.ints(&[before, after].concat());
        let x = b.op("Pad", &[x, pads])?;
        let (from, to) = (b.ints(&[0]), b.ints(&[width]));
        parts.push(b.slice(x, from, to, 1)?);
    }
    Ok(vec![Some(b.concat(1, &parts)?)])
}

/// One value replaced, by one other or by one for each column.
fn impute(b: &mut Body) -> Result<Outputs> {
    let x = b.need(0)?;
    let dtype = b.dtype(x)?;
    let (replaced, imputed) = if dtype.is_float() {
        let all = b.attrs.floats("imputed_value_floats")?.unwrap_or(&[]).to_vec();
        let replaced = b.attrs.float_or("replaced_value_float", 0.0)?;
        let n = all.len();
        (Tensor::from_f32s(dtype, &[], vec![replaced])?, Tensor::from_f32s(dtype, &[n], all)?)
    } else if dtype.is_int() {
        let all = b.attrs.ints("imputed_value_int64s")?.unwrap_or(&[]).to_vec();
        let replaced = b.attrs.int_or("replaced_value_int64", 0)?;
        let n = all.len();
        (Tensor::from_i64s(dtype, &[], vec![replaced])?, Tensor::from_i64s(dtype, &[n], all)?)
    } else {
        return Err(Error::model(format!("X is {dtype}, which has no numbers to impute")));
    };
    if imputed.is_empty() {
        return Err(Error::model(format!("no value to impute for {dtype}")));
    }
    let each = b.size(x, -1).is_none_or(|n| n == imputed.len());
    let imputed = if each { imputed } else { imputed.leading(0, 1)? };
    let missing = dtype.is_float() && replaced.to_f64s()?[0].is_nan();
    let (values, replaced) = (b.constant(imputed), b.constant(replaced));
    let hit = if missing { b.op("IsNaN", &[x])? } else { b.op("Equal", &[x, replaced])? };
    Ok(vec![Some(b.op("Where", &[hit, values, x])?)])
}

/// Rows by their largest value, or by their norm; rows where that is zero stay.
fn normalize(b: &mut Body) -> Result<Outputs> {
    let x = b.need(0)?;
    let rank = b.rank(x)?;
    if !(1..=2).contains(&rank) {
        return Err(Error::model(format!("X has rank {rank}, not 1 or 2")));
    }
    let x = b.cast(x, F32)?;
    let axes = b.ints(&[-1]);
    let norm = b.attrs.str_or("norm", "MAX")?;
    let op = match norm {
        "MAX" => "ReduceMax",
        "L1" => "ReduceL1",
        "L2" => "ReduceL2",
        n => return Err(Error::model(format!("norm '{}' is not known", n.escape_debug()))),
    };
    let size = b.op(op, &[x, axes])?;
    let (zero, one) = (b.number(size, 0.0)?, b.number(size, 1.0)?);
    let none = b.op("Equal", &[size, zero])?;
    let size = b.op("Where", &[none, one, size])?;
    Ok(vec![Some(b.op("Div", &[x, size])?)])
}

/// Maps have no place here: what would be one map a row, from labels to scores, stays the table of the scores.
fn zip(b: &mut Body) -> Result<Outputs> {
    Ok(vec![Some(b.need(0)?)])
}

/// Numbers of a list of floats, or of the tensor of doubles that stands for it.
pub(crate) fn floats(attrs: &Attrs, name: &str) -> Result<Vec<f64>> {
    if let Some(t) = attrs.tensor(&format!("{name}_as_tensor"))? {
        return t.to_f64s();
    }
    Ok(attrs.floats(name)?.unwrap_or(&[]).iter().map(|&x| f64::from(x)).collect())
}

/// What a classifier calls its classes.
pub(crate) enum Names {
    Numbers(Vec<i64>),
    Strings(Vec<std::string::String>),
}

impl Names {
    pub(crate) fn read(attrs: &Attrs, numbers: &str) -> Result<Names> {
        let strings = attrs.strs("classlabels_strings")?.unwrap_or(&[]);
        let numbers = attrs.ints(numbers)?.unwrap_or(&[]);
        match (strings, numbers) {
            ([], []) => Err(Error::model("no labels of classes")),
            ([], n) => Ok(Names::Numbers(n.to_vec())),
            (s, _) => Ok(Names::Strings(s.to_vec())),
        }
    }
    pub(crate) fn len(&self) -> usize {
        match self {
            Names::Numbers(n) => n.len(),
            Names::Strings(s) => s.len(),
        }
    }
    pub(crate) fn dtype(&self) -> ir::DType {
        if matches!(self, Names::Numbers(_)) { I64 } else { String }
    }
    pub(crate) fn tensor(&self) -> Result<Tensor> {
        match self {
            Names::Numbers(n) => Ok(Tensor::vector(n.clone())),
            Names::Strings(s) => Tensor::strings(&[s.len()], s.clone()),
        }
    }
    /// The label of each row.
    pub(crate) fn of(&self, rows: &[Label]) -> Result<Tensor> {
        let missing = || Error::model("a class without a label");
        match self {
            Names::Numbers(n) => {
                let one = |l: &Label| match *l {
                    Label::Class(c) => n.get(c).copied().ok_or_else(missing),
                    Label::Sign(positive) => Ok(i64::from(positive)),
                };
                Ok(Tensor::vector(rows.iter().map(one).collect::<Result<Vec<i64>>>()?))
            }
            Names::Strings(s) => {
                let one = |l: &Label| match *l {
                    Label::Class(c) => s.get(c).cloned().ok_or_else(missing),
                    Label::Sign(positive) => s.get(usize::from(positive)).cloned().ok_or_else(missing),
                };
                Tensor::strings(&[rows.len()], rows.iter().map(one).collect::<Result<Vec<_>>>()?)
            }
        }
    }
}

/// What a row was found to be: one of the classes, or one side of zero where classes have no say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Label {
    Class(usize),
    Sign(bool),
}

/// Rows and columns of a table; a vector is one row.
pub(crate) fn table(x: &Tensor) -> Result<(usize, usize)> {
    match *x.shape() {
        [columns] => Ok((1, columns)),
        [rows, columns] => Ok((rows, columns)),
        ref s => Err(Error::model(format!("X {s:?} must have rank 1 or 2"))),
    }
}

/// The number of rows as far as it is known.
pub(crate) fn rows(cx: &ir::InferCx) -> ir::Dim {
    match cx.shape(0) {
        Some([_]) => ir::Dim::Known(1),
        Some([n, _]) => n.clone(),
        _ => ir::Dim::Unknown,
    }
}

/// Numbers as the arithmetic of these operators sees them: doubles stay, all else is rounded to float.
pub(crate) fn numbers(x: &Tensor) -> Result<Vec<f64>> {
    let all = x.to_f64s()?;
    Ok(if x.dtype() == F64 { all } else { all.into_iter().map(|v| f64::from(v as f32)).collect() })
}

#[cfg(test)]
mod tests;
