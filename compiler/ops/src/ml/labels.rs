//! Tables from values to values: LabelEncoder, CategoryMapper and OneHotEncoder.

use super::{DOMAIN, FLOATS, a, f};
use crate::Op;
use crate::typing::{one, tensor_type};
use ir::DType::{self, F32, F64, I16, I32, I64, String};
use ir::{AttrKind, Attrs, Dim, Error, EvalCx, Graph, InferCx, Lookup, NodeId, Operator, Result, Signature};
use ir::{Tensor, Types, Value, ValueId, ValueType, budget};
use rustc_hash::FxHashMap;

pub static OPERATORS: &[&dyn Operator] = &[
    &Op::new("CategoryMapper", &CATEGORY_MAPPER, infer_encoded, encode).domain(DOMAIN),
    &Op::new("LabelEncoder", &LABEL_ENCODER, infer_encoded, encode).domain(DOMAIN).expand(newer),
    &Op::new("OneHotEncoder", &ONE_HOT, infer_one_hot, one_hot).domain(DOMAIN),
];

const ENCODED: Types = Types::Of(&[String, I64, F32, I32, I16, F64]);
const TEXT_OR_INT: Types = Types::Of(&[String, I64]);

static CATEGORY_MAPPER: Signature = Signature {
    since: &[1],
    inputs: &[f("X", "T1", TEXT_OR_INT)],
    outputs: &[f("Y", "T2", TEXT_OR_INT)],
    attrs: &[
        a("cats_int64s", AttrKind::Ints),
        a("cats_strings", AttrKind::Strs),
        a("default_int64", AttrKind::Int),
        a("default_string", AttrKind::Str),
    ],
};
static LABEL_ENCODER: Signature = Signature {
    since: &[1, 2, 4],
    inputs: &[f("X", "T1", ENCODED)],
    outputs: &[f("Y", "T2", ENCODED)],
    attrs: &[
        a("classes_strings", AttrKind::Strs),
        a("default_float", AttrKind::Float),
        a("default_int64", AttrKind::Int),
        a("default_string", AttrKind::Str),
        a("default_tensor", AttrKind::Tensor),
        a("keys_floats", AttrKind::Floats),
        a("keys_int64s", AttrKind::Ints),
        a("keys_strings", AttrKind::Strs),
        a("keys_tensor", AttrKind::Tensor),
        a("values_floats", AttrKind::Floats),
        a("values_int64s", AttrKind::Ints),
        a("values_strings", AttrKind::Strs),
        a("values_tensor", AttrKind::Tensor),
    ],
};
static ONE_HOT: Signature = Signature {
    since: &[1],
    inputs: &[f("X", "T", Types::Of(&[String, I64, I32, F32, F64]))],
    outputs: &[f("Y", "O", FLOATS)],
    attrs: &[a("cats_int64s", AttrKind::Ints), a("cats_strings", AttrKind::Strs), a("zeros", AttrKind::Int)],
};

fn strings(attrs: &Attrs, name: &str) -> Result<Option<Tensor>> {
    attrs.strs(name)?.map(|s| Tensor::strings(&[s.len()], s.to_vec())).transpose()
}

/// What stands under one of the names of a list: as a tensor, strings, integers or floats.
fn list(attrs: &Attrs, name: &str) -> Result<Option<Tensor>> {
    if let Some(t) = attrs.tensor(&format!("{name}_tensor"))? {
        return Ok(Some(t.reshaped(&[t.len()])?));
    }
    if let Some(t) = strings(attrs, &format!("{name}_strings"))? {
        return Ok(Some(t));
    }
    if let Some(v) = attrs.ints(&format!("{name}_int64s"))? {
        return Ok(Some(Tensor::vector(v.to_vec())));
    }
    Ok(attrs.floats(&format!("{name}_floats"))?.map(|v| Tensor::vector(v.to_vec())))
}

/// Numbers 0, 1, … below `n`.
fn counted(n: usize) -> Tensor {
    Tensor::vector((0..n as i64).collect::<Vec<_>>())
}

/// Keys and values of a node whose input has the type `dtype`.
fn pairs(attrs: &Attrs, dtype: DType) -> Result<(Tensor, Tensor)> {
    // Version 1 counts its classes; a mapper of categories has both lists.
    let texts = strings(attrs, "classes_strings")?.or(strings(attrs, "cats_strings")?);
    let (keys, values) = match (texts, attrs.ints("cats_int64s")?) {
        (Some(t), n) => {
            let numbers = n.map_or_else(|| counted(t.len()), |n| Tensor::vector(n.to_vec()));
            if dtype == String { (t, numbers) } else { (numbers, t) }
        }
        (None, _) => {
            let missing = |what: &str| Error::model(format!("no {what}"));
            let (k, v) = (list(attrs, "keys")?, list(attrs, "values")?);
            (k.ok_or_else(|| missing("keys"))?, v.ok_or_else(|| missing("values"))?)
        }
    };
    if keys.len() != values.len() {
        return Err(Error::model(format!("{} keys for {} values", keys.len(), values.len())));
    }
    Ok((keys, values))
}

/// The value of what is no key.
fn default(attrs: &Attrs, dtype: DType) -> Result<Tensor> {
    if let Some(t) = attrs.tensor("default_tensor")? {
        if t.len() != 1 || t.dtype() != dtype {
            return Err(Error::model(format!("default_tensor must be one {dtype}")));
        }
        return t.reshaped(&[1]);
    }
    match dtype {
        String => Tensor::strings(&[1], vec![attrs.str_or("default_string", "_Unused")?.to_string()]),
        d if d.is_float() => Tensor::from_f32s(d, &[1], vec![attrs.float_or("default_float", -0.0)?]),
        d => Tensor::from_i64s(d, &[1], vec![attrs.int_or("default_int64", -1)?]),
    }
}

