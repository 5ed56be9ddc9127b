//! Immutable tensors: row-major bytes, owned or mapped, shared by reference count.

use crate::{DType, Error, Result, budget, minifloat};
use bytemuck::Pod;
use half::{bf16, f16};
use ndarray::{ArrayD, CowArray, IxDyn};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::sync::Arc;

pub type Shape = SmallVec<[usize; 6]>;

/// Memory that a tensor may borrow for as long as it lives, such as a mapped file.
pub trait Bytes: Send + Sync {
    fn bytes(&self) -> &[u8];

    /// Says that a range will not be read soon: memory that can be had again, such as pages of a file, may go. The bytes
    /// stay readable and the same.
    fn release(&self, _offset: usize, _len: usize) {}

    /// Says that a range will be read at once, so that its pages may be made ready together.
    fn prefetch(&self, _offset: usize, _len: usize) {}
}

impl Bytes for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

struct Owned<T> {
    data: Vec<T>,
    _charge: budget::Charge,
}

impl<T: Pod + Send + Sync> Bytes for Owned<T> {
    fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.data)
    }
}

#[derive(Clone)]
enum Storage {
    Bytes { source: Arc<dyn Bytes>, offset: usize, len: usize },
    Strings(Arc<[String]>),
}

/// An n-dimensional value. Sub-byte types are packed low bits first, as in ONNX `raw_data`; booleans are bytes.
#[derive(Clone)]
pub struct Tensor {
    dtype: DType,
    shape: Shape,
    storage: Storage,
}

/// A Rust type that stands for one [`DType`].
pub trait Element: Copy + Send + Sync + 'static {
    const DTYPE: DType;
    /// Elements of little-endian `bytes`, borrowed when aligned and valid.
    fn read(bytes: &[u8]) -> Cow<'_, [Self]>;
    fn store(data: Vec<Self>) -> Arc<dyn Bytes>;
}

macro_rules! elements {
    ($($t:ty => $d:ident),* $(,)?) => {$(
        impl Element for $t {
            const DTYPE: DType = DType::$d;
            fn read(bytes: &[u8]) -> Cow<'_, [Self]> {
                match bytemuck::try_cast_slice(bytes) {
                    Ok(s) => Cow::Borrowed(s),
                    Err(_) => Cow::Owned(bytes.chunks_exact(size_of::<$t>()).map(bytemuck::pod_read_unaligned).collect()),
                }
            }
            fn store(data: Vec<Self>) -> Arc<dyn Bytes> {
                let charge = budget::Charge::new(size_of_val(data.as_slice()));
                Arc::new(Owned { data, _charge: charge })
            }
        }
    )*};
}

elements! {
    f32 => F32, f64 => F64, f16 => F16, bf16 => BF16,
    u8 => U8, u16 => U16, u32 => U32, u64 => U64, i8 => I8, i16 => I16, i32 => I32, i64 => I64,
    [f32; 2] => C64, [f64; 2] => C128,
}

impl Element for bool {
    const DTYPE: DType = DType::Bool;
    fn read(bytes: &[u8]) -> Cow<'_, [bool]> {
        Cow::Owned(bytes.iter().map(|&b| b != 0).collect())
    }
    fn store(data: Vec<bool>) -> Arc<dyn Bytes> {
        u8::store(data.into_iter().map(u8::from).collect())
    }
}

impl Tensor {
    /// A tensor from row-major data; the product of `shape` must be `data.len()`.
    pub fn new<T: Element>(shape: &[usize], data: Vec<T>) -> Result<Tensor> {
        let n = budget::elements(shape)?;
        if n != data.len() {
            return Err(Error::internal(format!("shape {shape:?} holds {n} elements, got {}", data.len())));
        }
        let len = T::DTYPE.storage_bytes(n);
        let storage = Storage::Bytes { source: T::store(data), offset: 0, len };
        Ok(Tensor { dtype: T::DTYPE, shape: shape.into(), storage })
    }

    pub fn scalar<T: Element>(x: T) -> Tensor {
        let storage = Storage::Bytes { source: T::store(vec![x]), offset: 0, len: T::DTYPE.storage_bytes(1) };
        Tensor { dtype: T::DTYPE, shape: Shape::new(), storage }
    }

