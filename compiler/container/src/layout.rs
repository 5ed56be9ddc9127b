//! Elements split into planes of symbols that are distributed alike.
//!
//! A float's exponent is predictable and its mantissa is not, so the sign bit moves to the low end and the exponent
//! becomes a byte of its own; packed integers become one symbol each.

use crate::Error;

/// What a tensor's elements are.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// One byte or whatever else: bytes as they are.
    Byte = 0,
    /// 4-bit integers, two a byte, low nibble first.
    Nibble = 1,
    /// 16-bit floats with an 8-bit exponent.
    BFloat16 = 2,
    /// 16-bit floats with a 5-bit exponent.
    Float16 = 3,
    Float32 = 4,
    Float64 = 5,
    Int16 = 6,
    Int32 = 7,
    Int64 = 8,
    /// 2-bit integers, four a byte.
    Crumb = 9,
}

impl Element {
    pub fn from_code(code: u8) -> Result<Element, Error> {
        use Element::*;
        [Byte, Nibble, BFloat16, Float16, Float32, Float64, Int16, Int32, Int64, Crumb]
            .into_iter()
            .find(|e| *e as u8 == code)
            .ok_or(Error::Damaged("an unknown element type"))
    }

    /// Bytes of one element; 1 for packed ones.
    fn width(self) -> usize {
        match self {
            Element::Byte | Element::Nibble | Element::Crumb => 1,
            Element::BFloat16 | Element::Float16 | Element::Int16 => 2,
            Element::Float32 | Element::Int32 => 4,
            Element::Float64 | Element::Int64 => 8,
        }
    }

    /// Symbols of one plane for one byte of the file.
    fn packed(self) -> usize {
        match self {
            Element::Nibble => 2,
            Element::Crumb => 4,
            _ => 1,
        }
    }

    fn is_float(self) -> bool {
        matches!(self, Element::BFloat16 | Element::Float16 | Element::Float32 | Element::Float64)
    }

    /// Number of planes and of symbols in each, for `len` bytes; `None` when they are no whole elements.
    pub fn planes(self, len: usize) -> Option<(usize, usize)> {
        let width = self.width();
        len.is_multiple_of(width).then_some(())?;
        Some((width, (len / width).checked_mul(self.packed())?))
    }

    /// Plane `p` of the elements in `bytes`, the most significant first.
    pub fn plane(self, bytes: &[u8], p: usize) -> Vec<u8> {
        match self {
            Element::Byte => bytes.to_vec(),
            Element::Nibble => bytes.iter().flat_map(|b| [b & 15, b >> 4]).collect(),
            Element::Crumb => bytes.iter().flat_map(|b| [b & 3, b >> 2 & 3, b >> 4 & 3, b >> 6]).collect(),
            _ => {
                let width = self.width();
                let shift = 8 * (width - 1 - p);
                bytes.chunks_exact(width).map(|c| (self.turned(word(c)) >> shift) as u8).collect()
            }
        }
    }

    /// The inverse of [`Element::plane`] over all planes; they have equal lengths.
    pub fn join(self, planes: &[Vec<u8>]) -> Vec<u8> {
        let first = planes.first().map_or(&[][..], |p| p);
        match self {
            Element::Byte => first.to_vec(),
            Element::Nibble => first.chunks_exact(2).map(|c| c[0] | c[1] << 4).collect(),
            Element::Crumb => {
                first.chunks_exact(4).map(|c| c[0] | c[1] << 2 | c[2] << 4 | c[3] << 6).collect()
            }
            _ => {
                let width = self.width();
                let mut out = Vec::with_capacity(first.len() * width);
                for i in 0..first.len() {
                    let w = planes.iter().fold(0u64, |w, p| w << 8 | u64::from(p[i]));
                    out.extend_from_slice(&self.turned_back(w).to_le_bytes()[..width]);
                }
                out
            }
        }
    }

    /// Symbols are below this.
    pub fn alphabet(self) -> usize {
        match self {
            Element::Nibble => 16,
            Element::Crumb => 4,
            _ => 256,
        }
    }

    /// The sign bit moved to the low end.
    fn turned(self, w: u64) -> u64 {
        let bits = 8 * self.width() as u32;
        if self.is_float() { (w << 1 | w >> (bits - 1)) & (u64::MAX >> (64 - bits)) } else { w }
    }

    fn turned_back(self, w: u64) -> u64 {
        let bits = 8 * self.width() as u32;
        if self.is_float() { w >> 1 | (w & 1) << (bits - 1) } else { w }
    }
}

fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |w, &b| w << 8 | u64::from(b))
}
