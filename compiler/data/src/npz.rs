//! npz: a zip of npy arrays.

use crate::npy;
use ir::{Error, Result, Tensor};
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
    from_reader(BufReader::new(open(path)?)).map_err(named)
}

/// A regular file, opened for reading.
pub(crate) fn open(path: &Path) -> Result<File> {
    let bad = |e: std::io::Error| Error::data(format!("cannot read {}: {e}", path.display()));
    if !std::fs::metadata(path).map_err(bad)?.is_file() {
        return Err(Error::data(format!("{} is not a regular file", path.display())));
    }
    File::open(path).map_err(bad)
}

fn unreadable(e: &dyn std::fmt::Display) -> Error {
    Error::data(format!("not a readable npz file: {e}"))
}

/// As [`read`] from any seekable source.
pub fn from_reader(r: impl Read + Seek) -> Result<BTreeMap<String, Tensor>> {
    let mut zip = ZipArchive::new(r).map_err(|e| unreadable(&e))?;
    if zip.len() > MAX_ENTRIES {
        return Err(Error::limit(format!("{} entries, the limit is {MAX_ENTRIES}", zip.len())));
    }
    let mut arrays = BTreeMap::new();
    for i in 0..zip.len() {
        let entry = zip.by_index(i).map_err(|e| unreadable(&e))?;
        let name = entry.name().map_err(|e| unreadable(&e))?.to_string();
        let Some(stem) = name.strip_suffix(".npy") else { continue };
        if arrays.insert(stem.to_string(), array(entry, stem)?).is_some() {
            return Err(Error::data(format!("array '{}' is there twice", stem.escape_debug())));
        }
    }
    Ok(arrays)
}

fn array(mut entry: impl Read, name: &str) -> Result<Tensor> {
    let t = npy::read(&mut entry).map_err(|e| e.tensor(name))?;
    // Reading up to the end checks the sum of the bytes.
    match std::io::copy(&mut entry.take(1), &mut std::io::sink()) {
        Ok(0) => Ok(t),
        Ok(_) => Err(Error::data("bytes follow the array").tensor(name)),
        Err(e) => Err(unreadable(&e).tensor(name)),
    }
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
    fn damaged_files_are_errors_or_the_same_arrays() {
        let arrays = vec![("x".to_string(), Tensor::vector((0..64).collect::<Vec<i32>>()))];
        let mut file = Cursor::new(Vec::new());
        write(&mut file, &arrays).unwrap();
        let bytes = file.into_inner();
        for n in 0..bytes.len() {
            assert!(from_reader(Cursor::new(bytes[..n].to_vec())).is_err(), "{n}");
            let mut b = bytes.clone();
            b[n] ^= 0x41;
            drop(from_reader(Cursor::new(b)));
        }
    }

    #[test]
    fn what_follows_an_array_is_refused() {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        zip.start_file("x.npy", SimpleFileOptions::default()).unwrap();
        npy::write(&mut zip, &Tensor::scalar(1f32)).unwrap();
        zip.write_all(&[0; 1 << 20]).unwrap();
        let e = from_reader(zip.finish().unwrap()).unwrap_err();
        assert_eq!(e.tensor.as_deref(), Some("x"));
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(from_reader(Cursor::new(b"PK\x03\x04 not a zip".to_vec())).is_err());
        assert!(from_reader(Cursor::new(Vec::new())).is_err());
    }
}