    /// A 1-D tensor.
    pub fn vector<T: Element>(data: Vec<T>) -> Tensor {
        let len = T::DTYPE.storage_bytes(data.len());
        let shape = Shape::from_slice(&[data.len()]);
        Tensor { dtype: T::DTYPE, shape, storage: Storage::Bytes { source: T::store(data), offset: 0, len } }
    }

    pub fn from_array<T: Element>(a: ArrayD<T>) -> Tensor {
        let shape = Shape::from_slice(a.shape());
        let data: Vec<T> = if a.is_standard_layout() && a.len() == a.as_slice().map_or(0, <[T]>::len) {
            let (v, offset) = a.into_raw_vec_and_offset();
            let n: usize = shape.iter().product();
            match offset {
                None | Some(0) if v.len() == n => v,
                o => v[o.unwrap_or(0)..][..n].to_vec(),
            }
        } else {
            a.iter().copied().collect()
        };
        let len = T::DTYPE.storage_bytes(data.len());
        Tensor { dtype: T::DTYPE, shape, storage: Storage::Bytes { source: T::store(data), offset: 0, len } }
    }

    pub fn strings(shape: &[usize], data: Vec<String>) -> Result<Tensor> {
        if budget::elements(shape)? != data.len() {
            return Err(Error::internal(format!("shape {shape:?} does not hold {} strings", data.len())));
        }
        Ok(Tensor { dtype: DType::String, shape: shape.into(), storage: Storage::Strings(data.into()) })
    }

    /// A tensor over `len` bytes of `source` at `offset` (alignment does not matter; nothing is copied).
    pub fn mapped(dtype: DType, shape: &[usize], source: Arc<dyn Bytes>, offset: usize) -> Result<Tensor> {
        let len = dtype.storage_bytes(budget::elements(shape)?);
        let end = offset.checked_add(len).filter(|&e| e <= source.bytes().len());
        if dtype == DType::String || end.is_none() {
            return Err(Error::model(format!(
                "{dtype} tensor of shape {shape:?} needs {len} bytes, data holds {}",
                source.bytes().len().saturating_sub(offset)
            )));
        }
        Ok(Tensor { dtype, shape: shape.into(), storage: Storage::Bytes { source, offset, len } })
    }

    /// A tensor from stored bytes (packed for sub-byte types).
    pub fn from_bytes(dtype: DType, shape: &[usize], bytes: Vec<u8>) -> Result<Tensor> {
        let want = dtype.storage_bytes(budget::elements(shape)?);
        if bytes.len() != want || dtype == DType::String {
            return Err(Error::model(format!("{dtype} {shape:?} needs {want} bytes, got {}", bytes.len())));
        }
        let storage = Storage::Bytes { source: u8::store(bytes), offset: 0, len: want };
        Ok(Tensor { dtype, shape: shape.into(), storage })
    }

    pub fn zeros(dtype: DType, shape: &[usize]) -> Result<Tensor> {
        let n = budget::bytes(dtype, shape)?;
        match dtype {
            DType::String => {
                budget::check_texts(budget::elements(shape)?)?;
                Tensor::strings(shape, vec![String::new(); budget::elements(shape)?])
            }
            // Word-sized storage keeps every element type aligned.
            _ => {
                let words = budget::zeros::<u64>(n.div_ceil(8))?;
                let storage = Storage::Bytes { source: u64::store(words), offset: 0, len: n };
                Ok(Tensor { dtype, shape: shape.into(), storage })
            }
        }
    }

