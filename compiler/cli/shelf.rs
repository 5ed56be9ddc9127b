//! A shelf on disk: candidates wait in a temporary file that no other process can open.

use crate::files;
use ir::{Error, Result};
use search::Shelf;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// A temporary file, removed at the end.
pub struct Disk {
    file: Mutex<File>,
    path: PathBuf,
}

impl Disk {
    /// A file in the folder of `target` or in the system's folder for temporary files; `None` when neither takes one.
    pub fn near(target: &Path) -> Option<Disk> {
        let name = format!(".compress-{}.candidates", std::process::id());
        [files::parent(target).to_path_buf(), std::env::temp_dir()].iter().find_map(|dir| {
            let path = dir.join(&name);
            files::expect(&path);
            let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
            // Where an open file may lose its name it does so at once: not even a killed process leaves it behind.
            if file.is_err() || (cfg!(unix) && fs::remove_file(&path).is_ok()) {
                files::forget(&path);
            }
            Some(Disk { file: Mutex::new(file.ok()?), path })
        })
    }
}

impl Shelf for Disk {
    fn put(&self, bytes: &[u8]) -> Result<u64> {
        let mut f = self.file.lock().unwrap_or_else(|e| e.into_inner());
        let failed = |e: std::io::Error| Error::data(format!("{}: {e}", self.path.display()));
        let at = f.seek(SeekFrom::End(0)).map_err(failed)?;
        f.write_all(bytes).map_err(failed)?;
        Ok(at)
    }

    fn get(&self, at: u64, len: usize) -> Result<Vec<u8>> {
        let mut f = self.file.lock().unwrap_or_else(|e| e.into_inner());
        let failed = |e: std::io::Error| Error::data(format!("{}: {e}", self.path.display()));
        let mut bytes = ir::budget::filled(len, 0u8)?;
        f.seek(SeekFrom::Start(at)).and_then(|_| f.read_exact(&mut bytes)).map_err(failed)?;
        Ok(bytes)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
        files::forget(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_and_the_file_goes() {
        let dir = std::env::temp_dir().join(format!("compress-shelf-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let shelf = Disk::near(&dir.join("out.onnx")).unwrap();
        let (a, b) = (shelf.put(b"one").unwrap(), shelf.put(b"three").unwrap());
        assert_eq!(shelf.get(b, 5).unwrap(), b"three");
        assert_eq!(shelf.get(a, 3).unwrap(), b"one");
        assert!(shelf.get(b, 6).is_err());
        drop(shelf);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        fs::remove_dir(&dir).unwrap();
    }
}
