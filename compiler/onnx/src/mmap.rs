//! Files as mapped memory: the one file of this crate with `unsafe`.

#![allow(unsafe_code)] // mapping is unsafe by nature; see the safety argument below

use ir::{Bytes, Error, Result};
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, Weak};

/// Everything mapped right now.
static MAPPED: Mutex<Vec<Weak<Mapped>>> = Mutex::new(Vec::new());

/// Bytes of a page; where pages are larger the system refuses and nothing is released.
#[cfg(unix)]
const PAGE: usize = 4096;

/// From this size on, pages are asked for together before they are read.
#[cfg(target_os = "linux")]
const AT_ONCE: usize = 1 << 17;

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

    #[cfg(target_os = "linux")]
    fn prefetch(&self, offset: usize, len: usize) {
        let Mapped::Map(map) = self else { return };
        let (start, end) = (offset / PAGE * PAGE, offset.saturating_add(len).min(map.len()));
        if end.saturating_sub(start) >= AT_ONCE {
            // Older systems refuse, and pages come one by one.
            drop(map.advise_range(memmap2::Advice::PopulateRead, start, end - start));
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
    Ok(known(map))
}

/// `len` bytes at `offset` of a file that this program made and that nobody shortens while the map lives.
pub fn part(file: &File, offset: u64, len: usize) -> std::io::Result<Arc<dyn Bytes>> {
    if offset.checked_add(len as u64).is_none_or(|end| file.metadata().is_ok_and(|m| m.len() < end)) {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    if len == 0 {
        return Ok(Arc::new(Vec::<u8>::new()));
    }
    // SAFETY: the range lies in the file, the map is private and read-only, and by the caller's promise the file stays.
    let map = unsafe { memmap2::MmapOptions::new().offset(offset).len(len).map_copy_read_only(file) }?;
    Ok(known(map))
}

fn known(map: memmap2::Mmap) -> Arc<Mapped> {
    let map = Arc::new(Mapped::Map(map));
    let mut all = MAPPED.lock().unwrap_or_else(|e| e.into_inner());
    all.retain(|m| m.strong_count() > 0);
    all.push(Arc::downgrade(&map));
    map
}

/// Gives the pages of all mapped files back. What is read again comes from the files again.
pub fn release_all() {
    let all = MAPPED.lock().unwrap_or_else(|e| e.into_inner()).clone();
    all.iter().filter_map(Weak::upgrade).for_each(|m| m.release(0, usize::MAX));
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
            map.prefetch(offset, len);
            assert!(map.bytes() == bytes);
        }
        release_all();
        assert!(map.bytes() == bytes);
        let file = File::open(&path).unwrap();
        let middle = part(&file, 5001, 70_000).unwrap();
        assert_eq!(middle.bytes(), &bytes[5001..75_001]);
        middle.release(0, usize::MAX);
        assert_eq!(middle.bytes(), &bytes[5001..75_001]);
        assert_eq!(part(&file, 7, 0).unwrap().bytes().len(), 0);
        assert!(part(&file, 1, bytes.len()).is_err() && part(&file, u64::MAX, 2).is_err());
        std::fs::remove_file(&path).unwrap();
    }
}
