//! The `.cmpx` container: a model file with its weights entropy-coded, bit for bit recoverable.
//!
//! ```text
//! "CMPX"  version  length of the file  BLAKE3 of the file  segments…
//! segment: length of its bytes in the file, codec, length of the payload, payload
//! ```
//! Segments follow each other as their bytes do in the file. What describes a model is deflated; each tensor is split into
//! planes of symbols that have a distribution of their own (`layout`), and a plane is coded by asymmetric numeral systems
//! with one table of frequencies for each class of alike rows (`classes`, `plane`); integers that were rounded in chains
//! have a code of their own (`trellis`). Everything is integer arithmetic, so the same file gives the same container
//! everywhere.
#![forbid(unsafe_code)]

mod classes;
mod error;
mod file;
mod layout;
mod plane;
mod reader;
mod table;
mod tensor;
pub mod trellis;

pub use error::Error;
pub use file::read;
pub use layout::Element;

use rayon::prelude::*;
use reader::{Reader, put_varint};

const MAGIC: &[u8; 4] = b"CMPX";
const VERSION: u8 = 1;
const HASH: usize = 32;

/// How a segment is stored.
#[repr(u8)]
#[derive(Clone, Copy)]
enum Codec {
    Stored = 0,
    Deflated = 1,
    Tensor = 2,
}

/// Where a tensor lies in a file, and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// First byte.
    pub offset: usize,
    /// Number of bytes.
    pub len: usize,
    pub element: Element,
    pub shape: Vec<usize>,
}

/// Whether these bytes are those of a container.
pub fn is_container(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Packs a file. `tensors` may be in any order; those that overlap others or leave the file are coded as plain bytes.
pub fn pack(file: &[u8], tensors: &[Region]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.push(VERSION);
    put_varint(file.len() as u64, &mut out);
    out.extend_from_slice(blake3::hash(file).as_bytes());
    let segments: Vec<Vec<u8>> = segments(file, tensors)
        .into_par_iter()
        .map(|(bytes, region)| match region {
            Some(r) => segment(bytes, tensor::encode(bytes, r.element, &r.shape).map(|p| (Codec::Tensor, p))),
            None => segment(bytes, None),
        })
        .collect();
    segments.iter().for_each(|s| out.extend_from_slice(s));
    out
}

/// Bytes that a tensor takes inside a container.
pub fn coded_len(bytes: &[u8], element: Element, shape: &[usize]) -> usize {
    let coded = tensor::estimate(bytes, element, shape);
    coded.min(bytes.len()) + 6
}

/// The file that was packed.
///
/// # Errors
/// When the bytes are no container of this version, damaged, or stand for a file of more than `limit` bytes.
pub fn unpack(bytes: &[u8], limit: u64) -> Result<Vec<u8>, Error> {
    let mut r = Reader::new(bytes.strip_prefix(MAGIC).ok_or(Error::NotAContainer)?);
    let version = r.byte()?;
    if version != VERSION {
        return Err(Error::Version(version));
    }
    let total = r.varint()?;
    if total > limit {
        return Err(Error::TooLarge { bytes: total, limit });
    }
    let total = usize::try_from(total).map_err(|_| Error::TooLarge { bytes: total, limit })?;
    let hash: [u8; HASH] = r.take(HASH)?.try_into().map_err(|_| Error::Damaged("its hash is cut short"))?;
    let mut parts: Vec<(usize, u8, &[u8])> = Vec::new();
    let mut left = total;
    while left > 0 {
        let len = r.length(left)?;
        let codec = r.byte()?;
        let payload = r.length(bytes.len())?;
        // A segment that grows its bytes beyond what a coder can was not written by `pack`.
        if len == 0 {
            return Err(Error::Damaged("an empty segment"));
        }
        parts.push((len, codec, r.take(payload)?));
        left -= len;
    }
    if !r.is_empty() {
        return Err(Error::Damaged("bytes behind the last segment"));
    }
    let decoded: Vec<Vec<u8>> = parts
        .par_iter()
        .map(|&(len, codec, payload)| match codec {
            c if c == Codec::Stored as u8 => Ok(payload.to_vec()),
            c if c == Codec::Deflated as u8 => inflate(payload, len),
            c if c == Codec::Tensor as u8 => tensor::decode(payload, len),
            c => Err(Error::Codec(c)),
        })
        .collect::<Result<_, _>>()?;
    let mut file = Vec::new();
    file.try_reserve_exact(total).map_err(|_| Error::TooLarge { bytes: total as u64, limit })?;
    for (part, &(len, ..)) in decoded.iter().zip(&parts) {
        if part.len() != len {
            return Err(Error::Damaged("a segment of another length than it says"));
        }
        file.extend_from_slice(part);
    }
    if blake3::hash(&file) != hash {
        return Err(Error::Damaged("its content does not match its hash"));
    }
    Ok(file)
}

/// The file cut into tensors and what lies between them.
fn segments<'a>(file: &'a [u8], tensors: &'a [Region]) -> Vec<(&'a [u8], Option<&'a Region>)> {
    let mut order: Vec<&Region> = tensors.iter().filter(|r| r.len > 0).collect();
    order.sort_by_key(|r| (r.offset, r.len));
    let (mut out, mut at) = (Vec::new(), 0);
    for r in order {
        let Some(end) = r.offset.checked_add(r.len).filter(|&e| e <= file.len() && r.offset >= at) else {
            continue;
        };
        if r.offset > at {
            out.push((&file[at..r.offset], None));
        }
        out.push((&file[r.offset..end], Some(r)));
        at = end;
    }
    if at < file.len() {
        out.push((&file[at..], None));
    }
    out
}

/// The shortest of `coded`, deflated and plain.
fn segment(bytes: &[u8], coded: Option<(Codec, Vec<u8>)>) -> Vec<u8> {
    let deflated = || Some((Codec::Deflated, deflate(bytes)));
    let best = [coded, deflated()].into_iter().flatten().min_by_key(|(_, p)| p.len());
    let (codec, payload) = match best {
        Some((c, p)) if p.len() < bytes.len() => (c, p),
        _ => (Codec::Stored, bytes.to_vec()),
    };
    let mut out = Vec::with_capacity(payload.len() + 16);
    put_varint(bytes.len() as u64, &mut out);
    out.push(codec as u8);
    put_varint(payload.len() as u64, &mut out);
    out.extend_from_slice(&payload);
    out
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut e = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    // Writing to memory does not fail; were it to, the empty result would be caught by the hash.
    if e.write_all(bytes).is_err() {
        return bytes.to_vec();
    }
    e.finish().unwrap_or_else(|_| bytes.to_vec())
}

fn inflate(payload: &[u8], len: usize) -> Result<Vec<u8>, Error> {
    use std::io::Read;
    let mut out = Vec::new();
    let limit = len as u64 + 1;
    flate2::read::DeflateDecoder::new(payload)
        .take(limit)
        .read_to_end(&mut out)
        .map_err(|_| Error::Damaged("deflated bytes that do not inflate"))?;
    Ok(out)
}

#[cfg(test)]
mod tests;
