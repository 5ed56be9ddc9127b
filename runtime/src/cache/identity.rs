//! What a model file holds, as a digest; and the shortcut that a file which nobody touched holds what it held.
//!
//! The shortcut compares device, inode, size, and both times of change; the change time of the inode is the system's and
//! cannot be set back. It is recorded only for files that had not changed for a while, because within the granularity of
//! the clock a second change may leave no trace. Where there is no such time every opening reads the whole file.

use kernels::Pool;
use std::fs::File;
use std::path::Path;
use std::sync::Mutex;

pub type Digest = [u8; 32];

/// Bytes that one task hashes.
const PART: usize = 1 << 20;

/// BLAKE3 over the BLAKE3 hashes of the parts, and the length.
pub fn digest(path: &Path, pool: &dyn Pool) -> std::io::Result<Digest> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    if len == 0 || !file.metadata()?.is_file() {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the map is private and read-only; a file that is truncated meanwhile fails to be read, as any mapped file.
    let map = unsafe { memmap2::MmapOptions::new().map_copy_read_only(&file) }?;
    let parts: Vec<Mutex<Digest>> = map.chunks(PART).map(|_| Mutex::default()).collect();
    pool.run(parts.len(), &|t| {
        let part = &map[t * PART..((t + 1) * PART).min(map.len())];
        *parts[t].lock().unwrap_or_else(|e| e.into_inner()) = *blake3::hash(part).as_bytes();
    });
    let mut all = blake3::Hasher::new();
    all.update(&(map.len() as u64).to_le_bytes());
    for p in parts {
        all.update(&p.into_inner().unwrap_or_else(|e| e.into_inner()));
    }
    Ok(*all.finalize().as_bytes())
}

/// What the file system says of a file: device, inode, size, and seconds and nanoseconds of its two changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    parts: [i64; 7],
}

kernels::fields! { Stamp { parts } }

/// Changes younger than this may hide others.
const SETTLED: i64 = 2;

impl Stamp {
    #[cfg(unix)]
    pub fn of(path: &Path) -> Option<Stamp> {
        use std::os::unix::fs::MetadataExt;
        let m = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
        let size = i64::try_from(m.size()).ok()?;
        let parts =
            [m.dev() as i64, m.ino() as i64, size, m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()];
        Some(Stamp { parts })
    }

    #[cfg(not(unix))]
    pub fn of(_: &Path) -> Option<Stamp> {
        None
    }

    /// Whether the last change is old enough that another one would show.
    pub fn is_settled(&self) -> bool {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.is_ok_and(|now| {
            let [_, _, _, changed, _, inode, _] = self.parts;
            (now.as_secs() as i64).saturating_sub(changed.max(inode)) > SETTLED
        })
    }
}
