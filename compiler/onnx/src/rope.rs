//! Protobuf messages under construction: small bytes in place, large tensors by reference until they are written.

use crate::wire::put_varint;
use ir::Tensor;
use std::io::{self, Write};

/// Tensors up to this many bytes are copied into the message.
const INLINE: usize = 4096;

enum Piece {
    Bytes(Vec<u8>),
    Tensor(Tensor),
}

/// Writes a tensor's bytes; the pages of a mapped file that held them may go.
pub fn put(t: &Tensor, w: &mut dyn Write) -> io::Result<()> {
    w.write_all(t.bytes())?;
    t.release();
    Ok(())
}

/// One message: its encoded fields and their total length.
#[derive(Default)]
pub struct Rope {
    pieces: Vec<Piece>,
    len: u64,
}

impl Rope {
    pub fn new() -> Rope {
        Rope::default()
    }

    /// Encoded length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    fn bytes(&mut self, f: impl FnOnce(&mut Vec<u8>)) {
        if !matches!(self.pieces.last(), Some(Piece::Bytes(_))) {
            self.pieces.push(Piece::Bytes(Vec::new()));
        }
        if let Some(Piece::Bytes(b)) = self.pieces.last_mut() {
            let before = b.len();
            f(b);
            self.len += (b.len() - before) as u64;
        }
    }

    fn head(&mut self, number: u32, len: u64) {
        self.bytes(|b| {
            put_varint(u64::from(number) << 3 | 2, b);
            put_varint(len, b);
        });
    }

    /// A varint field; negative numbers take ten bytes, as the format says.
    pub fn int(&mut self, number: u32, v: i64) {
        self.bytes(|b| {
            put_varint(u64::from(number) << 3, b);
            put_varint(v.cast_unsigned(), b);
        });
    }

    pub fn float(&mut self, number: u32, v: f32) {
        self.bytes(|b| {
            put_varint(u64::from(number) << 3 | 5, b);
            b.extend_from_slice(&v.to_le_bytes());
        });
    }

    /// A string or bytes field.
    pub fn text(&mut self, number: u32, s: &str) {
        self.head(number, s.len() as u64);
        self.bytes(|b| b.extend_from_slice(s.as_bytes()));
    }

    /// As [`Rope::text`], left out when empty.
    pub fn text_if(&mut self, number: u32, s: &str) {
        if !s.is_empty() {
            self.text(number, s);
        }
    }

    /// Repeated integers, packed.
    pub fn ints(&mut self, number: u32, v: &[i64]) {
        let mut packed = Vec::new();
        v.iter().for_each(|x| put_varint(x.cast_unsigned(), &mut packed));
        self.head(number, packed.len() as u64);
        self.bytes(|b| b.extend_from_slice(&packed));
    }

    /// Repeated floats, packed.
    pub fn floats(&mut self, number: u32, v: &[f32]) {
        self.head(number, v.len() as u64 * 4);
        self.bytes(|b| v.iter().for_each(|x| b.extend_from_slice(&x.to_le_bytes())));
    }

    pub fn message(&mut self, number: u32, inner: Rope) {
        self.head(number, inner.len);
        for p in inner.pieces {
            match p {
                Piece::Bytes(x) => self.bytes(|b| b.extend_from_slice(&x)),
                Piece::Tensor(t) => self.by_reference(t),
            }
        }
    }

    /// The stored bytes of a tensor as a bytes field.
    pub fn data(&mut self, number: u32, t: &Tensor) {
        self.head(number, t.bytes().len() as u64);
        if t.bytes().len() <= INLINE {
            self.bytes(|b| b.extend_from_slice(t.bytes()));
        } else {
            self.by_reference(t.clone());
        }
    }

    fn by_reference(&mut self, t: Tensor) {
        self.len += t.bytes().len() as u64;
        self.pieces.push(Piece::Tensor(t));
    }

    pub fn write(&self, w: &mut dyn Write) -> io::Result<()> {
        self.pieces.iter().try_for_each(|p| match p {
            Piece::Bytes(b) => w.write_all(b),
            Piece::Tensor(t) => put(t, w),
        })
    }
}
