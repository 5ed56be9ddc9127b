//! Tensor elements as text: decimals for numbers, bit patterns for half and smaller floats, strings in quotes.

use super::lex::Token;
use crate::{DType, Error, Result, Tensor, budget};
use std::fmt::Write;

/// How the elements of a type are written.
enum Form {
    Text,
    Signed,
    /// Also the bits of small floats, as ONNX stores them in `int32_data`.
    Unsigned,
    F32,
    F64,
}

fn form(d: DType) -> Form {
    match d {
        DType::String => Form::Text,
        DType::F32 | DType::C64 => Form::F32,
        DType::F64 | DType::C128 => Form::F64,
        d if d.is_signed_int() => Form::Signed,
        _ => Form::Unsigned,
    }
}

/// `text` in quotes, with quotes and backslashes escaped.
pub fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Shortest decimal that reads back as the same number.
pub fn float(x: f32) -> String {
    if x.is_nan() { "nan".to_string() } else { format!("{x:?}") }
}

/// The elements in braces.
pub fn print(t: &Tensor, out: &mut String) -> Result<()> {
    out.push('{');
    let mut list = Separated { out, first: true };
    match form(t.dtype()) {
        Form::Text => t.string_data()?.iter().for_each(|s| list.push(&quote(s))),
        Form::Signed => t.to_i64s()?.iter().for_each(|x| list.push(&x.to_string())),
        Form::Unsigned => unsigned(t)?.iter().for_each(|x| list.push(&x.to_string())),
        // A NaN other than the usual one keeps its bits.
        Form::F32 => words::<4>(t).for_each(|w| {
            let x = f32::from_le_bytes(w);
            let odd = x.is_nan() && x.to_bits() != f32::NAN.to_bits();
            list.push(&if odd { format!("\"0x{:08x}\"", x.to_bits()) } else { float(x) });
        }),
        Form::F64 => words::<8>(t).for_each(|w| {
            let x = f64::from_le_bytes(w);
            let odd = x.is_nan() && x.to_bits() != f64::NAN.to_bits();
            list.push(&match x.is_nan() {
                true if odd => format!("\"0x{:016x}\"", x.to_bits()),
                true => "nan".to_string(),
                false => format!("{x:?}"),
            });
        }),
    }
    out.push('}');
    Ok(())
}

struct Separated<'a> {
    out: &'a mut String,
    first: bool,
}

impl Separated<'_> {
    fn push(&mut self, item: &str) {
        let comma = if std::mem::replace(&mut self.first, false) { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = write!(self.out, "{comma}{item}");
    }
}

fn words<const W: usize>(t: &Tensor) -> impl Iterator<Item = [u8; W]> + '_ {
    t.bytes().as_chunks::<W>().0.iter().copied()
}

fn unsigned(t: &Tensor) -> Result<Vec<u64>> {
    Ok(match t.dtype().bits() {
        64 => words::<8>(t).map(u64::from_le_bytes).collect(),
        32 => words::<4>(t).map(|w| u64::from(u32::from_le_bytes(w))).collect(),
        16 => words::<2>(t).map(|w| u64::from(u16::from_le_bytes(w))).collect(),
        _ => t.unpacked()?.into_iter().map(u64::from).collect(),
    })
}

/// The tensor of this type and shape with these elements.
pub fn parse(dtype: DType, shape: &[usize], items: &[Token]) -> Result<Tensor> {
    let n = budget::elements(shape)?;
    let parts = if matches!(dtype, DType::C64 | DType::C128) { 2 } else { 1 };
    if n.checked_mul(parts) != Some(items.len()) {
        return Err(Error::model(format!("{} elements for {dtype} {shape:?}", items.len())));
    }
    match form(dtype) {
        Form::Text => {
            let strings = items.iter().map(|t| match t {
                Token::Str(s) => Ok(s.clone()),
                t => Err(Error::model(format!("expected a string, found {t:?}"))),
            });
            Tensor::strings(shape, strings.collect::<Result<_>>()?)
        }
        Form::Signed => {
            let all: Vec<i64> = items.iter().map(number::<i64>).collect::<Result<_>>()?;
            in_range(dtype, all.iter().map(|&x| i128::from(x)))?;
            Tensor::from_i64s(dtype, shape, all)
        }
        Form::Unsigned => from_unsigned(dtype, shape, items),
        Form::F32 => {
            let bits = |s: &str| u32::from_str_radix(s, 16).ok().map(f32::from_bits);
            stored(dtype, shape, items.iter().map(|t| real(t, bits)), |x: f32| x.to_le_bytes())
        }
        Form::F64 => {
            let bits = |s: &str| u64::from_str_radix(s, 16).ok().map(f64::from_bits);
            stored(dtype, shape, items.iter().map(|t| real(t, bits)), |x: f64| x.to_le_bytes())
        }
    }
}

fn from_unsigned(dtype: DType, shape: &[usize], items: &[Token]) -> Result<Tensor> {
    let all: Vec<u64> = items.iter().map(number::<u64>).collect::<Result<_>>()?;
    let bits = dtype.bits() as u32;
    if let Some(x) = all.iter().find(|x| bits < 64 && **x >> bits != 0) {
        return Err(Error::model(format!("{x} does not fit the {bits} bits of {dtype}")));
    }
    let all = all.into_iter().map(Ok);
    match bits {
        64 => stored(dtype, shape, all, u64::to_le_bytes),
        32 => stored(dtype, shape, all, |x| (x as u32).to_le_bytes()),
        16 => stored(dtype, shape, all, |x| (x as u16).to_le_bytes()),
        _ => {
            Tensor::from_unpacked(dtype, shape, &all.map(|x| x.map(|x| x as u8)).collect::<Result<Vec<_>>>()?)
        }
    }
}

fn stored<T, const W: usize>(
    dtype: DType,
    shape: &[usize],
    items: impl Iterator<Item = Result<T>>,
    bytes: impl Fn(T) -> [u8; W],
) -> Result<Tensor> {
    let mut out = budget::vec(budget::bytes(dtype, shape)?)?;
    for x in items {
        out.extend_from_slice(&bytes(x?));
    }
    Tensor::from_bytes(dtype, shape, out)
}

fn in_range(dtype: DType, values: impl Iterator<Item = i128>) -> Result<()> {
    let (lo, hi) = dtype.int_range().unwrap_or((i128::MIN, i128::MAX));
    match values.into_iter().find(|x| !(lo..=hi).contains(x)) {
        Some(x) => Err(Error::model(format!("{x} does not fit {dtype}"))),
        None => Ok(()),
    }
}

/// An integer or decimal as written.
pub fn number<T: std::str::FromStr>(t: &Token) -> Result<T> {
    match t {
        Token::Number(s) | Token::Word(s) => {
            s.parse().map_err(|_| Error::model(format!("'{s}' is not a number of this type")))
        }
        t => Err(Error::model(format!("expected a number, found {t:?}"))),
    }
}

fn real<T: std::str::FromStr>(t: &Token, bits: impl Fn(&str) -> Option<T>) -> Result<T> {
    match t {
        Token::Str(s) => s
            .strip_prefix("0x")
            .and_then(bits)
            .ok_or_else(|| Error::model(format!("{s:?} is not a bit pattern such as \"0x7fc00001\""))),
        t => number(t),
    }
}
