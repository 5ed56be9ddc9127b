//! `TensorProto` and `SparseTensorProto` as tensors; large data stays mapped.

use crate::external::Folder;
use crate::mmap::Mapped;
use crate::proto::{DataLocation, SparseTensorProto, TensorProto};
use crate::wire;
use ir::{Bytes, DType, Error, Result, Tensor, budget};
use std::sync::Arc;

/// Where tensors' bytes are: the model file itself and the folder of external data.
pub struct Source {
    pub file: Arc<Mapped>,
    pub folder: Folder,
}

/// Dims of a file as sizes.
pub fn dims(raw: &[i64]) -> Result<Vec<usize>> {
    let dims: Result<Vec<usize>> = raw
        .iter()
        .map(|&d| usize::try_from(d).map_err(|_| Error::model(format!("dimension {d} is negative"))))
        .collect();
    let dims = dims?;
    budget::elements(&dims)?;
    Ok(dims)
}

/// The tensor, named in errors.
pub fn read(t: &TensorProto, source: &Source) -> Result<Tensor> {
    read_unnamed(t, source).map_err(|e| if t.name.is_empty() { e } else { e.tensor(t.name.as_str()) })
}

fn read_unnamed(t: &TensorProto, source: &Source) -> Result<Tensor> {
    let dtype = DType::from_onnx(t.data_type)
        .ok_or_else(|| Error::unsupported(format!("element type number {}", t.data_type)))?;
    let shape = dims(&t.dims)?;
    if t.data_location.enum_value() == Ok(DataLocation::EXTERNAL) {
        return external(t, dtype, &shape, source);
    }
    if dtype == DType::String {
        let strings = t
            .string_data
            .iter()
            .map(|s| {
                String::from_utf8(s.clone()).map_err(|_| Error::unsupported("a string that is not UTF-8"))
            })
            .collect::<Result<Vec<_>>>()?;
        if strings.len() != budget::elements(&shape)? {
            return Err(Error::model(format!("shape {shape:?} does not hold {} strings", strings.len())));
        }
        return Tensor::strings(&shape, strings);
    }
    if let Some((offset, len)) = wire::cut_position(&t.doc_string) {
        return exact(dtype, &shape, Arc::clone(&source.file) as Arc<dyn Bytes>, offset, len);
    }
    let n = budget::elements(&shape)?;
    if !t.raw_data.is_empty() || n == 0 {
        return Tensor::from_bytes(dtype, &shape, t.raw_data.clone());
    }
    typed(t, dtype, &shape, n)
}

fn exact(dtype: DType, shape: &[usize], bytes: Arc<dyn Bytes>, offset: usize, len: usize) -> Result<Tensor> {
    let want = dtype.storage_bytes(budget::elements(shape)?);
    if want != len {
        return Err(Error::model(format!("{dtype} {shape:?} needs {want} bytes, the file holds {len}")));
    }
    Tensor::mapped(dtype, shape, bytes, offset)
}

fn external(t: &TensorProto, dtype: DType, shape: &[usize], source: &Source) -> Result<Tensor> {
    let entry = |key: &str| t.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
    let location = entry("location").ok_or_else(|| Error::model("external data without a location"))?;
    let number = |key: &str| -> Result<Option<u64>> {
        entry(key)
            .map(|v| {
                v.parse().map_err(|_| Error::model(format!("external data: {key} '{v}' is not a number")))
            })
            .transpose()
    };
    if dtype == DType::String {
        return Err(Error::model("strings cannot be external data"));
    }
    let want = dtype.storage_bytes(budget::elements(shape)?) as u64;
    let (file, offset, len) = source.folder.range(
        location,
        number("offset")?.unwrap_or(0),
        Some(number("length")?.unwrap_or(want)),
    )?;
    exact(dtype, shape, file as Arc<dyn Bytes>, offset, len)
}

