//! Packed operands and parameters as bytes: numbers in one stream, and bulk data beside it, which a reader uses where
//! it lies.
//!
//! Little endian throughout. A reader gives `None` for bytes that nobody wrote; what a kernel would reach through them
//! is checked against what is there.

mod parameters;

use crate::dispatch::Tier;
use std::any::Any;
use std::sync::Arc;

/// Bulk data starts at multiples of this.
pub const ALIGN: usize = 64;

/// What is written, in order; `bulk` pieces are borrowed from their owners.
#[derive(Default)]
pub struct Writer<'a> {
    pub stream: Vec<u8>,
    /// Where each piece starts.
    pub bulk: Vec<(usize, &'a [u8])>,
    end: usize,
}

impl<'a> Writer<'a> {
    /// Places a piece of bulk data.
    pub fn place(&mut self, bytes: &'a [u8]) -> usize {
        let at = self.end.next_multiple_of(ALIGN);
        self.end = at + bytes.len();
        if !bytes.is_empty() {
            self.bulk.push((at, bytes));
        }
        at
    }

    /// Bytes of all bulk data, gaps included.
    pub fn bulk_len(&self) -> usize {
        self.end
    }

    /// All bulk data, in memory of its own.
    pub fn copied(&self) -> Bulk {
        let mut lines = vec![[0u128; ALIGN / 16]; self.end.div_ceil(ALIGN) + 1];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(lines.as_flattened_mut());
        let shift = bytes.as_ptr().align_offset(ALIGN);
        for (at, piece) in &self.bulk {
            bytes[shift + at..][..piece.len()].copy_from_slice(piece);
        }
        let start = bytes[shift..].as_ptr();
        // SAFETY: the owner is the memory itself, which does not change.
        unsafe { Bulk::new(start, self.end, Some(Arc::new(lines))) }
    }
}

/// Memory that stays where it is for as long as its owner lives.
#[derive(Clone)]
pub struct Bulk {
    start: *const u8,
    len: usize,
    owner: Option<Arc<dyn Any + Send + Sync>>,
}

// SAFETY: read-only memory, as `new` demands.
unsafe impl Send for Bulk {}
// SAFETY: as above.
unsafe impl Sync for Bulk {}

impl Bulk {
    /// Memory that `owner` keeps, or that is there for good.
    ///
    /// # Safety
    /// `len` bytes from `start` on can be read and do not change as long as `owner` lives, or without one, ever.
    pub unsafe fn new(start: *const u8, len: usize, owner: Option<Arc<dyn Any + Send + Sync>>) -> Bulk {
        Bulk { start, len, owner }
    }

    /// `len` bytes at `at`, if they are there.
    pub fn part(&self, at: usize, len: usize) -> Option<Bulk> {
        if at.checked_add(len)? > self.len {
            return None;
        }
        Some(Bulk { start: self.start.wrapping_add(at), len, owner: self.owner.clone() })
    }

    pub fn bytes(&self) -> &[u8] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: as `new` demands; `part` stays inside.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    pub fn as_ptr(&self) -> *const u8 {
        self.start
    }

    /// Whether it starts on a cache line.
    pub fn is_aligned(&self) -> bool {
        self.len == 0 || (self.start as usize).is_multiple_of(ALIGN)
    }
}

/// What is read.
pub struct Reader<'a> {
    pub stream: &'a [u8],
    pub bulk: Bulk,
}

/// A value as bytes.
pub trait Stored: Sized {
    fn put<'a>(&'a self, out: &mut Writer<'a>);
    /// The value at the front of the stream, which moves behind it.
    fn take(from: &mut Reader) -> Option<Self>;
}

macro_rules! numbers {
    ($($t:ty),*) => {$(
        impl Stored for $t {
            fn put<'a>(&'a self, out: &mut Writer<'a>) {
                out.stream.extend(self.to_le_bytes());
            }
            fn take(from: &mut Reader) -> Option<Self> {
                let (first, rest) = from.stream.split_first_chunk()?;
                from.stream = rest;
                Some(<$t>::from_le_bytes(*first))
            }
        }
    )*};
}
numbers!(u8, i8, u16, i16, u32, i32, i64, u64, f32, f64);

