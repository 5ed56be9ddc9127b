//! The npy format (NumPy Enhancement Proposal 1): one array with a textual header.

use ir::{DType, Error, Result, Tensor, budget};
use std::io::{Read, Write};

const MAGIC: &[u8] = b"\x93NUMPY";
const MAX_HEADER: usize = 1 << 16;
/// Longest string of a string array, in characters.
const MAX_STRING: usize = 1 << 20;

/// How the elements of an array are stored.
#[derive(Clone, Copy)]
struct Element {
    dtype: DType,
    big_endian: bool,
    /// Bytes of one element.
    width: usize,
}

/// Parses a whole npy file.
pub fn parse(bytes: &[u8]) -> Result<Tensor> {
    read(&mut &*bytes)
}

/// Reads one array; what follows it is left unread.
pub fn read(r: &mut impl Read) -> Result<Tensor> {
    let mut fixed = [0u8; 8];
    fill(r, &mut fixed)?;
    let len = match (fixed.strip_prefix(MAGIC), fixed[6]) {
        (None, _) => return Err(bad("wrong magic")),
        (_, 1) => {
            let mut n = [0u8; 2];
            fill(r, &mut n)?;
            usize::from(u16::from_le_bytes(n))
        }
        (_, 2 | 3) => {
            let mut n = [0u8; 4];
            fill(r, &mut n)?;
            usize::try_from(u32::from_le_bytes(n)).unwrap_or(usize::MAX)
        }
        _ => return Err(bad("unknown version")),
    };
    if len > MAX_HEADER {
        return Err(bad("header too long"));
    }
    let mut header = vec![0u8; len];
    fill(r, &mut header)?;
    let header = std::str::from_utf8(&header).map_err(|_| bad("header is not text"))?;
    let element = descr(value(header, "descr").ok_or_else(|| bad("no descr"))?)?;
    let fortran = value(header, "fortran_order").is_some_and(|v| v.starts_with("True"));
    let shape =
        shape(value(header, "shape").ok_or_else(|| bad("no shape"))?).ok_or_else(|| bad("bad shape"))?;
    let data = elements(r, element, &shape)?;
    let data = if fortran && shape.len() > 1 { row_major(&data, &shape, element.width)? } else { data };
    if element.dtype == DType::String {
        return Tensor::strings(&shape, data.chunks_exact(element.width).map(text).collect::<Result<_>>()?);
    }
    Tensor::from_bytes(element.dtype, &shape, data)
}

fn bad(what: &str) -> Error {
    Error::data(format!("not an npy array: {what}"))
}

fn fill(r: &mut impl Read, to: &mut [u8]) -> Result<()> {
    r.read_exact(to).map_err(|_| bad("cut short"))
}

/// The elements' bytes in little-endian order.
fn elements(r: &mut impl Read, e: Element, shape: &[usize]) -> Result<Vec<u8>> {
    let need = budget::elements(shape)?.checked_mul(e.width).ok_or_else(|| bad("too large"))?;
    // Reserved memory is touched only as far as there is data.
    let mut data = budget::vec(need)?;
    let limit = u64::try_from(need).map_err(|_| bad("too large"))?;
    r.take(limit).read_to_end(&mut data).map_err(|e| bad(&e.to_string()))?;
    if data.len() != need {
        return Err(bad("data cut short"));
    }
    let word = match e.dtype {
        DType::C64 | DType::C128 => e.width / 2,
        DType::String => 4,
        _ => e.width,
    };
    if e.big_endian && word > 1 {
        data.chunks_exact_mut(word).for_each(<[u8]>::reverse);
    }
    Ok(data)
}

/// One element of a string array: UTF-32, filled up with zeros.
fn text(element: &[u8]) -> Result<String> {
    let codes = element.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]]));
    let s: Option<String> = codes.map(char::from_u32).collect();
    s.map(|s| s.trim_end_matches('\0').to_string()).ok_or_else(|| bad("not Unicode"))
}

/// Text after `'key':`.
fn value<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let at = header.find(&format!("'{key}'")).or_else(|| header.find(&format!("\"{key}\"")))?;
    Some(header[at + key.len() + 2..].trim_start().strip_prefix(':')?.trim_start())
}

fn descr(v: &str) -> Result<Element> {
    let quote = v.chars().next().filter(|c| matches!(c, '\'' | '"'));
    let name = quote.and_then(|q| v[1..].split(q).next()).unwrap_or_default();
    let big_endian = name.starts_with('>');
    let kind = name.trim_start_matches(['<', '>', '|', '=']);
    if let Some(n) = kind.strip_prefix('U') {
        let n: usize = n.parse().ok().filter(|&n| n <= MAX_STRING).ok_or_else(|| bad("bad string length"))?;
        return Ok(Element { dtype: DType::String, big_endian, width: n.max(1) * 4 });
    }
    let known = TYPES.iter().find(|(k, _)| *k == kind).map(|(_, d)| *d);
    let dtype = known.ok_or_else(|| {
        Error::data(format!("npy arrays of type '{}' are not supported", name.escape_debug()))
    })?;
    Ok(Element { dtype, big_endian, width: dtype.bits() / 8 })
}

/// numpy's type codes.
const TYPES: &[(&str, DType)] = &[
    ("f4", DType::F32),
    ("f8", DType::F64),
    ("f2", DType::F16),
    ("i1", DType::I8),
    ("i2", DType::I16),
    ("i4", DType::I32),
    ("i8", DType::I64),
    ("u1", DType::U8),
    ("u2", DType::U16),
    ("u4", DType::U32),
    ("u8", DType::U64),
    ("b1", DType::Bool),
    ("c8", DType::C64),
    ("c16", DType::C128),
];

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
    let bad = |e: String| std::io::Error::other(e);
    let strings = if t.dtype() == DType::String { t.string_data() } else { Ok(&[][..]) };
    let strings = strings.map_err(|e| bad(e.to_string()))?;
    let longest = strings.iter().map(|s| s.chars().count()).max().unwrap_or(0).max(1);
    let descr = match TYPES.iter().find(|(_, d)| *d == t.dtype()) {
        Some((code, d)) => format!("{}{code}", if d.bits() == 8 { '|' } else { '<' }),
        None if t.dtype() == DType::String => format!("<U{longest}"),
        None => return Err(bad(format!("npy has no {}", t.dtype()))),
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
    for s in strings {
        let codes = s.chars().map(u32::from).chain(std::iter::repeat(0)).take(longest);
        codes.map(u32::to_le_bytes).try_for_each(|c| w.write_all(&c))?;
    }
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
    fn strings_travel_as_unicode() {
        let t = Tensor::strings(&[3], vec!["".into(), "a".into(), "größe".into()]).unwrap();
        let mut bytes = Vec::new();
        write(&mut bytes, &t).unwrap();
        assert_eq!(parse(&bytes).unwrap(), t);
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
