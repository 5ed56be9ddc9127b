//! Folders of samples: which files count, which of them are bad, in which order they come.

use crate::images;
use ir::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

/// Deepest folder below the one given.
const MAX_DEPTH: usize = 8;
/// Most files looked at.
const MAX_FILES: usize = 1 << 20;
/// Most samples read; of more, an even spread.
const MAX_SAMPLES: usize = 4096;
/// File endings that hold arrays.
const ARRAYS: &[&str] = &["npz", "npy", "safetensors"];

/// What the samples of a folder are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Arrays,
    Images,
}

/// The files of a folder that hold samples.
#[derive(Debug)]
pub struct Listing {
    pub kind: Kind,
    pub files: Vec<PathBuf>,
    pub notes: Vec<String>,
}

fn ending(p: &Path) -> String {
    p.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default()
}

/// Files with arrays below `root`, or else images; the first of each sub-folder, then the second of each, and so on, so
/// that every stretch of samples has all classes.
pub fn list(root: &Path) -> Result<Listing> {
    let mut all = Vec::new();
    walk(root, 0, &mut all)?;
    all.sort();
    let (arrays, rest): (Vec<PathBuf>, Vec<PathBuf>) =
        all.into_iter().partition(|p| ARRAYS.contains(&ending(p).as_str()));
    let (images, other): (Vec<PathBuf>, Vec<PathBuf>) =
        rest.into_iter().partition(|p| images::ENDINGS.contains(&ending(p).as_str()));
    let (kind, files, aside) = if arrays.is_empty() {
        (Kind::Images, images, other)
    } else {
        (Kind::Arrays, arrays, [images, other].concat())
    };
    if files.is_empty() {
        let endings = [ARRAYS, images::ENDINGS].concat().join(", ");
        return Err(Error::data(format!("{} holds no file that ends in {endings}", root.display())));
    }
    let mut notes = Vec::new();
    let is_table = |p: &PathBuf| ending(p) == "csv";
    if let Some(first) = aside.iter().find(|p| !is_table(p)) {
        let n = aside.iter().filter(|p| !is_table(p)).count();
        notes.push(format!("{n} files are not read as samples (first {})", first.display()));
    }
    let mut files = interleaved(files);
    if files.len() > MAX_SAMPLES {
        let n = files.len();
        notes.push(format!("{MAX_SAMPLES} of {n} files are read, evenly spread"));
        files = (0..MAX_SAMPLES).map(|i| files[i * n / MAX_SAMPLES].clone()).collect();
    }
    Ok(Listing { kind, files, notes })
}

fn walk(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    let cannot = |e: std::io::Error| Error::data(format!("cannot read {}: {e}", dir.display()));
    for entry in std::fs::read_dir(dir).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        // Links to folders are not followed: they may lead around in circles.
        if entry.file_type().map_err(cannot)?.is_dir() {
            if depth >= MAX_DEPTH {
                let path = entry.path();
                return Err(Error::limit(format!("{} lies deeper than {MAX_DEPTH} folders", path.display())));
            }
            walk(&entry.path(), depth + 1, found)?;
        } else if !entry.path().is_dir() {
            found.push(entry.path());
        }
        if found.len() > MAX_FILES {
            return Err(Error::limit(format!("more than {MAX_FILES} files")));
        }
    }
    Ok(())
}

fn interleaved(files: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut seen: BTreeMap<PathBuf, usize> = BTreeMap::new();
    let mut ranked: Vec<(usize, PathBuf)> = files
        .into_iter()
        .map(|f| {
            let rank = seen.entry(f.parent().unwrap_or(&f).to_path_buf()).or_default();
            *rank += 1;
            (*rank, f)
        })
        .collect();
    ranked.sort();
    ranked.into_iter().map(|(_, f)| f).collect()
}

/// Runs `read` on every file, on all cores; in the order of the files.
pub fn each<T: Send>(files: &[PathBuf], read: impl Fn(usize, &Path) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let i = next.fetch_add(1, Relaxed);
            let Some(f) = files.get(i) else { return done };
            done.push((i, read(i, f)));
        }
    };
    let threads = thread::available_parallelism().map_or(1, |n| n.get()).min(files.len().max(1));
    let mut all: Vec<(usize, T)> = thread::scope(|s| {
        let handles: Vec<_> = (1..threads).map(|_| s.spawn(work)).collect();
        let mut all = work();
        for h in handles {
            match h.join() {
                Ok(part) => all.extend(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all
    });
    all.sort_by_key(|(i, _)| *i);
    all.into_iter().map(|(_, t)| t).collect()
}

/// One line for each bad file up to a few, and how many there are.
pub fn skipped(bad: &[(PathBuf, Error)], total: usize) -> Vec<String> {
    const NAMED: usize = 20;
    if bad.is_empty() {
        return Vec::new();
    }
    let mut lines: Vec<String> =
        bad.iter().take(NAMED).map(|(p, e)| format!("skipped {}: {e}", p.display())).collect();
    let more = if bad.len() > NAMED { format!(", the first {NAMED} are named") } else { String::new() };
    lines.push(format!("{} of {total} files are skipped{more}", bad.len()));
    lines
}
