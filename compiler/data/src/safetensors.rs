//! The safetensors format: named arrays behind a JSON header.

use crate::npz;
use ir::{DType, Error, Result, Tensor, budget};
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// Longest header: parsing takes several times its size.
const MAX_HEADER: u64 = 16 << 20;

/// All arrays of a file by name.
pub fn read(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let named = |e: Error| Error { message: format!("{}: {}", path.display(), e.message), ..e };
    let file = npz::open(path)?;
    let size = file.metadata().map_or(0, |m| m.len());
    let mut bytes = budget::vec(usize::try_from(size).unwrap_or(usize::MAX)).map_err(named)?;
    file.take(size).read_to_end(&mut bytes).map_err(|e| named(unreadable(&e)))?;
    parse(&bytes).map_err(named)
}

fn unreadable(e: &dyn std::fmt::Display) -> Error {
    Error::data(format!("not a readable safetensors file: {e}"))
}

/// Parses a whole file.
pub fn parse(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>> {
    let header = bytes.first_chunk().map(|n| u64::from_le_bytes(*n));
    if header.is_some_and(|n| n > MAX_HEADER) {
        return Err(Error::limit(format!(
            "the header of a safetensors file is limited to {MAX_HEADER} bytes"
        )));
    }
    let file = SafeTensors::deserialize(bytes).map_err(|e| unreadable(&e))?;
    let mut arrays = BTreeMap::new();
    for (name, view) in file.iter() {
        let tensor = || {
            let dtype = dtype(view.dtype())?;
            budget::bytes(dtype, view.shape())?;
            Tensor::from_bytes(dtype, view.shape(), view.data().to_vec())
        };
        arrays.insert(name.to_string(), tensor().map_err(|e: Error| e.tensor(name))?);
    }
    Ok(arrays)
}

fn dtype(d: Dtype) -> Result<DType> {
    Ok(match d {
        Dtype::BOOL => DType::Bool,
        Dtype::U8 => DType::U8,
        Dtype::I8 => DType::I8,
        Dtype::U16 => DType::U16,
        Dtype::I16 => DType::I16,
        Dtype::U32 => DType::U32,
        Dtype::I32 => DType::I32,
        Dtype::U64 => DType::U64,
        Dtype::I64 => DType::I64,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
        Dtype::F8_E4M3 => DType::F8E4M3FN,
        Dtype::F8_E5M2 => DType::F8E5M2,
        Dtype::F8_E8M0 => DType::F8E8M0,
        Dtype::F4 => DType::F4E2M1,
        Dtype::C64 => DType::C64,
        other => return Err(Error::unsupported(format!("safetensors arrays of type {other:?}"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of one array with this header.
    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut f = Vec::from((header.len() as u64).to_le_bytes());
        f.extend(header.as_bytes());
        f.extend(data);
        f
    }

    #[test]
    fn arrays_come_by_name_and_type() {
        let header = r#"{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"y":{"dtype":"BF16","shape":[1,1],"data_offsets":[8,10]}}"#;
        let data = [1f32.to_le_bytes(), 2.5f32.to_le_bytes()].concat();
        let a = parse(&file(header, &[data, vec![0x80, 0x3f]].concat())).unwrap();
        assert_eq!(a["x"], Tensor::vector(vec![1f32, 2.5]));
        assert_eq!((a["y"].dtype(), a["y"].to_f64s().unwrap()), (DType::BF16, vec![1.0]));
    }

    #[test]
    fn hostile_headers_are_errors() {
        let good = r#"{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        let whole = file(good, &[0; 8]);
        for n in 0..whole.len() {
            assert!(parse(&whole[..n]).is_err(), "{n}");
            let mut b = whole.clone();
            b[n] ^= 0x11;
            drop(parse(&b));
        }
        for bad in [
            r#"{"x":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}}"#,
            r#"{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615]}}"#,
            r#"{"x":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#,
            r#"{"x":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}"#,
            r#"{"x":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#,
            &"[".repeat(100_000),
            "",
        ] {
            assert!(parse(&file(bad, &[0; 8])).is_err(), "{bad:.80}");
        }
        let mut huge = Vec::from(u64::MAX.to_le_bytes());
        huge.extend([b'{'; 64]);
        assert!(parse(&huge).is_err());
    }
}
