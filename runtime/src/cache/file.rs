//! One file of the cache: a header, a stream that is parsed, and bulk data that is used where the file is mapped.
//!
//! The header and the stream are under a BLAKE3 hash, the bulk under a checksum that any single change changes; a file is
//! as long as its header says, or nothing of it is used.

use kernels::Pool;
use kernels::stored::{Bulk, Reader, Writer};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const MAGIC: &[u8; 8] = b"CMPRSS\x00\x01";
/// Magic, key, lengths of stream and bulk, checksum of the bulk, hash of all these and the stream.
const HEADER: usize = 8 + 32 + 8 + 8 + 8 + 32;
const HASHED: usize = HEADER - 32;
/// The bulk starts on a page.
const PAGE: usize = 4096;
/// Bytes that one task checks.
const PART: usize = 1 << 20;

pub type Key = [u8; 32];

/// A file that was read and found whole.
pub struct Opened {
    map: Arc<memmap2::Mmap>,
    stream: (usize, usize),
    bulk: Bulk,
}

impl Opened {
    pub fn reader(&self) -> Reader<'_> {
        let (at, len) = self.stream;
        Reader { stream: &self.map[at..at + len], bulk: self.bulk.clone() }
    }
}

/// Reads a file written for `key`. `None` when it is not there, damaged, or written for another key.
pub fn open(path: &Path, key: &Key, pool: &dyn Pool) -> Option<Opened> {
    let file = File::open(path).ok()?;
    if !is_own(&file.metadata().ok()?) {
        return None;
    }
    // SAFETY: the map is private and read-only, and files of the cache are replaced as a whole, never written in place.
    // A process that truncates one all the same makes later reads fail, as with any mapped file.
    let map = unsafe { memmap2::MmapOptions::new().map_copy_read_only(&file) }.ok()?;
    let word = |at: usize| Some(u64::from_le_bytes(map.get(at..at + 8)?.try_into().ok()?));
    let head = map.get(..HEADER)?;
    if head[..8] != MAGIC[..] || head[8..40] != key[..] {
        return None;
    }
    let (stream, bulk) = (usize::try_from(word(40)?).ok()?, usize::try_from(word(48)?).ok()?);
    let start = HEADER.checked_add(stream)?.checked_next_multiple_of(PAGE)?;
    if start.checked_add(bulk)? != map.len() {
        return None;
    }
    if map[HEADER + stream..start].iter().any(|&b| b != 0) {
        return None;
    }
    let mut hash = blake3::Hasher::new();
    hash.update(&head[..HASHED]).update(&map[HEADER..HEADER + stream]);
    if hash.finalize().as_bytes()[..] != head[HASHED..] || checksum(&map[start..], pool) != word(56)? {
        return None;
    }
    let map = Arc::new(map);
    // SAFETY: the map owns the memory and is never changed.
    let bulk = unsafe { Bulk::new(map[start..].as_ptr(), bulk, Some(map.clone())) };
    Some(Opened { map, stream: (HEADER, stream), bulk })
}

/// A file that nobody but the user of this process may have written: its code is run.
#[cfg(unix)]
fn is_own(m: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    // SAFETY: it has no conditions.
    let user = unsafe { libc::geteuid() };
    m.is_file() && m.uid() == user && m.mode() & 0o022 == 0
}

#[cfg(not(unix))]
fn is_own(m: &std::fs::Metadata) -> bool {
    m.is_file()
}

/// Writes a file beside its place and renames it, so that readers see all of it or none.
pub fn write(path: &Path, key: &Key, content: &Writer) -> std::io::Result<()> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let own = format!("tmp-{}-{}", std::process::id(), NUMBER.fetch_add(1, Relaxed));
    let temporary = path.with_extension(own);
    let done = fill(&temporary, key, content).and_then(|()| std::fs::rename(&temporary, path));
    if done.is_err() {
        // What was written is of no use; that it may stay is no further harm.
        drop(std::fs::remove_file(&temporary));
    }
    done
}

fn fill(path: &Path, key: &Key, content: &Writer) -> std::io::Result<()> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut w = BufWriter::with_capacity(1 << 20, options.open(path)?);
    let mut head = MAGIC.to_vec();
    head.extend(key);
    head.extend((content.stream.len() as u64).to_le_bytes());
    head.extend((content.bulk_len() as u64).to_le_bytes());
    head.extend(checksum_of(content).to_le_bytes());
    let mut hash = blake3::Hasher::new();
    hash.update(&head).update(&content.stream);
    head.extend(hash.finalize().as_bytes());
    w.write_all(&head)?;
    w.write_all(&content.stream)?;
    let end = HEADER + content.stream.len();
    let gap = |w: &mut BufWriter<File>, n: usize| w.write_all(&vec![0; n]);
    gap(&mut w, end.next_multiple_of(PAGE) - end)?;
    let mut at = 0;
    for (start, piece) in &content.bulk {
        gap(&mut w, start - at)?;
        w.write_all(piece)?;
        at = start + piece.len();
    }
    w.flush()
}