    pub fn dtype(&self) -> DType {
        self.dtype
    }
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }
    pub fn rank(&self) -> usize {
        self.shape.len()
    }
    /// Number of elements.
    pub fn len(&self) -> usize {
        // Other dims of an empty tensor may be too large to multiply.
        if self.is_empty() { 0 } else { self.shape.iter().product() }
    }
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }

    /// Stored bytes; empty for strings.
    pub fn bytes(&self) -> &[u8] {
        match &self.storage {
            Storage::Bytes { source, offset, len } => &source.bytes()[*offset..*offset + *len],
            Storage::Strings(_) => &[],
        }
    }
    /// Says that the bytes will not be read soon, so that pages of a mapped file need not stay in memory.
    pub fn release(&self) {
        if let Storage::Bytes { source, offset, len } = &self.storage {
            source.release(*offset, *len);
        }
    }
    /// Says that all bytes will be read now.
    pub fn prefetch(&self) {
        if let Storage::Bytes { source, offset, len } = &self.storage {
            source.prefetch(*offset, *len);
        }
    }
    /// Bytes this tensor takes in a file.
    pub fn stored_bytes(&self) -> usize {
        match &self.storage {
            Storage::Bytes { len, .. } => *len,
            Storage::Strings(s) => s.iter().map(String::len).sum(),
        }
    }

    /// Elements as `T`; an error when `T` is not the tensor's type.
    pub fn data<T: Element>(&self) -> Result<Cow<'_, [T]>> {
        if self.dtype != T::DTYPE {
            return Err(Error::model(format!("expected a {} tensor, got {}", T::DTYPE, self.dtype)));
        }
        Ok(T::read(self.bytes()))
    }

    /// Row-major array view of type `T`.
    pub fn array<T: Element>(&self) -> Result<CowArray<'_, T, IxDyn>> {
        let shape = IxDyn(&self.shape);
        let bad = |e: ndarray::ShapeError| Error::internal(format!("shape {:?}: {e}", self.shape));
        Ok(match self.data::<T>()? {
            Cow::Borrowed(s) => CowArray::from(ndarray::ArrayView::from_shape(shape, s).map_err(bad)?),
            Cow::Owned(v) => CowArray::from(ArrayD::from_shape_vec(shape, v).map_err(bad)?),
        })
    }

    pub fn string_data(&self) -> Result<&[String]> {
        match &self.storage {
            Storage::Strings(s) => Ok(s),
            _ => Err(Error::model(format!("expected a string tensor, got {}", self.dtype))),
        }
    }

    /// The same elements under another shape of equal size.
    pub fn reshaped(&self, shape: &[usize]) -> Result<Tensor> {
        if budget::elements(shape)? != self.len() {
            return Err(Error::model(format!("cannot view shape {:?} as {shape:?}", self.shape)));
        }
        Ok(Tensor { shape: shape.into(), ..self.clone() })
    }

    /// `count` of the parts that the first axis numbers, from part `from` on; nothing is copied.
    pub fn leading(&self, from: usize, count: usize) -> Result<Tensor> {
        let n = self.shape.first().copied().unwrap_or(0);
        let end = from.checked_add(count).filter(|&e| e <= n);
        let (Storage::Bytes { source, offset, .. }, Some(_), true) =
            (&self.storage, end, self.dtype.bits() >= 8)
        else {
            return Err(Error::internal(format!("no parts {from} to {from}+{count} of {:?}", self.shape)));
        };
        let mut shape = self.shape.clone();
        shape[0] = count;
        let part = self.len() / n.max(1) * (self.dtype.bits() / 8);
        Tensor::mapped(self.dtype, &shape, Arc::clone(source), offset + from * part)
    }

    /// The same bytes read as another type of equal element width.
    pub fn bitcast(&self, dtype: DType) -> Result<Tensor> {
        if dtype.bits() != self.dtype.bits() || dtype.bits() == 0 {
            return Err(Error::model(format!("cannot reinterpret {} as {dtype}", self.dtype)));
        }
        Ok(Tensor { dtype, ..self.clone() })
    }

    /// Sub-byte elements as one byte each: zero-extended bit patterns, or sign-extended for int4 and int2.
    pub fn unpacked(&self) -> Result<Vec<u8>> {
        let bits = self.dtype.bits();
        if bits == 0 || bits > 8 {
            return Err(Error::internal(format!("{} is not a small type", self.dtype)));
        }
        if bits == 8 {
            return Ok(self.bytes().to_vec());
        }
        let (per, mask) = (8 / bits, (1u8 << bits) - 1);
        let mut out = budget::vec(self.len())?;
        for i in 0..self.len() {
            let v = (self.bytes()[i / per] >> (bits * (i % per))) & mask;
            let negative = self.dtype.is_signed_int() && v >> (bits - 1) == 1;
            out.push(if negative { v | !mask } else { v });
        }
        Ok(out)
    }

    /// The inverse of [`Tensor::unpacked`]: one byte per element, high bits ignored.
    pub fn from_unpacked(dtype: DType, shape: &[usize], elements: &[u8]) -> Result<Tensor> {
        let bits = dtype.bits();
        if bits == 0 || bits > 8 || budget::elements(shape)? != elements.len() {
            return Err(Error::internal(format!(
                "cannot pack {} bytes as {dtype} {shape:?}",
                elements.len()
            )));
        }
        let (per, mask) = (8 / bits, if bits == 8 { 0xff } else { (1u8 << bits) - 1 });
        let bytes = elements
            .chunks(per)
            .map(|c| c.iter().enumerate().fold(0u8, |b, (i, &v)| b | ((v & mask) << (bits * i))))
            .collect();
        Tensor::from_bytes(dtype, shape, bytes)
    }

    /// Values of any float, integer or boolean tensor as f64 (int64 above 2^53 rounds).
    pub fn to_f64s(&self) -> Result<Vec<f64>> {
        macro_rules! cast {
            ($t:ty) => {
                self.data::<$t>()?.iter().map(|&x| x as f64).collect()
            };
        }
        use DType::*;
        Ok(match self.dtype {
            F32 => cast!(f32),
            F64 => self.data::<f64>()?.into_owned(),
            F16 => self.data::<f16>()?.iter().map(|x| x.to_f64()).collect(),
            BF16 => self.data::<bf16>()?.iter().map(|x| x.to_f64()).collect(),
            U8 => cast!(u8),
            U16 => cast!(u16),
            U32 => cast!(u32),
            U64 => cast!(u64),
            I8 => cast!(i8),
            I16 => cast!(i16),
            I32 => cast!(i32),
            I64 => cast!(i64),
            Bool => self.bytes().iter().map(|&b| f64::from(u8::from(b != 0))).collect(),
            U4 | U2 => self.unpacked()?.into_iter().map(f64::from).collect(),
            I4 | I2 => self.unpacked()?.into_iter().map(|b| f64::from(b as i8)).collect(),
            F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F4E2M1 | F8E8M0 => self
                .unpacked()?
                .into_iter()
                .map(|b| minifloat::decode(self.dtype, b).map_or(f64::NAN, f64::from))
                .collect(),
            String | C64 | C128 => return Err(Error::unsupported(format!("{} as numbers", self.dtype))),
        })
    }

    /// Values of any float, integer or boolean tensor as f32.
    pub fn to_f32s(&self) -> Result<Vec<f32>> {
        if self.dtype == DType::F32 {
            return Ok(self.data::<f32>()?.into_owned());
        }
        Ok(self.to_f64s()?.into_iter().map(|x| x as f32).collect())
    }

    /// Values of an integer or boolean tensor; uint64 above i64::MAX is an error.
    pub fn to_i64s(&self) -> Result<Vec<i64>> {
        macro_rules! cast {
            ($t:ty) => {
                self.data::<$t>()?.iter().map(|&x| i64::from(x)).collect()
            };
        }
        use DType::*;
        Ok(match self.dtype {
            I64 => self.data::<i64>()?.into_owned(),
            I32 => cast!(i32),
            I16 => cast!(i16),
            I8 => cast!(i8),
            U32 => cast!(u32),
            U16 => cast!(u16),
            U8 => cast!(u8),
            U64 => self
                .data::<u64>()?
                .iter()
                .map(|&x| i64::try_from(x).map_err(|_| Error::data(format!("{x} does not fit int64"))))
                .collect::<Result<_>>()?,
            Bool => self.bytes().iter().map(|&b| i64::from(b != 0)).collect(),
            U4 | U2 => self.unpacked()?.into_iter().map(i64::from).collect(),
            I4 | I2 => self.unpacked()?.into_iter().map(|b| i64::from(b as i8)).collect(),
            d => return Err(Error::model(format!("expected an integer tensor, got {d}"))),
        })
    }

    /// A tensor of a float type from f32 values, rounding to nearest even and saturating float 8.
    pub fn from_f32s(dtype: DType, shape: &[usize], data: Vec<f32>) -> Result<Tensor> {
        match dtype {
            DType::F32 => Tensor::new(shape, data),
            DType::F64 => Tensor::new(shape, data.into_iter().map(f64::from).collect()),
            DType::F16 => Tensor::new(shape, data.into_iter().map(f16::from_f32).collect()),
            DType::BF16 => Tensor::new(shape, data.into_iter().map(bf16::from_f32).collect()),
            d => {
                let bits: Option<Vec<u8>> = data.into_iter().map(|x| minifloat::encode(d, x, true)).collect();
                let bits = bits.ok_or_else(|| Error::internal(format!("{d} is not a float type")))?;
                Tensor::from_unpacked(d, shape, &bits)
            }
        }
    }

    /// A tensor of a float type from f64 values, rounded once.
    pub fn from_f64s(dtype: DType, shape: &[usize], data: Vec<f64>) -> Result<Tensor> {
        match dtype {
            DType::F64 => Tensor::new(shape, data),
            DType::F16 => Tensor::new(shape, data.into_iter().map(f16::from_f64).collect()),
            DType::BF16 => Tensor::new(shape, data.into_iter().map(bf16::from_f64).collect()),
            d => Tensor::from_f32s(d, shape, data.into_iter().map(|x| x as f32).collect()),
        }
    }

    /// A tensor of an integer or boolean type from i64 values, wrapping to the type's width.
    pub fn from_i64s(dtype: DType, shape: &[usize], data: Vec<i64>) -> Result<Tensor> {
        macro_rules! cast {
            ($t:ty) => {
                Tensor::new(shape, data.into_iter().map(|x| x as $t).collect())
            };
        }
        use DType::*;
        match dtype {
            I64 => Tensor::new(shape, data),
            I32 => cast!(i32),
            I16 => cast!(i16),
            I8 => cast!(i8),
            U64 => cast!(u64),
            U32 => cast!(u32),
            U16 => cast!(u16),
            U8 => cast!(u8),
            Bool => Tensor::new(shape, data.into_iter().map(|x| x != 0).collect::<Vec<bool>>()),
            U4 | I4 | U2 | I2 => {
                let bytes: Vec<u8> = data.into_iter().map(|x| x as u8).collect();
                Tensor::from_unpacked(dtype, shape, &bytes)
            }
            d => Err(Error::internal(format!("{d} is not an integer type"))),
        }
    }
}

