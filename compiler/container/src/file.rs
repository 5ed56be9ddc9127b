//! Containers on disk.

use crate::{Error, is_container, unpack};
use std::io::Read;
use std::path::Path;

/// Bytes a container on disk may always stand for, and how many times its own size beyond that: real models stay far
/// below, and a small hostile file cannot take the machine.
const ROOM: u64 = 256 << 20;
const GROWTH: u64 = 64;

/// The file inside, when `path` is a regular file that is a container; `None` for other files and for those that cannot
/// be read, which whoever opens them next reports.
///
/// # Errors
/// As [`unpack`].
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let Ok(Some(bytes)) = load(path) else { return Ok(None) };
    let limit = ROOM.saturating_add(GROWTH.saturating_mul(bytes.len() as u64));
    unpack(&bytes, limit).map(Some)
}

fn load(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    // Opening a pipe would wait for its writer.
    if !std::fs::metadata(path)?.is_file() {
        return Ok(None);
    }
    let mut file = std::fs::File::open(path)?;
    let mut bytes = vec![0; 4];
    file.read_exact(&mut bytes)?;
    if !is_container(&bytes) {
        return Ok(None);
    }
    file.read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}
