//! `TensorProto` and `SparseTensorProto` as tensors; large data stays mapped.

use crate::external::Folder;
use crate::mmap::Mapped;
use crate::proto::{DataLocation, SparseTensorProto, TensorProto};
use crate::wire::{self, Cut};
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
    if let Some(cut) = Cut::find(&t.doc_string) {
        return in_file(cut, dtype, &shape, source);
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

/// Data that stayed in the file: bytes and floats are used where they are, varints are decoded.
fn in_file(cut: Cut, dtype: DType, shape: &[usize], source: &Source) -> Result<Tensor> {
    let mapped = || exact(dtype, shape, Arc::clone(&source.file) as Arc<dyn Bytes>, cut.offset, cut.len);
    let bytes = cut.offset.checked_add(cut.len).and_then(|end| source.file.bytes().get(cut.offset..end));
    let bytes = bytes.ok_or_else(|| Error::internal("tensor data outside the file"))?;
    match cut.field {
        9 => mapped(),
        4 if matches!(dtype, DType::F32 | DType::C64) => mapped(),
        10 if matches!(dtype, DType::F64 | DType::C128) => mapped(),
        5 | 7 | 11 if integer_field(dtype) == Some(cut.field) => {
            integers(dtype, shape, wire::packed(bytes)?.into_iter())
        }
        _ => Err(Error::model(format!("{dtype} data in the field of another type"))),
    }
}

/// Data in the typed fields.
fn typed(t: &TensorProto, dtype: DType, shape: &[usize], n: usize) -> Result<Tensor> {
    let fits = |len: usize| {
        if len == n {
            Ok(())
        } else {
            Err(Error::model(format!("shape {shape:?} holds {n} elements, got {len}")))
        }
    };
    match (dtype, integer_field(dtype)) {
        (DType::F32, _) => fits(t.float_data.len()).and_then(|()| Tensor::new(shape, t.float_data.clone())),
        (DType::F64, _) => fits(t.double_data.len()).and_then(|()| Tensor::new(shape, t.double_data.clone())),
        (DType::C64, _) => {
            let pairs: Vec<[f32; 2]> = t.float_data.chunks_exact(2).map(|c| [c[0], c[1]]).collect();
            fits(pairs.len()).and_then(|()| Tensor::new(shape, pairs))
        }
        (DType::C128, _) => {
            let pairs: Vec<[f64; 2]> = t.double_data.chunks_exact(2).map(|c| [c[0], c[1]]).collect();
            fits(pairs.len()).and_then(|()| Tensor::new(shape, pairs))
        }
        (_, Some(7)) => integers(dtype, shape, t.int64_data.iter().map(|x| x.cast_unsigned())),
        (_, Some(11)) => integers(dtype, shape, t.uint64_data.iter().copied()),
        _ => integers(dtype, shape, t.int32_data.iter().map(|&x| i64::from(x).cast_unsigned())),
    }
}

/// Number of the field that holds integers, and bit patterns of small floats (onnx.proto, comments of `int32_data`).
fn integer_field(dtype: DType) -> Option<u32> {
    match dtype {
        DType::F32 | DType::F64 | DType::C64 | DType::C128 | DType::String => None,
        DType::I64 => Some(7),
        DType::U32 | DType::U64 => Some(11),
        _ => Some(5),
    }
}

/// A tensor from integers, each cut to the width of `dtype`; of types below a byte each number is one packed byte.
fn integers(dtype: DType, shape: &[usize], values: impl ExactSizeIterator<Item = u64>) -> Result<Tensor> {
    let n = budget::elements(shape)?;
    let (width, count) = match dtype.bits() {
        b if b < 8 => (1, dtype.storage_bytes(n)),
        b => (b / 8, n),
    };
    if values.len() != count {
        let len = values.len();
        return Err(Error::model(format!(
            "shape {shape:?} holds {n} elements of {dtype}, got {len} numbers"
        )));
    }
    let mut bytes = budget::vec(count.saturating_mul(width))?;
    values.for_each(|v| bytes.extend_from_slice(&v.to_le_bytes()[..width]));
    if dtype == DType::Bool {
        bytes.iter_mut().for_each(|b| *b = u8::from(*b != 0));
    }
    Tensor::from_bytes(dtype, shape, bytes)
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

#[cfg(test)]
mod tests;