macro_rules! words {
    ($($t:ty as $as:ty),*) => {$(
        impl Stored for $t {
            fn put<'a>(&'a self, out: &mut Writer<'a>) {
                out.stream.extend((*self as $as).to_le_bytes());
            }
            fn take(from: &mut Reader) -> Option<Self> {
                <$as>::take(from)?.try_into().ok()
            }
        }
    )*};
}
words!(usize as u64, isize as i64);

impl Stored for bool {
    fn put<'a>(&'a self, out: &mut Writer<'a>) {
        out.stream.push(u8::from(*self));
    }
    fn take(from: &mut Reader) -> Option<Self> {
        match u8::take(from)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl Stored for String {
    fn put<'a>(&'a self, out: &mut Writer<'a>) {
        out.stream.extend((self.len() as u64).to_le_bytes());
        out.stream.extend(self.as_bytes());
    }
    fn take(from: &mut Reader) -> Option<Self> {
        let n = usize::take(from)?;
        let (text, rest) = from.stream.split_at_checked(n)?;
        from.stream = rest;
        String::from_utf8(text.to_vec()).ok()
    }
}

impl<T: Stored> Stored for Option<T> {
    fn put<'a>(&'a self, out: &mut Writer<'a>) {
        out.stream.push(u8::from(self.is_some()));
        self.iter().for_each(|x| x.put(out));
    }
    fn take(from: &mut Reader) -> Option<Self> {
        if bool::take(from)? { T::take(from).map(Some) } else { Some(None) }
    }
}

impl<T: Stored> Stored for Vec<T> {
    fn put<'a>(&'a self, out: &mut Writer<'a>) {
        out.stream.extend((self.len() as u64).to_le_bytes());
        self.iter().for_each(|x| x.put(out));
    }
    fn take(from: &mut Reader) -> Option<Self> {
        let n = usize::take(from)?;
        // Every element takes at least a byte, so that a wrong count asks for no memory.
        let mut all = Vec::with_capacity(n.min(from.stream.len()));
        for _ in 0..n {
            all.push(T::take(from)?);
        }
        Some(all)
    }
}

impl<T: Stored> Stored for Box<T> {
    fn put<'a>(&'a self, out: &mut Writer<'a>) {
        T::put(self, out);
    }
    fn take(from: &mut Reader) -> Option<Self> {
        T::take(from).map(Box::new)
    }
}

impl<T: Stored, const N: usize> Stored for [T; N] {
    fn put<'a>(&'a self, out: &mut Writer<'a>) {
        self.iter().for_each(|x| x.put(out));
    }
    fn take(from: &mut Reader) -> Option<Self> {
        let all: Vec<T> = (0..N).map(|_| T::take(from)).collect::<Option<_>>()?;
        all.try_into().ok()
    }
}

impl<A: Stored, B: Stored> Stored for (A, B) {
    fn put<'a>(&'a self, out: &mut Writer<'a>) {
        self.0.put(out);
        self.1.put(out);
    }
    fn take(from: &mut Reader) -> Option<Self> {
        Some((A::take(from)?, B::take(from)?))
    }
}

impl<A: Stored, B: Stored, C: Stored> Stored for (A, B, C) {
    fn put<'a>(&'a self, out: &mut Writer<'a>) {
        self.0.put(out);
        self.1.put(out);
        self.2.put(out);
    }
    fn take(from: &mut Reader) -> Option<Self> {
        Some((A::take(from)?, B::take(from)?, C::take(from)?))
    }
}

/// A tier that this CPU does not reach is not read: what is laid out for it could not be run.
impl Stored for Tier {
    fn put<'a>(&'a self, out: &mut Writer<'a>) {
        out.stream.push(*self as u8);
    }
    fn take(from: &mut Reader) -> Option<Self> {
        let t = u8::take(from)?;
        Tier::available().iter().copied().find(|&a| a as u8 == t)
    }
}

