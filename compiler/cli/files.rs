//! Output files: written beside the target, renamed when complete, removed when anything interrupts.

use crate::exit::{Failure, Result};
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Temporary files that exist right now, for the interrupt handler.
static PENDING: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Removes every unfinished output. Called on Ctrl-C.
pub fn discard_pending() {
    let pending = PENDING.lock().unwrap_or_else(|e| e.into_inner());
    pending.iter().for_each(|p| drop(fs::remove_file(p)));
}

/// From now on `p` is removed on Ctrl-C.
pub fn expect(p: &Path) {
    PENDING.lock().unwrap_or_else(|e| e.into_inner()).insert(p.to_path_buf());
}

/// `p` is gone or complete.
pub fn forget(p: &Path) {
    PENDING.lock().unwrap_or_else(|e| e.into_inner()).remove(p);
}

/// Refuses targets that must not be written: a device, a directory, an existing file without `force`, the input itself.
pub fn check_target(target: &Path, input: Option<&Path>, force: bool) -> Result {
    let shown = target.display();
    if let Some(input) = input
        && let (Ok(a), Ok(b)) = (fs::canonicalize(target), fs::canonicalize(input))
        && a == b
    {
        return Err(Failure::usage(format!("{shown} is the input; choose another output with -o")));
    }
    match fs::symlink_metadata(target) {
        Err(_) => {}
        Ok(m) if m.is_dir() => {
            return Err(Failure::usage(format!("{shown} is a directory; name a file with -o")));
        }
        Ok(_) if !fs::metadata(target).is_ok_and(|m| m.is_file()) => {
            return Err(Failure::usage(format!(
                "{shown} is not a regular file; choose another output with -o"
            )));
        }
        Ok(_) if !force => {
            return Err(Failure::usage(format!("{shown} exists already; --force overwrites it")));
        }
        Ok(_) => {}
    }
    let dir = parent(target);
    if !dir.is_dir() {
        return Err(Failure::bad(format!("cannot write {shown}: folder {} does not exist", dir.display())));
    }
    Ok(())
}

/// All bytes of a regular file.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let bad = |e: std::io::Error| Failure::bad(format!("cannot read {}: {e}", path.display()));
    if !fs::metadata(path).map_err(bad)?.is_file() {
        return Err(Failure::bad(format!("{} is not a regular file", path.display())));
    }
    fs::read(path).map_err(bad)
}

/// The folder of `p`.
pub fn parent(p: &Path) -> &Path {
    match p.parent() {
        Some(d) if !d.as_os_str().is_empty() => d,
        _ => Path::new("."),
    }
}

/// An output under construction. Dropping it without [`Pending::commit`] removes the temporary file.
pub struct Pending {
    target: PathBuf,
    temporary: PathBuf,
    committed: bool,
    /// What has to be in place before: the data of a model.
    first: Option<Box<Pending>>,
}

impl Pending {
    /// Writes `target`'s temporary file through `fill`.
    pub fn write(
        target: &Path,
        fill: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
    ) -> Result<Pending> {
        let name = target.file_name().ok_or_else(|| Failure::usage("the output has no file name"))?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}.partial", std::process::id()));
        let temporary = parent(target).join(hidden);
        let failed = |e: std::io::Error| Failure::bad(format!("cannot write {}: {e}", target.display()));
        expect(&temporary);
        let pending = Pending { target: target.to_path_buf(), temporary, committed: false, first: None };
        let file =
            OpenOptions::new().write(true).create_new(true).open(&pending.temporary).map_err(failed)?;
        let mut w = BufWriter::with_capacity(1 << 20, file);
        fill(&mut w).and_then(|()| w.flush()).map_err(failed)?;
        w.into_inner().map_err(|e| failed(e.into_error()))?.sync_all().map_err(failed)?;
        Ok(pending)
    }

    /// The same with another file that comes into place before it.
    pub fn after(mut self, first: Pending) -> Pending {
        self.first = Some(Box::new(first));
        self
    }

    /// The file that comes into place before.
    pub fn first(&self) -> Option<&Pending> {
        self.first.as_deref()
    }

    /// Name in the end.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Bytes of both files.
    pub fn bytes(&self) -> u64 {
        let own = fs::metadata(&self.temporary).map_or(0, |m| m.len());
        own + self.first.as_ref().map_or(0, |f| f.bytes())
    }

    /// Where the bytes are before [`Pending::commit`].
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Puts the file in place.
    pub fn commit(mut self) -> Result {
        if let Some(first) = self.first.take() {
            first.commit()?;
        }
        fs::rename(&self.temporary, &self.target)
            .map_err(|e| Failure::bad(format!("cannot write {}: {e}", self.target.display())))?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.committed {
            drop(fs::remove_file(&self.temporary));
        }
        forget(&self.temporary);
    }
}
