//! A shelf on disk: candidates wait in a hidden file beside the output, with a journal of the layers that are done. Both go
//! at the end; what a killed run leaves behind, a later one with `--resume` continues.

use crate::files;
use ir::{Bytes, Error, Result};
use search::Shelf;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Longest line of a journal, bytes.
const MAX_LINE: u64 = 1 << 30;
/// How long a killed run may hold its files.
const LEAVING: Duration = Duration::from_secs(5);

/// What notes of arrays of samples begin with; all others are of layers.
pub const SAMPLES: &str = "samples ";

/// Two hidden files, removed at the end.
pub struct Disk {
    candidates: Mutex<File>,
    journal: Option<Mutex<File>>,
    known: BTreeMap<String, String>,
    paths: Vec<PathBuf>,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(|e| e.into_inner())
}

impl Disk {
    /// Files beside `target`; `identity` says what the run does, and with `resume` the notes of an earlier run of the same
    /// identity are used. Where that folder takes no files, or another run has them, a nameless temporary file; `None` where
    /// there is no room at all.
    pub fn near(target: &Path, identity: &str, resume: bool) -> Option<Disk> {
        Disk::beside(target, identity, resume).or_else(Disk::nameless)
    }

    fn beside(target: &Path, identity: &str, resume: bool) -> Option<Disk> {
        let name = target.file_name()?.to_string_lossy().into_owned();
        let path = |kind: &str| files::parent(target).join(format!(".{name}.{kind}"));
        let paths = vec![path("candidates"), path("journal")];
        let open = |p: &PathBuf| {
            // A link that somebody put there is not followed.
            let link = fs::symlink_metadata(p).is_ok_and(|m| !m.is_file());
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            if link { None } else { options.open(p).ok() }
        };
        let mut journal = open(&paths[1])?;
        // Two runs with one output at once: the second does without a journal. A killed one may take a moment to go.
        let started = Instant::now();
        while journal.try_lock().is_err() {
            if !resume || started.elapsed() > LEAVING {
                return None;
            }
            std::thread::sleep(LEAVING / 100);
        }
        let candidates = open(&paths[0])?;
        paths.iter().for_each(|p| files::expect(p));
        let (known, end) = if resume { read(&mut journal, identity) } else { (BTreeMap::new(), 0) };
        if known.is_empty() {
            candidates.set_len(0).ok()?;
            journal.set_len(0).ok()?;
            journal.seek(SeekFrom::Start(0)).ok()?;
            writeln!(journal, "{}", serde_json::json!(identity)).ok()?;
        } else {
            // A line cut short by the end of that run goes.
            journal.set_len(end).ok()?;
            journal.seek(SeekFrom::End(0)).ok()?;
        }
        Some(Disk { candidates: Mutex::new(candidates), journal: Some(Mutex::new(journal)), known, paths })
    }

    fn nameless() -> Option<Disk> {
        let path = std::env::temp_dir().join(format!(".compress-{}.candidates", std::process::id()));
        files::expect(&path);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).ok()?;
        Some(Disk { candidates: Mutex::new(file), journal: None, known: BTreeMap::new(), paths: vec![path] })
    }

    /// Layers that an earlier run finished.
    pub fn resumed(&self) -> usize {
        self.known.keys().filter(|k| !k.starts_with(SAMPLES)).count()
    }
}

/// The notes of a journal of this identity, and where the last complete one ends.
fn read(journal: &mut File, identity: &str) -> (BTreeMap<String, String>, u64) {
    let (mut known, mut end) = (BTreeMap::new(), 0u64);
    let mut lines = BufReader::new(journal);
    let mut line = String::new();
    while let Ok(n @ 1..) = std::io::Read::take(&mut lines, MAX_LINE).read_line(&mut line) {
        let Some(text) = line.strip_suffix('\n') else { break };
        if end == 0 {
            if serde_json::from_str::<String>(text).ok().as_deref() != Some(identity) {
                break;
            }
        } else {
            let Ok((key, note)) = serde_json::from_str::<(String, String)>(text) else { break };
            known.insert(key, note);
        }
        end += n as u64;
        line.clear();
    }
    (known, end)
}

impl Shelf for Disk {
    fn put(&self, bytes: &[u8]) -> Result<u64> {
        let mut f = lock(&self.candidates);
        let failed = |e: std::io::Error| Error::data(format!("cannot keep candidates: {e}"));
        let at = f.seek(SeekFrom::End(0)).map_err(failed)?;
        f.write_all(bytes).map_err(failed)?;
        Ok(at)
    }

    fn get(&self, at: u64, len: usize) -> Result<Arc<dyn Bytes>> {
        let f = lock(&self.candidates);
        onnx::map_part(&f, at, len).map_err(|e| Error::data(format!("cannot read candidates: {e}")))
    }

    fn noted(&self, key: &str) -> Option<String> {
        self.known.get(key).cloned()
    }

    fn note(&self, key: &str, text: &str) {
        let Some(journal) = &self.journal else { return };
        // A note that cannot be written only means that a later run does this layer again.
        drop(writeln!(lock(journal), "{}", serde_json::json!([key, text])));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for p in &self.paths {
            drop(fs::remove_file(p));
            files::forget(p);
        }
    }
}

#[cfg(test)]
impl Disk {
    /// Leaves what a killed run leaves behind.
    pub fn killed(self) {
        lock(self.journal.as_ref().unwrap()).unlock().unwrap();
        std::mem::forget(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_and_the_files_go() {
        let dir = std::env::temp_dir().join(format!("compress-shelf-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let shelf = Disk::near(&dir.join("out.onnx"), "a", false).unwrap();
        let (a, b) = (shelf.put(b"one").unwrap(), shelf.put(b"three").unwrap());
        assert_eq!(shelf.get(b, 5).unwrap().bytes(), b"three");
        assert_eq!(shelf.get(a, 3).unwrap().bytes(), b"one");
        assert!(shelf.get(b, 6).is_err());
        shelf.note("layer", "two\nlines");
        // Another run with the same output does not touch these files.
        let other = Disk::near(&dir.join("out.onnx"), "a", false).unwrap();
        assert_eq!((other.resumed(), other.put(b"x").unwrap()), (0, 0));
        drop(other);
        // Killed: nothing is removed, and the last line is cut short.
        let mut journal = OpenOptions::new().append(true).open(dir.join(".out.onnx.journal")).unwrap();
        journal.write_all(b"[\"other\", \"cut").unwrap();
        shelf.killed();
        let again = Disk::near(&dir.join("out.onnx"), "a", true).unwrap();
        assert_eq!(again.noted("layer").as_deref(), Some("two\nlines"));
        assert_eq!((again.resumed(), again.get(b, 5).unwrap().bytes()), (1, &b"three"[..]));
        assert_eq!(again.put(b"four").unwrap(), 8);
        again.note("more", "x");
        again.killed();
        let third = Disk::near(&dir.join("out.onnx"), "a", true).unwrap();
        assert_eq!(third.resumed(), 2);
        third.killed();
        let different = Disk::near(&dir.join("out.onnx"), "b", true).unwrap();
        assert_eq!((different.resumed(), different.put(b"z").unwrap()), (0, 0));
        drop(different);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        fs::remove_dir(&dir).unwrap();
    }
}