/// Records, field by field.
#[macro_export]
macro_rules! fields {
    ($($t:ident { $($f:ident),* $(,)? })*) => {$(
        impl $crate::stored::Stored for $t {
            fn put<'a>(&'a self, out: &mut $crate::stored::Writer<'a>) {
                $(self.$f.put(out);)*
            }
            fn take(from: &mut $crate::stored::Reader) -> Option<Self> {
                Some($t { $($f: $crate::stored::Stored::take(from)?),* })
            }
        }
    )*};
}

/// Enumerations with numbered variants.
#[macro_export]
macro_rules! variants {
    ($t:ident { $($n:literal = $v:ident $({ $($f:ident),* $(,)? })? $(($($p:ident),*))?),* $(,)? }) => {
        impl $crate::stored::Stored for $t {
            fn put<'a>(&'a self, out: &mut $crate::stored::Writer<'a>) {
                match self {
                    $($t::$v $({ $($f),* })? $(($($p),*))? => {
                        out.stream.push($n);
                        $($($f.put(out);)*)?
                        $($($p.put(out);)*)?
                    })*
                }
            }
            fn take(from: &mut $crate::stored::Reader) -> Option<Self> {
                Some(match <u8 as $crate::stored::Stored>::take(from)? {
                    $($n => $t::$v
                        $({ $($f: $crate::stored::Stored::take(from)?),* })?
                        $(($({ let $p = $crate::stored::Stored::take(from)?; $p }),*))?,)*
                    _ => return None,
                })
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Activation, ConvShape, Epilogue, PackedB, PackedConv, Serial, Tier, conv_f32, gemm_f32};

    /// What a reader makes of what a writer made of `x`, in memory of its own.
    fn again<T: Stored>(x: &T) -> T {
        let mut w = Writer::default();
        x.put(&mut w);
        let bulk = w.copied();
        for cut in 0..w.stream.len() {
            assert!(T::take(&mut Reader { stream: &w.stream[..cut], bulk: bulk.clone() }).is_none());
        }
        if !w.bulk.is_empty() {
            let short = bulk.part(0, w.bulk_len() - 1).unwrap();
            assert!(T::take(&mut Reader { stream: &w.stream, bulk: short }).is_none());
        }
        T::take(&mut Reader { stream: &w.stream, bulk }).unwrap()
    }

    #[test]
    fn what_is_written_is_read_and_what_is_cut_is_refused() {
        let walk = vec![(1usize, vec![-3i64, 4]), (7, vec![])];
        assert_eq!(again(&walk), walk);
        use crate::chain::{Arg, Binary, Chain, Format, Step};
        let store = Format::Bytes { signed: true, scale: 0.5, zero: -3 };
        let sum = Step::Binary(Binary::Add, Arg::Slot(0), Arg::Const(2.0));
        let chain = Chain { operands: vec![Format::F32], steps: vec![sum], result: 1, store };
        assert_eq!(again(&chain), chain);
        let act = Some(Activation::Clip { lo: -1.0, hi: 6.5 });
        assert_eq!(again(&act), act);
        assert_eq!(again(&Activation::LeakyRelu(0.1)), Activation::LeakyRelu(0.1));
        let bounded = Activation::LeakyFrom { slope: 0.2, low: -0.4 };
        assert_eq!(again(&bounded), bounded);
    }

    #[test]
    fn packed_operands_compute_the_same_from_borrowed_memory() {
        for &tier in Tier::available() {
            let (m, k, n) = (3, 19, 87);
            let b: Vec<f32> = (0..k * n).map(|i| (i % 13) as f32).collect();
            let packed = PackedB::from_kn(tier, &b, k, n).unwrap();
            let read = again(&packed);
            let run = |p: &PackedB| {
                let mut y = vec![0f32; m * n];
                gemm_f32(&Serial, m, &b[..m * k], k, p, &mut y, n, 1.0, &Epilogue::default()).unwrap();
                y
            };
            assert_eq!(run(&packed), run(&read));
            for groups in [1, 6] {
                let shape = ConvShape {
                    batch: 1,
                    input: [1, 5, 7],
                    cin: 6,
                    cout: 12,
                    kernel: [1, 3, 3],
                    stride: [1; 3],
                    dilation: [1; 3],
                    pad_begin: [0, 1, 1],
                    pad_end: [0, 1, 1],
                    groups,
                };
                let w = &b[..12 * 6 / groups * 9];
                let packed = PackedConv::new(tier, w, 12, 6, shape.kernel, groups).unwrap();
                let read = again(&packed);
                let run = |p: &PackedConv| {
                    let mut y = vec![0f32; 5 * 7 * 12];
                    let x = &b[..5 * 7 * 6];
                    conv_f32(&Serial, &shape, x, 6, p, &mut y, 12, &Epilogue::default()).unwrap();
                    y
                };
                assert_eq!(run(&packed), run(&read));
            }
        }
    }

    #[test]
    fn packed_codes_compute_the_same_from_borrowed_memory() {
        use crate::{Codes, PackedCodes, Precision, Strides, Zero, gemm_packed};
        let (m, k, n) = (2, 96, 87);
        let codes: Vec<u8> = (0..k * n).map(|i| (i * 7919 % 613 % 16) as u8).collect();
        let scale: Vec<f32> = (0..n * 3).map(|i| i as f32 / 97.0 + 0.1).collect();
        let zeros: Vec<f32> = (0..n * 3).map(|i| (i % 5) as f32).collect();
        let table: Vec<f32> = (0..16).map(|i| (i * i) as f32 / 7.0 - 9.0).collect();
        let x: Vec<f32> = (0..m * k).map(|i| (i % 13) as f32 - 6.5).collect();
        let plain = Codes {
            codes: &codes,
            strides: Strides::nk(k),
            k,
            n,
            bits: 4,
            block: 32,
            scale: &scale,
            zero: Zero::One(7),
            table: None,
        };
        let forms = [
            plain,
            Codes { bits: 8, ..plain },
            Codes { zero: Zero::Each(&zeros), ..plain },
            Codes { table: Some(&table), zero: Zero::One(0), ..plain },
        ];
        for &tier in Tier::available() {
            let sparse = PackedCodes::sparse(tier, &forms[1]).unwrap();
            let dense = forms.iter().filter_map(|f| PackedCodes::new(tier, f).unwrap());
            for packed in dense.chain(sparse) {
                let read = again(&packed);
                let run = |w: &PackedCodes| {
                    let mut y = vec![0f32; m * n];
                    let (float, none) = (Precision::Float, Epilogue::default());
                    gemm_packed(&Serial, float, m, (&x, k), w, (&mut y, n), 1.0, &none).unwrap();
                    y
                };
                assert_eq!(run(&packed), run(&read));
            }
        }
    }

    #[test]
    fn sparse_weights_and_tables_are_read_again() {
        use crate::chain::{Chain, Format};
        use crate::{SparseF32, Strides, gemm_sparse_f32};
        let (m, k, n) = (9, 20, 70);
        let w: Vec<f32> = (0..k * n).map(|i| if i % 5 == 0 { i as f32 } else { 0.0 }).collect();
        let x: Vec<f32> = (0..m * k).map(|i| (i % 13) as f32 - 6.5).collect();
        let packed = SparseF32::from_strided(Tier::best(), &w, Strides::kn(n), k, n).unwrap();
        let read = again(&packed);
        let run = |w: &SparseF32| {
            let mut y = vec![0f32; m * n];
            gemm_sparse_f32(&Serial, m, (&x, k), w, (&mut y, n), 1.0, &Epilogue::default()).unwrap();
            y
        };
        assert_eq!(run(&packed), run(&read));
        let format = |zero: i32| Format::Bytes { signed: false, scale: 0.5, zero };
        let chain = Chain { operands: vec![format(3)], steps: Vec::new(), result: 0, store: format(9) };
        let table = chain.table(Tier::best()).unwrap();
        let mut y = [[0u8; 3]; 2];
        for (table, y) in [&table, &again(&table)].into_iter().zip(&mut y) {
            table.map(Tier::best(), &[0, 3, 255], y).unwrap();
        }
        assert_eq!(y, [[6, 9, 255]; 2]);
    }
}
