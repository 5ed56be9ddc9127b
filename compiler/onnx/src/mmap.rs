//! Files as mapped memory: the one file of this crate with `unsafe`.

#![allow(unsafe_code)] // mapping is unsafe by nature; see the safety argument below

use ir::{Bytes, Error, Result};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// Bytes of a page; where pages are larger the system refuses and nothing is released.
#[cfg(unix)]
const PAGE: usize = 4096;

/// A mapped file, or its content when it cannot be mapped.
pub enum Mapped {
    Map(memmap2::Mmap),
    Read(Vec<u8>),
}

impl Bytes for Mapped {
    fn bytes(&self) -> &[u8] {
        match self {
            Mapped::Map(m) => m,
            Mapped::Read(v) => v,
        }
    }

    #[cfg(unix)]
    fn release(&self, offset: usize, len: usize) {
        let Mapped::Map(map) = self else { return };
        // Whole pages only: neighbours may be in use.
        let end = offset.saturating_add(len).min(map.len()) / PAGE * PAGE;
        let start = offset.div_ceil(PAGE).saturating_mul(PAGE);
        if start < end {
            // SAFETY: the map is read-only and private, so none of its pages was ever written: a page that goes is read
            // from the file again when next touched, with the bytes it had.
            let advised =
                unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start) };
            // A refusal (pages larger than assumed) leaves everything as it was.
            drop(advised);
        }
    }
}

/// Opens a regular file for reading. Devices, pipes and directories are refused.
pub fn open(path: &Path) -> Result<Arc<Mapped>> {
    let bad = |e: std::io::Error| Error::data(format!("cannot read {}: {e}", path.display()));
    let meta = std::fs::metadata(path).map_err(bad)?;
    if !meta.is_file() {
        return Err(Error::data(format!("{} is not a regular file", path.display())));
    }
    let file = File::open(path).map_err(bad)?;
    if meta.len() == 0 {
        return Ok(Arc::new(Mapped::Read(Vec::new())));
    }
    // SAFETY: the map is private and read-only. If another process truncates the file while it is mapped, reads past the
    // new end raise SIGBUS; this is the accepted risk of mapping, as in every tool that maps its input.
    let map = unsafe { memmap2::MmapOptions::new().map_copy_read_only(&file) }.map_err(bad)?;
    Ok(Arc::new(Mapped::Map(map)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_bytes_stay_the_same() {
        let path = std::env::temp_dir().join(format!("compress-released-{}", std::process::id()));
        let bytes: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let map = open(&path).unwrap();
        for (offset, len) in
            [(0, bytes.len()), (5000, 20_000), (1, 2), (90_000, usize::MAX), (usize::MAX - 1, 5)]
        {
            map.release(offset, len);
            assert!(map.bytes() == bytes);
        }
        std::fs::remove_file(&path).unwrap();
    }
}
