//! Tensors and descriptions that cross the interface.

use crate::status::{Failure, argument};
use ir::{DType, Tensor};
use runtime::Input;
use std::ffi::{CStr, CString, c_char, c_void};

/// Element types, by their ONNX numbers. Others than these occur in models but cannot be passed.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum compress_dtype {
    COMPRESS_FLOAT = 1,
    COMPRESS_UINT8 = 2,
    COMPRESS_INT8 = 3,
    COMPRESS_UINT16 = 4,
    COMPRESS_INT16 = 5,
    COMPRESS_INT32 = 6,
    COMPRESS_INT64 = 7,
    /// One byte each, 0 or 1.
    COMPRESS_BOOL = 9,
    /// IEEE half precision.
    COMPRESS_FLOAT16 = 10,
    COMPRESS_DOUBLE = 11,
    COMPRESS_UINT32 = 12,
    COMPRESS_UINT64 = 13,
    COMPRESS_BFLOAT16 = 16,
}

/// A tensor in memory: row-major, little-endian, without gaps.
#[repr(C)]
pub struct compress_tensor {
    /// Name of the input or output, ends with 0.
    pub name: *const c_char,
    /// A compress_dtype.
    pub dtype: i32,
    /// First element. It may be null when there are no elements.
    pub data: *const c_void,
    /// Bytes at `data`; must be exactly what type and shape need.
    pub bytes: usize,
    /// Sizes of the dims, outermost first. It may be null when the rank is 0.
    pub shape: *const usize,
    /// Number of dims.
    pub rank: usize,
}

/// What a model says of one of its inputs or outputs.
#[repr(C)]
pub struct compress_port {
    /// Its name, ends with 0.
    pub name: *const c_char,
    /// The ONNX number of its element type, 0 when it is no tensor.
    pub dtype: i32,
    /// Sizes of the dims, -1 where any size will do. Null when the rank is open too.
    pub shape: *const i64,
    /// Number of dims.
    pub rank: usize,
}

/// Most dims a tensor may have.
const RANK: usize = 64;

/// The text of a C string.
///
/// # Safety
/// `p` is null or points to bytes that end with 0.
pub unsafe fn text<'a>(p: *const c_char, what: &str) -> Result<&'a str, Failure> {
    if p.is_null() {
        return Err(argument(format!("{what} is null")));
    }
    // SAFETY: not null; the rest is the caller's contract.
    unsafe { CStr::from_ptr(p) }.to_str().map_err(|_| argument(format!("{what} is not UTF-8")))
}

/// `len` elements at `p`.
///
/// # Safety
/// `p` is null or points to `len` elements that live as long as the call.
pub unsafe fn slice<'a, T>(p: *const T, len: usize, what: &str) -> Result<&'a [T], Failure> {
    if len == 0 {
        return Ok(&[]);
    }
    if p.is_null() {
        return Err(argument(format!("{what} is null")));
    }
    if !p.is_aligned() || len.checked_mul(size_of::<T>()).is_none_or(|b| b > isize::MAX as usize) {
        return Err(argument(format!("{what} is not aligned or too long")));
    }
    // SAFETY: not null, aligned and no longer than memory can be; the rest is the caller's contract.
    Ok(unsafe { std::slice::from_raw_parts(p, len) })
}

/// The type that crosses the interface under this number.
fn dtype(number: i32) -> Result<DType, Failure> {
    use DType::*;
    let passed = [F32, U8, I8, U16, I16, I32, I64, Bool, F16, F64, U32, U64, BF16];
    let found = DType::from_onnx(number).filter(|d| passed.contains(d));
    found.ok_or_else(|| argument(format!("{number} is no compress_dtype")))
}

impl compress_tensor {
    /// The caller's tensor, its elements still where they are.
    ///
    /// # Safety
    /// The pointers are null or point to what the fields say, for as long as `'a`.
    pub unsafe fn read<'a>(&self) -> Result<(&'a str, Input<'a>), Failure> {
        // SAFETY: the caller's contract.
        let name = unsafe { text(self.name, "the name of an input") }?;
        let dtype = dtype(self.dtype)?;
        if self.rank > RANK {
            return Err(argument(format!("input '{name}' has {} dims", self.rank)));
        }
        // SAFETY: as above.
        let shape = unsafe { slice(self.shape, self.rank, "the shape of an input") }?;
        let needed = dtype.storage_bytes(ir::budget::elements(shape)?);
        if needed != self.bytes {
            let bytes = self.bytes;
            return Err(argument(format!(
                "input '{name}': {dtype} {shape:?} needs {needed} bytes, not {bytes}"
            )));
        }
        // SAFETY: as above.
        let data = unsafe { slice(self.data.cast::<u8>(), self.bytes, "the data of an input") }?;
        Ok((name, Input::lent(dtype, shape, data)))
    }

    /// A view of `t`, for as long as it and its name live.
    pub fn view(name: &CStr, t: &Tensor) -> compress_tensor {
        compress_tensor {
            name: name.as_ptr(),
            dtype: t.dtype().onnx(),
            data: t.bytes().as_ptr().cast(),
            bytes: t.bytes().len(),
            shape: t.shape().as_ptr(),
            rank: t.rank(),
        }
    }
}

/// A name for C: what it cannot hold is replaced.
pub fn name(s: &str) -> CString {
    CString::new(s.replace('\0', "\u{fffd}")).unwrap_or_default()
}