/// Checksum of the bulk as it will lie in the file.
fn checksum_of(content: &Writer) -> u64 {
    let mut parts = Parts::default();
    let mut at = 0;
    for (start, piece) in &content.bulk {
        parts.feed(&vec![0; start - at]);
        parts.feed(piece);
        at = start + piece.len();
    }
    parts.finish()
}

/// Checksums of parts of one size, whatever pieces they come in.
#[derive(Default)]
struct Parts {
    held: Vec<u8>,
    sums: Vec<u64>,
}

impl Parts {
    fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.held.is_empty() && bytes.len() >= PART {
                self.sums.push(sum(&bytes[..PART]));
                bytes = &bytes[PART..];
                continue;
            }
            let n = (PART - self.held.len()).min(bytes.len());
            self.held.extend(&bytes[..n]);
            bytes = &bytes[n..];
            if self.held.len() == PART {
                self.sums.push(sum(&self.held));
                self.held.clear();
            }
        }
    }

    fn finish(mut self) -> u64 {
        if !self.held.is_empty() {
            self.sums.push(sum(&self.held));
        }
        combine(&self.sums)
    }
}

fn checksum(bytes: &[u8], pool: &dyn Pool) -> u64 {
    let sums: Vec<AtomicU64> = bytes.chunks(PART).map(|_| AtomicU64::new(0)).collect();
    let task = |t: usize| sums[t].store(sum(&bytes[t * PART..((t + 1) * PART).min(bytes.len())]), Relaxed);
    if !sums.is_empty() {
        pool.run(sums.len(), &task);
    }
    combine(&sums.iter().map(|s| s.load(Relaxed)).collect::<Vec<_>>())
}

fn combine(sums: &[u64]) -> u64 {
    sum(&sums.iter().flat_map(|s| s.to_le_bytes()).collect::<Vec<_>>())
}

const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
/// Sums side by side, which keep wide registers busy.
const SIDES: usize = 16;

/// Every step is a bijection of the sum and of the word, so one changed word always shows, and others nearly always.
fn sum(bytes: &[u8]) -> u64 {
    let step = |s: u64, w: u64| ((s ^ w).wrapping_mul(MIX)).rotate_left(29);
    let word = |b: &[u8]| u64::from_le_bytes(b.try_into().unwrap_or_default());
    let mut sides: [u64; SIDES] = std::array::from_fn(|i| MIX.wrapping_mul(i as u64 + 1));
    let mut blocks = bytes.chunks_exact(8 * SIDES);
    for block in &mut blocks {
        for (s, w) in sides.iter_mut().zip(block.chunks_exact(8)) {
            *s = step(*s, word(w));
        }
    }
    let mut rest = blocks.remainder().chunks_exact(8);
    let mut all = sides.into_iter().fold(bytes.len() as u64, step);
    for w in &mut rest {
        all = step(all, word(w));
    }
    rest.remainder().iter().fold(all, |all, &b| step(all, u64::from(b)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernels::Serial;

    fn folder(name: &str) -> std::path::PathBuf {
        let d = std::env::temp_dir().join(format!("compress-cache-file-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&d).unwrap();
        d
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_noticed() {
        let d = folder("damage");
        let path = d.join("f");
        let (a, b) = (vec![7u8; 300], (0..PART * 2 + 13).map(|i| (i % 251) as u8).collect::<Vec<_>>());
        let mut w = Writer::default();
        w.stream.extend(b"numbers");
        w.place(&a);
        w.place(&b);
        let key = [3; 32];
        write(&path, &key, &w).unwrap();
        let read = open(&path, &key, &Serial).unwrap();
        assert_eq!(read.reader().stream, b"numbers");
        assert_eq!(read.reader().bulk.part(0, 300).unwrap().bytes(), a);
        assert_eq!(read.reader().bulk.part(320, b.len()).unwrap().bytes(), b);
        assert!(open(&path, &[4; 32], &Serial).is_none());
        let whole = std::fs::read(&path).unwrap();
        let places = (0..200)
            .chain([PAGE / 2, PAGE - 1])
            .chain((4096..whole.len()).step_by(40_009))
            .chain([whole.len() - 1]);
        for at in places {
            let mut bad = whole.clone();
            bad[at] ^= 0x10;
            std::fs::write(&path, &bad).unwrap();
            assert!(open(&path, &key, &Serial).is_none(), "byte {at}");
        }
        for len in [0, 1, HEADER - 1, HEADER, PAGE, whole.len() - 1] {
            std::fs::write(&path, &whole[..len]).unwrap();
            assert!(open(&path, &key, &Serial).is_none(), "cut at {len}");
        }
        std::fs::write(&path, [&whole[..], &[0]].concat()).unwrap();
        assert!(open(&path, &key, &Serial).is_none());
        std::fs::remove_dir_all(&d).unwrap();
    }
}