fn infer_encoded(cx: &InferCx) -> Result<Vec<ValueType>> {
    let Some(dtype) = cx.dtype(0)? else { return Ok(vec![ValueType::Unknown]) };
    let (_, values) = pairs(cx.attrs, dtype)?;
    Ok(vec![tensor_type(Some(values.dtype()), cx.shape(0).map(<[Dim]>::to_vec))])
}

/// What two equal elements have in common; NaN equals itself here.
#[derive(PartialEq, Eq, Hash)]
enum Key<'a> {
    Text(&'a str),
    Int(i64),
    Float(u64),
}

fn keys(t: &Tensor) -> Result<Vec<Key<'_>>> {
    let float = |x: f64| Key::Float(if x.is_nan() { f64::NAN.to_bits() } else { (x + 0.0).to_bits() });
    Ok(match t.dtype() {
        String => t.string_data()?.iter().map(|s| Key::Text(s)).collect(),
        d if d.is_float() => t.to_f64s()?.into_iter().map(float).collect(),
        _ => t.to_i64s()?.into_iter().map(Key::Int).collect(),
    })
}

fn encode(cx: &EvalCx) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let (known, values) = pairs(cx.attrs, x.dtype())?;
    if (known.dtype() == String, known.dtype().is_float()) != (x.dtype() == String, x.dtype().is_float()) {
        return Err(Error::model(format!("keys are {}, X is {}", known.dtype(), x.dtype())));
    }
    let default = default(cx.attrs, values.dtype())?;
    if values.dtype() == String {
        budget::check_texts(x.len())?;
    }
    let mut places = FxHashMap::default();
    for (i, k) in keys(&known)?.into_iter().enumerate() {
        places.entry(k).or_insert(i);
    }
    let found: Vec<Option<usize>> = keys(x)?.iter().map(|k| places.get(k).copied()).collect();
    let (dtype, shape) = (values.dtype(), x.shape());
    fn pick<T: Clone>(found: &[Option<usize>], values: &[T], default: &[T]) -> Vec<T> {
        found.iter().map(|i| i.map_or(&default[0], |i| &values[i]).clone()).collect()
    }
    Ok(one(match dtype {
        String => Tensor::strings(shape, pick(&found, values.string_data()?, default.string_data()?))?,
        d if d.is_float() => {
            Tensor::from_f64s(d, shape, pick(&found, &values.to_f64s()?, &default.to_f64s()?))?
        }
        d => Tensor::from_i64s(d, shape, pick(&found, &values.to_i64s()?, &default.to_i64s()?))?,
    }))
}

/// An encoder of version 1, which counts its classes, as one of today's.
fn newer(g: &mut Graph, id: NodeId, lookup: &dyn Lookup) -> Result<Option<Vec<Option<ValueId>>>> {
    let node = g.node(id)?;
    let Some(classes) = node.attrs.strs("classes_strings")?.map(<[_]>::to_vec) else { return Ok(None) };
    let x = node.input(0).ok_or_else(|| Error::model("input 0 is missing"))?;
    let Some(dtype) = g.dtype(x) else { return Ok(None) };
    let (mut attrs, numbers) = (node.attrs.clone(), (0..classes.len() as i64).collect::<Vec<_>>());
    attrs.remove("classes_strings");
    let text = dtype == String;
    attrs.set(if text { "keys_strings" } else { "values_strings" }, classes);
    attrs.set(if text { "values_int64s" } else { "keys_int64s" }, numbers);
    let name = node.name.clone();
    Ok(Some(vec![Some(g.apply(&name, lookup.require(DOMAIN, "LabelEncoder")?, attrs, &[x]))]))
}

fn categories(attrs: &Attrs) -> Result<Tensor> {
    let numbers = attrs.ints("cats_int64s")?.filter(|n| !n.is_empty());
    let all = match numbers {
        Some(n) => Some(Tensor::vector(n.to_vec())),
        None => strings(attrs, "cats_strings")?,
    };
    all.filter(|t| !t.is_empty()).ok_or_else(|| Error::model("no categories"))
}

fn infer_one_hot(cx: &InferCx) -> Result<Vec<ValueType>> {
    let n = Dim::Known(categories(cx.attrs)?.len());
    let shape = cx.shape(0).map(|s| [s, &[n]].concat());
    Ok(vec![tensor_type(Some(F32), shape)])
}

fn one_hot(cx: &EvalCx) -> Result<Vec<Value>> {
    let (x, known) = (cx.tensor(0)?, categories(cx.attrs)?);
    if (x.dtype() == String) != (known.dtype() == String) {
        return Err(Error::model(format!("categories are {}, X is {}", known.dtype(), x.dtype())));
    }
    // Numbers are cut to integers before they are looked up.
    let whole;
    let x_keys = match x.dtype() {
        d if d.is_float() => {
            whole = Tensor::vector(x.to_f64s()?.into_iter().map(|v| v as i64).collect::<Vec<_>>());
            keys(&whole)?
        }
        _ => keys(x)?,
    };
    // Of equal categories the last counts.
    let places: FxHashMap<Key, usize> = keys(&known)?.into_iter().zip(0..).collect();
    let shape = [x.shape(), &[known.len()]].concat();
    let mut y = budget::filled(budget::elements(&shape)?, 0f32)?;
    let zeros = cx.attrs.int_or("zeros", 1)? != 0;
    for (k, line) in x_keys.iter().zip(y.chunks_mut(known.len())) {
        match places.get(k) {
            Some(&i) => line[i] = 1.0,
            None if zeros => {}
            None => return Err(Error::data("a value is none of the categories, and zeros is 0")),
        }
    }
    Ok(one(Tensor::new(&shape, y)?))
}