impl PartialEq for Tensor {
    /// Equal type, shape and stored bits (so NaN equals the same NaN).
    fn eq(&self, o: &Tensor) -> bool {
        self.dtype == o.dtype
            && self.shape == o.shape
            && match (&self.storage, &o.storage) {
                (Storage::Strings(a), Storage::Strings(b)) => a == b,
                // Clones share storage; graphs full of them are compared often.
                (
                    Storage::Bytes { source: a, offset: i, .. },
                    Storage::Bytes { source: b, offset: j, .. },
                ) if i == j && Arc::ptr_eq(a, b) => true,
                _ => self.bytes() == o.bytes(),
            }
    }
}

impl Eq for Tensor {}

impl std::hash::Hash for Tensor {
    fn hash<H: std::hash::Hasher>(&self, h: &mut H) {
        (self.dtype, &self.shape, self.bytes()).hash(h);
        if let Storage::Strings(s) = &self.storage {
            s.hash(h);
        }
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.shape)?;
        match (self.len(), self.dtype) {
            (0..=16, DType::String) => write!(f, " {:?}", self.string_data().unwrap_or(&[])),
            (0..=16, _) => write!(f, " {:?}", self.to_f64s().unwrap_or_default()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_and_unpacks_four_bits() {
        let t = Tensor::from_i64s(DType::I4, &[3], vec![-8, 7, -1]).unwrap();
        assert_eq!(t.bytes(), [0x78, 0x0f]);
        assert_eq!(t.to_i64s().unwrap(), [-8, 7, -1]);
    }

    #[test]
    fn empty_tensors_of_huge_shape_have_no_elements() {
        let t = Tensor::new::<f32>(&[1 << 40, 1 << 40, 0], vec![]).unwrap();
        assert_eq!((t.len(), t.is_empty()), (0, true));
    }

    #[test]
    fn mapped_unaligned_reads() {
        let bytes: Vec<u8> =
            std::iter::once(0).chain(1.5f32.to_le_bytes()).chain(2.5f32.to_le_bytes()).collect();
        let t = Tensor::mapped(DType::F32, &[2], Arc::new(bytes.clone()), 1).unwrap();
        assert_eq!(&*t.data::<f32>().unwrap(), [1.5, 2.5]);
        assert!(Tensor::mapped(DType::F32, &[3], Arc::new(bytes), 1).is_err());
    }

    #[test]
    fn sliced_array_is_copied_in_order() {
        let a = ndarray::arr2(&[[1, 2, 3], [4, 5, 6]]).into_dyn();
        let t = Tensor::from_array(a.slice(ndarray::s![.., 1..]).to_owned().into_dyn());
        assert_eq!(&*t.data::<i32>().unwrap(), [2, 3, 5, 6]);
        let t = Tensor::from_array(a.t().to_owned());
        assert_eq!(t.shape(), [3, 2]);
    }
}
