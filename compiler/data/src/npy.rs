//! The npy format (NumPy Enhancement Proposal 1): one array with a textual header.

use ir::{DType, Error, Result, Tensor, budget};
use std::io::Write;

const MAGIC: &[u8] = b"\x93NUMPY";
const MAX_HEADER: usize = 1 << 16;

/// Parses a whole npy file.
pub fn parse(bytes: &[u8]) -> Result<Tensor> {
    let bad = |what: &str| Error::data(format!("not an npy array: {what}"));
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| bad("wrong magic"))?;
    let (start, len) = match rest {
        [1, _, a, b, ..] => (10, usize::from(u16::from_le_bytes([*a, *b]))),
        [2 | 3, _, a, b, c, d, ..] => (12, u32::from_le_bytes([*a, *b, *c, *d]) as usize),
        _ => return Err(bad("unknown version")),
    };
    if len > MAX_HEADER {
        return Err(bad("header too long"));
    }
    let header = bytes.get(start..start + len).ok_or_else(|| bad("cut short"))?;
    let header = std::str::from_utf8(header).map_err(|_| bad("header is not text"))?;
    let (dtype, swap) = descr(value(header, "descr").ok_or_else(|| bad("no descr"))?)?;
    let fortran = value(header, "fortran_order").is_some_and(|v| v.starts_with("True"));
    let shape =
        shape(value(header, "shape").ok_or_else(|| bad("no shape"))?).ok_or_else(|| bad("bad shape"))?;
    let need = budget::bytes(dtype, &shape)?;
    let data = bytes.get(start + len..).unwrap_or_default();
    let data = data.get(..need).ok_or_else(|| bad("data cut short"))?;
    let mut owned = budget::vec(need)?;
    owned.extend_from_slice(data);
    let width = dtype.bits() / 8;
    if swap && width > 1 {
        let word = if matches!(dtype, DType::C64 | DType::C128) { width / 2 } else { width };
        owned.chunks_exact_mut(word).for_each(<[u8]>::reverse);
    }
    if fortran && shape.len() > 1 {
        owned = row_major(&owned, &shape, width)?;
    }
    Tensor::from_bytes(dtype, &shape, owned)
}

/// Text after `'key':`.
fn value<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let at = header.find(&format!("'{key}'")).or_else(|| header.find(&format!("\"{key}\"")))?;
    Some(header[at + key.len() + 2..].trim_start().strip_prefix(':')?.trim_start())
}

fn descr(v: &str) -> Result<(DType, bool)> {
    let quote = v.chars().next().filter(|c| matches!(c, '\'' | '"'));
    let name = quote.and_then(|q| v[1..].split(q).next()).unwrap_or_default();
    let (order, kind) = match name.as_bytes().first() {
        Some(b'<' | b'|' | b'=') => (false, &name[1..]),
        Some(b'>') => (true, &name[1..]),
        _ => (false, name),
    };
    let dtype = match kind {
        "f4" => DType::F32,
        "f8" => DType::F64,
        "f2" => DType::F16,
        "i1" => DType::I8,
        "i2" => DType::I16,
        "i4" => DType::I32,
        "i8" => DType::I64,
        "u1" => DType::U8,
        "u2" => DType::U16,
        "u4" => DType::U32,
        "u8" => DType::U64,
        "b1" => DType::Bool,
        "c8" => DType::C64,
        "c16" => DType::C128,
        _ => {
            return Err(Error::data(format!(
                "npy arrays of type '{}' are not supported",
                name.escape_debug()
            )));
        }
    };
    Ok((dtype, order))
}

fn shape(v: &str) -> Option<Vec<usize>> {
    let inner = v.strip_prefix('(')?.split(')').next()?;
    let dims: Option<Vec<usize>> =
        inner.split(',').map(str::trim).filter(|s| !s.is_empty()).map(|s| s.parse().ok()).collect();
    dims.filter(|d| d.len() <= budget::MAX_RANK)
}

fn row_major(data: &[u8], shape: &[usize], width: usize) -> Result<Vec<u8>> {
    let mut out = budget::vec(data.len())?;
    let mut index = vec![0usize; shape.len()];
    for _ in 0..data.len() / width.max(1) {
        let mut at = 0;
        for (i, d) in index.iter().zip(shape).rev() {
            at = at * d + i;
        }
        out.extend_from_slice(&data[at * width..(at + 1) * width]);
        for d in (0..shape.len()).rev() {
            index[d] += 1;
            if index[d] < shape[d] {
                break;
            }
            index[d] = 0;
        }
    }
    Ok(out)
}

/// Writes one array; the tensor must be of a type numpy has (see [`crate::to_array`]).
pub fn write(w: &mut impl Write, t: &Tensor) -> std::io::Result<()> {
    let descr = match t.dtype() {
        DType::F32 => "<f4",
        DType::F64 => "<f8",
        DType::F16 => "<f2",
        DType::I8 => "|i1",
        DType::I16 => "<i2",
        DType::I32 => "<i4",
        DType::I64 => "<i8",
        DType::U8 => "|u1",
        DType::U16 => "<u2",
        DType::U32 => "<u4",
        DType::U64 => "<u8",
        DType::Bool => "|b1",
        DType::C64 => "<c8",
        DType::C128 => "<c16",
        d => return Err(std::io::Error::other(format!("npy has no {d}"))),
    };
    let dims: Vec<String> = t.shape().iter().map(usize::to_string).collect();
    let tuple = if dims.len() == 1 { format!("({},)", dims[0]) } else { format!("({})", dims.join(", ")) };
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {tuple}, }}");
    // The data starts at a multiple of 64 bytes.
    let pad = (64 - (10 + header.len() + 1) % 64) % 64;
    header.extend(std::iter::repeat_n(' ', pad));
    header.push('\n');
    w.write_all(MAGIC)?;
    w.write_all(&[1, 0])?;
    w.write_all(&(header.len() as u16).to_le_bytes())?;
    w.write_all(header.as_bytes())?;
    w.write_all(t.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_it_reads() {
        for shape in [&[][..], &[3], &[2, 3], &[0, 4]] {
            let n: usize = shape.iter().product();
            let t = Tensor::new(shape, (0..n as i32).collect()).unwrap();
            let mut bytes = Vec::new();
            write(&mut bytes, &t).unwrap();
            assert_eq!(parse(&bytes).unwrap(), t);
        }
    }

    #[test]
    fn fortran_order_and_big_endian() {
        let mut bytes = Vec::new();
        bytes.extend(MAGIC);
        bytes.extend([1, 0]);
        let header = "{'descr': '>i2', 'fortran_order': True, 'shape': (2, 3), }\n";
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        for v in [1i16, 4, 2, 5, 3, 6] {
            bytes.extend(v.to_be_bytes());
        }
        assert_eq!(&*parse(&bytes).unwrap().data::<i16>().unwrap(), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn hostile_headers_are_errors() {
        let t = Tensor::vector(vec![1f32; 8]);
        let mut bytes = Vec::new();
        write(&mut bytes, &t).unwrap();
        for n in 0..bytes.len() {
            assert!(parse(&bytes[..n]).is_err());
        }
        let text = String::from_utf8_lossy(&bytes[10..]).into_owned();
        let huge = text.replace("(8,)", "(99999999999999,)");
        let mut bad = bytes[..8].to_vec();
        bad.extend((huge.len() as u16).to_le_bytes());
        bad.extend(huge.as_bytes());
        assert!(parse(&bad).is_err());
    }
}
