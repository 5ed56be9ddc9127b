//! npz: a zip of npy arrays.

use crate::npy;
use ir::{Error, Result, Tensor, budget};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, Write};
use std::path::Path;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter};

const MAX_ENTRIES: usize = 65_536;

/// All arrays of a file by name.
pub fn read(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let named = |e: Error| Error { message: format!("{}: {}", path.display(), e.message), ..e };
    let meta =
        std::fs::metadata(path).map_err(|e| Error::data(format!("cannot read {}: {e}", path.display())))?;
    if !meta.is_file() {
        return Err(Error::data(format!("{} is not a regular file", path.display())));
    }
    let file = File::open(path).map_err(|e| Error::data(format!("cannot read {}: {e}", path.display())))?;
    from_reader(BufReader::new(file)).map_err(named)
}

/// As [`read`] from any seekable source.
pub fn from_reader(r: impl Read + Seek) -> Result<BTreeMap<String, Tensor>> {
    let bad = |e: &dyn std::fmt::Display| Error::data(format!("not a readable npz file: {e}"));
    let mut zip = ZipArchive::new(r).map_err(|e| bad(&e))?;
    if zip.len() > MAX_ENTRIES {
        return Err(Error::limit(format!("{} entries, the limit is {MAX_ENTRIES}", zip.len())));
    }
    let mut arrays = BTreeMap::new();
    for i in 0..zip.len() {
        let entry = zip.by_index(i).map_err(|e| bad(&e))?;
        let name = entry.name().map_err(|e| bad(&e))?.to_string();
        let Some(stem) = name.strip_suffix(".npy") else { continue };
        // The declared size is a claim; reading stops one byte past it.
        let size = usize::try_from(entry.size()).map_err(|e| bad(&e))?;
        budget::check(size).map_err(|e| e.tensor(stem))?;
        let mut bytes = Vec::new();
        entry.take(size as u64 + 1).read_to_end(&mut bytes).map_err(|e| bad(&e))?;
        if bytes.len() != size {
            return Err(Error::data(format!(
                "entry '{}' does not have its declared size",
                stem.escape_debug()
            )));
        }
        let t = npy::parse(&bytes).map_err(|e| e.tensor(stem))?;
        if arrays.insert(stem.to_string(), t).is_some() {
            return Err(Error::data(format!("array '{}' is there twice", stem.escape_debug())));
        }
    }
    Ok(arrays)
}

/// Writes arrays uncompressed, in the order given, without times: equal arrays give equal bytes.
pub fn write(w: &mut (impl Write + Seek), arrays: &[(String, Tensor)]) -> std::io::Result<()> {
    let mut zip = ZipWriter::new(w);
    for (name, t) in arrays {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(DateTime::default())
            .large_file(t.stored_bytes() > 0xf000_0000);
        zip.start_file(format!("{name}.npy"), options)?;
        npy::write(&mut zip, t)?;
    }
    zip.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn round_trip_is_deterministic() {
        let arrays = vec![
            ("b".to_string(), Tensor::vector(vec![1f32, 2.0])),
            ("a/x".to_string(), Tensor::scalar(3i64)),
        ];
        let (mut p, mut q) = (Cursor::new(Vec::new()), Cursor::new(Vec::new()));
        write(&mut p, &arrays).unwrap();
        write(&mut q, &arrays).unwrap();
        assert_eq!(p.get_ref(), q.get_ref());
        let back = from_reader(p).unwrap();
        assert_eq!(back["b"], arrays[0].1);
        assert_eq!(back["a/x"], arrays[1].1);
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(from_reader(Cursor::new(b"PK\x03\x04 not a zip".to_vec())).is_err());
        assert!(from_reader(Cursor::new(Vec::new())).is_err());
    }
}