/// Data in the typed fields, which small types share (onnx.proto, comments of `int32_data`).
fn typed(t: &TensorProto, dtype: DType, shape: &[usize], n: usize) -> Result<Tensor> {
    use DType::*;
    let fits = |len: usize| {
        if len == n {
            Ok(())
        } else {
            Err(Error::model(format!("shape {shape:?} holds {n} elements, got {len}")))
        }
    };
    match dtype {
        F32 => fits(t.float_data.len()).and_then(|()| Tensor::new(shape, t.float_data.clone())),
        C64 => {
            let pairs: Vec<[f32; 2]> = t.float_data.chunks_exact(2).map(|c| [c[0], c[1]]).collect();
            fits(pairs.len()).and_then(|()| Tensor::new(shape, pairs))
        }
        F64 => fits(t.double_data.len()).and_then(|()| Tensor::new(shape, t.double_data.clone())),
        C128 => {
            let pairs: Vec<[f64; 2]> = t.double_data.chunks_exact(2).map(|c| [c[0], c[1]]).collect();
            fits(pairs.len()).and_then(|()| Tensor::new(shape, pairs))
        }
        I64 => fits(t.int64_data.len()).and_then(|()| Tensor::new(shape, t.int64_data.clone())),
        U64 => fits(t.uint64_data.len()).and_then(|()| Tensor::new(shape, t.uint64_data.clone())),
        U32 => {
            let v: Vec<u32> = t.uint64_data.iter().map(|&x| x as u32).collect();
            fits(v.len()).and_then(|()| Tensor::new(shape, v))
        }
        F16 | BF16 => {
            let bytes: Vec<u8> = t.int32_data.iter().flat_map(|&x| (x as u16).to_le_bytes()).collect();
            fits(t.int32_data.len()).and_then(|()| Tensor::from_bytes(dtype, shape, bytes))
        }
        F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 => {
            let bytes: Vec<u8> = t.int32_data.iter().map(|&x| x as u8).collect();
            fits(bytes.len()).and_then(|()| Tensor::from_bytes(dtype, shape, bytes))
        }
        // Each number carries one packed byte.
        U4 | I4 | F4E2M1 | U2 | I2 => {
            Tensor::from_bytes(dtype, shape, t.int32_data.iter().map(|&x| x as u8).collect())
        }
        _ => {
            fits(t.int32_data.len())?;
            Tensor::from_i64s(dtype, shape, t.int32_data.iter().map(|&x| i64::from(x)).collect())
        }
    }
}

/// A sparse tensor written out densely.
pub fn read_sparse(s: &SparseTensorProto, source: &Source) -> Result<Tensor> {
    let name = s.values.name.clone();
    let dense = || -> Result<Tensor> {
        let values = read(&s.values, source)?;
        let indices = read(&s.indices, source)?;
        let shape = dims(&s.dims)?;
        budget::bytes(values.dtype(), &shape)?;
        let (bits, n) = (values.dtype().bits(), budget::elements(&shape)?);
        if bits < 8 {
            return Err(Error::unsupported(format!("sparse {}", values.dtype())));
        }
        let width = bits / 8;
        let mut bytes = budget::filled(n * width, 0u8)?;
        let flat = flat_indices(&indices, &shape, values.len())?;
        for (i, value) in flat.into_iter().zip(values.bytes().chunks_exact(width)) {
            bytes[i * width..(i + 1) * width].copy_from_slice(value);
        }
        Tensor::from_bytes(values.dtype(), &shape, bytes)
    };
    dense().map_err(|e| e.tensor(name))
}

fn flat_indices(indices: &Tensor, shape: &[usize], count: usize) -> Result<Vec<usize>> {
    let (raw, n) = (indices.to_i64s()?, budget::elements(shape)?);
    let rows = match indices.shape() {
        [k] if *k == count => 1,
        [k, r] if *k == count && *r == shape.len() => *r,
        s => return Err(Error::model(format!("sparse indices of shape {s:?} for {count} values"))),
    };
    let out = |row: &[i64]| -> Option<usize> {
        if rows == 1 && indices.rank() == 1 {
            return usize::try_from(row[0]).ok().filter(|&i| i < n);
        }
        row.iter()
            .zip(shape)
            .try_fold(0usize, |acc, (&i, &d)| usize::try_from(i).ok().filter(|&i| i < d).map(|i| acc * d + i))
    };
    if rows == 0 {
        return Err(Error::model("sparse indices without columns"));
    }
    raw.chunks_exact(rows)
        .map(|r| out(r).ok_or_else(|| Error::model(format!("sparse index {r:?} is out of bounds"))))
        .collect()
}
