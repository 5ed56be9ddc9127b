//! External tensor data: mapped files, confined to the folder of the model.

use crate::mmap::{self, Mapped};
use ir::{Bytes, Error, Result};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// The folder that external data may come from, and the files mapped so far.
pub struct Folder {
    root: Option<PathBuf>,
    /// A location whose file is somewhere else for now.
    moved: Option<(String, PathBuf)>,
    open: RefCell<BTreeMap<PathBuf, Arc<Mapped>>>,
}

impl Folder {
    /// `None`: a model without a folder (bytes in memory) cannot have external data.
    pub fn new(root: Option<&Path>) -> Folder {
        Folder { root: root.map(Path::to_path_buf), moved: None, open: RefCell::default() }
    }

    /// Takes `location` from `file`: the data of a model that is not in its place yet.
    pub fn with_moved(self, location: &str, file: &Path) -> Folder {
        Folder { moved: Some((location.to_string(), file.to_path_buf())), ..self }
    }

    /// Bytes of all files read from.
    pub fn bytes(&self) -> u64 {
        self.open.borrow().values().map(|m| m.bytes().len() as u64).sum()
    }

    /// The files read so far, links resolved.
    pub fn files(&self) -> Vec<PathBuf> {
        self.open.borrow().keys().cloned().collect()
    }

    /// The file at `location`, checked to lie inside the folder, links resolved.
    pub fn file(&self, location: &str) -> Result<Arc<Mapped>> {
        let root =
            self.root.as_ref().ok_or_else(|| Error::data("external data needs a model file on disk"))?;
        let refuse =
            |why: &str| Error::data(format!("external data location '{}' {why}", location.escape_debug()));
        if let Some((_, path)) = self.moved.as_ref().filter(|(name, _)| name == location) {
            return self.opened(path.clone());
        }
        if location.is_empty() || location.contains(['\0', '\\']) {
            return Err(refuse("is not a plain relative path"));
        }
        let relative = Path::new(location);
        if !relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
            return Err(refuse("leaves the model's folder"));
        }
        let root = std::fs::canonicalize(root).map_err(|e| refuse(&format!("cannot be resolved: {e}")))?;
        let path = root.join(relative);
        let resolved = std::fs::canonicalize(&path).map_err(|e| refuse(&format!("cannot be read: {e}")))?;
        let linked = std::fs::symlink_metadata(&path).is_ok_and(|m| m.file_type().is_symlink());
        if linked || !resolved.starts_with(&root) {
            return Err(refuse("is a link or leaves the model's folder"));
        }
        if has_several_links(&resolved) {
            return Err(refuse("is a hard link"));
        }
        self.opened(resolved)
    }

    fn opened(&self, path: PathBuf) -> Result<Arc<Mapped>> {
        if let Some(m) = self.open.borrow().get(&path) {
            return Ok(Arc::clone(m));
        }
        let m = mmap::open(&path)?;
        self.open.borrow_mut().insert(path, Arc::clone(&m));
        Ok(m)
    }

    /// Checks `offset` and `length` of an external tensor against its file.
    pub fn range(
        &self,
        location: &str,
        offset: u64,
        length: Option<u64>,
    ) -> Result<(Arc<Mapped>, usize, usize)> {
        let file = self.file(location)?;
        let size = file.bytes().len() as u64;
        let left = size.checked_sub(offset);
        let bad = || {
            Error::data(format!(
                "external data '{location}' has {size} bytes; offset {offset}, length {length:?} is outside"
            ))
        };
        let left = left.ok_or_else(bad)?;
        let len = length.unwrap_or(left);
        if len > left {
            return Err(bad());
        }
        let narrow = |x: u64| usize::try_from(x).map_err(|_| bad());
        Ok((file, narrow(offset)?, narrow(len)?))
    }
}

#[cfg(unix)]
fn has_several_links(p: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(p).is_ok_and(|m| m.nlink() > 1)
}

#[cfg(not(unix))]
fn has_several_links(_: &Path) -> bool {
    false
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::fs;

    fn folder(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("compress-external-{name}-{}", std::process::id()));
        fs::create_dir_all(dir.join("sub")).unwrap();
        fs::write(dir.join("w.bin"), [1u8; 100]).unwrap();
        fs::write(dir.join("sub/w.bin"), [2u8; 10]).unwrap();
        dir
    }

    #[test]
    fn only_files_below_the_model_are_read() {
        let dir = folder("confined");
        std::os::unix::fs::symlink("/etc/passwd", dir.join("link")).unwrap();
        std::os::unix::fs::symlink("w.bin", dir.join("near")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.join("etc")).unwrap();
        fs::hard_link(dir.join("sub/w.bin"), dir.join("hard")).unwrap();
        let f = Folder::new(Some(&dir));
        assert_eq!(f.file("w.bin").unwrap().bytes().len(), 100);
        for bad in [
            "",
            ".",
            "sub",
            "/etc/passwd",
            "../w.bin",
            "sub/../w.bin",
            "link",
            "near",
            "etc/passwd",
            "hard",
            "no",
            "sub\\w.bin",
            "w.bin\0",
            "C:\\w.bin",
        ] {
            assert!(f.file(bad).is_err(), "{bad:?}");
        }
        assert!(Folder::new(None).file("w.bin").is_err());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn ranges_lie_inside_the_file() {
        let dir = folder("ranges");
        let f = Folder::new(Some(&dir));
        let range = |offset, length| f.range("w.bin", offset, length).map(|(_, o, l)| (o, l));
        assert_eq!(range(10, None).unwrap(), (10, 90));
        assert_eq!(range(10, Some(90)).unwrap(), (10, 90));
        for (offset, length) in [(101, None), (10, Some(91)), (u64::MAX, Some(2)), (2, Some(u64::MAX))] {
            assert!(range(offset, length).is_err(), "{offset} {length:?}");
        }
        fs::remove_dir_all(dir).unwrap();
    }
}
