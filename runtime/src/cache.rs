//! Compiled programs on disk, keyed by the content of the model, the shapes and values compiled for, the CPU and the
//! build of this crate.
//!
//! A folder holds three kinds of files, each replaced as a whole: a *stamp* says which content a model file had when it
//! was last looked at (see `identity.rs`), a *card* what a model takes and gives, a *program* is one compiled program
//! with its packed weights, which is mapped. What is missing, damaged or of another build is compiled again and
//! written again; failures to write are no failures of a run. The folder is kept below a bound by deleting the files that
//! were written or used longest ago.

mod file;
mod identity;

use crate::prepare::Key as ProgramKey;
use codegen::{Precision, Program};
use file::Key;
use identity::{Digest, Stamp};
use ir::{DType, Dim, TensorType, ValueType};
use kernels::Pool;
use kernels::stored::{Stored, Writer};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Bytes that all files of a folder may take.
const BOUND: u64 = 8 << 30;
/// Age at which a file that is used is marked as used again.
const REFRESH: Duration = Duration::from_secs(3600);
/// The build of this crate and of those it compiles with.
const BUILD: &str = env!("COMPRESS_BUILD_ID");

/// What a model takes and gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Card {
    pub inputs: Vec<(String, ValueType)>,
    pub outputs: Vec<(String, ValueType)>,
    /// Inputs whose values decide shapes or branches.
    pub deciding: Vec<usize>,
    /// Some weights are stored as bfloat16.
    pub bf16: bool,
}

/// A folder of compiled programs.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

/// A model whose content is known.
#[derive(Debug, Clone)]
pub struct Known {
    content: Digest,
    /// The file, and those its weights are in, with their stamps when the content was read.
    files: Vec<(PathBuf, Option<Stamp>)>,
}

/// A file before it is read, to tell whether it changed meanwhile.
pub struct Moment(Option<Stamp>);

impl Moment {
    pub fn of(path: &Path) -> Moment {
        Moment(Stamp::of(path))
    }
}

impl Known {
    /// Bytes of all files.
    pub fn bytes(&self) -> usize {
        self.files.iter().filter_map(|(p, _)| std::fs::metadata(p).ok()).map(|m| m.len() as usize).sum()
    }

    /// Whether all files are as they were when their content was read.
    pub fn is_unchanged(&self) -> bool {
        self.files.iter().all(|(p, s)| Stamp::of(p) == *s)
    }
}

/// A stamp file: content of the model's file, and stamps of all files.
struct Record {
    content: Digest,
    files: Vec<(String, Stamp)>,
}

/// A card as it is stored.
struct Stocked {
    /// Content of files with weights, by their paths below the model's folder.
    external: Vec<(String, Digest)>,
    inputs: Vec<(String, Written)>,
    outputs: Vec<(String, Written)>,
    deciding: Vec<usize>,
    bf16: bool,
}

/// A tensor type; dims by size, by name, or open.
struct Written {
    dtype: i32,
    shape: Option<Vec<(Option<usize>, Option<String>)>>,
}

kernels::fields! {
    Record { content, files }
    Stocked { external, inputs, outputs, deciding, bf16 }
    Written { dtype, shape }
}

fn written(t: &ValueType) -> Option<Written> {
    let t = t.as_tensor()?;
    let dim = |d: &Dim| match d {
        Dim::Known(n) => (Some(*n), None),
        Dim::Symbol(s) => (None, Some(s.to_string())),
        Dim::Unknown => (None, None),
    };
    let shape = t.shape.as_ref().map(|s| s.iter().map(dim).collect());
    Some(Written { dtype: t.dtype.onnx(), shape })
}

fn read(w: Written) -> Option<ValueType> {
    let dim = |(n, s): (Option<usize>, Option<String>)| match (n, s) {
        (Some(n), _) => Dim::Known(n),
        (None, Some(s)) => Dim::symbol(&s),
        (None, None) => Dim::Unknown,
    };
    let shape = w.shape.map(|s| s.into_iter().map(dim).collect());
    Some(ValueType::Tensor(TensorType { dtype: DType::from_onnx(w.dtype)?, shape }))
}

/// A key of everything that decides what a file holds.
fn key(kind: &str, parts: &[&[u8]]) -> Key {
    let mut h = blake3::Hasher::new();
    for p in [kind.as_bytes(), BUILD.as_bytes(), kernels::dispatch::features().as_bytes()].iter().chain(parts)
    {
        h.update(&(p.len() as u64).to_le_bytes()).update(p);
    }
    *h.finalize().as_bytes()
}

impl Cache {
    /// A folder that need not be there yet.
    pub fn new(folder: &Path) -> Cache {
        Cache { folder: folder.to_path_buf() }
    }

    /// The model at `path` and its card, if it was seen before with the content it has now.
    pub fn look(&self, path: &Path, pool: &dyn Pool) -> Option<(Known, Card)> {
        let whole = std::fs::canonicalize(path).ok()?;
        let stamp = Stamp::of(&whole);
        let name = key("stamp", &[whole.to_string_lossy().as_bytes()]);
        if let Some(r) = self.get::<Record>("stamp", &name, pool) {
            let files: Vec<(PathBuf, Option<Stamp>)> =
                r.files.into_iter().map(|(p, s)| (p.into(), Some(s))).collect();
            let same = |(p, s): &(PathBuf, Option<Stamp>)| s.is_some() && Stamp::of(p) == *s;
            if files.first().is_some_and(|f| f.0 == whole) && files.iter().all(same) {
                let stocked = self.get::<Stocked>("card", &key("card", &[&r.content]), pool)?;
                let content = content(&r.content, &stocked.external);
                return Some((Known { content, files }, card(stocked)?));
            }
        }
        let own = identity::digest(&whole, pool).ok()?;
        let stocked = self.get::<Stocked>("card", &key("card", &[&own]), pool)?;
        let mut files = vec![(whole.clone(), stamp)];
        for (p, d) in &stocked.external {
            let p = whole.parent()?.join(p);
            let stamp = Stamp::of(&p);
            if identity::digest(&p, pool).ok()? != *d {
                return None;
            }
            files.push((p, stamp));
        }
        self.remember(&name, own, &files);
        Some((Known { content: content(&own, &stocked.external), files }, card(stocked)?))
    }

    /// Keeps what a model takes and gives, with the files its weights are in, as it was read since `before`. `None` for a
    /// model that cannot be kept.
    pub fn learn(
        &self,
        path: &Path,
        before: &Moment,
        external: &[PathBuf],
        card: &Card,
        pool: &dyn Pool,
    ) -> Option<Known> {
        let whole = std::fs::canonicalize(path).ok()?;
        let ports = |list: &[(String, ValueType)]| -> Option<Vec<(String, Written)>> {
            list.iter().map(|(n, t)| Some((n.clone(), written(t)?))).collect()
        };
        let (inputs, outputs) = (ports(&card.inputs)?, ports(&card.outputs)?);
        let mut files = vec![(whole.clone(), before.0.clone())];
        let own = identity::digest(&whole, pool).ok()?;
        let mut others = Vec::new();
        for p in external {
            let p = std::fs::canonicalize(p).ok()?;
            files.push((p.clone(), Stamp::of(&p)));
            let below = p.strip_prefix(whole.parent()?).ok()?.to_str()?.to_string();
            others.push((below, identity::digest(&p, pool).ok()?));
        }
        let known = Known { content: content(&own, &others), files };
        if !known.is_unchanged() {
            return None;
        }
        let deciding = card.deciding.clone();
        let stocked = Stocked { external: others, inputs, outputs, deciding, bf16: card.bf16 };
        self.put("card", &key("card", &[&own]), &stocked);
        let name = key("stamp", &[whole.to_string_lossy().as_bytes()]);
        self.remember(&name, own, &known.files);
        Some(known)
    }

    /// Keeps stamps, if all files have one that later changes would not leave as it is.
    fn remember(&self, name: &Key, content: Digest, files: &[(PathBuf, Option<Stamp>)]) {
        let stamped = |(p, s): &(PathBuf, Option<Stamp>)| {
            let s = s.clone().filter(|s| s.is_settled() && Stamp::of(p).as_ref() == Some(s))?;
            Some((p.to_str()?.to_string(), s))
        };
        if let Some(files) = files.iter().map(stamped).collect::<Option<Vec<_>>>() {
            self.put("stamp", name, &Record { content, files });
        }
    }

    /// The program for a key, if it was kept.
    pub fn program(&self, model: &Known, of: Made, pool: &dyn Pool) -> Option<Program> {
        let name = program_key(model, of);
        let path = self.path("program", &name);
        let opened = file::open(&path, &name, pool)?;
        let sizes: Vec<usize> =
            of.0.iter().map(|(d, s, _)| ir::budget::bytes(*d, s)).collect::<ir::Result<_>>().ok()?;
        let program = Program::load(&mut opened.reader(), &sizes)?;
        used(&path);
        Some(program)
    }

    /// Keeps a program. False when it cannot be kept, or the model's files changed since they were read.
    pub fn keep(&self, model: &Known, of: Made, program: &Program) -> bool {
        let mut w = Writer::default();
        if !program.store(&mut w) || !model.is_unchanged() {
            return false;
        }
        let name = program_key(model, of);
        self.write("program", &name, &w)
    }

    fn path(&self, kind: &str, key: &Key) -> PathBuf {
        let name: String = key[..20].iter().map(|b| format!("{b:02x}")).collect();
        self.folder.join(format!("{name}.{kind}"))
    }

    fn get<T: Stored>(&self, kind: &str, key: &Key, pool: &dyn Pool) -> Option<T> {
        let opened = file::open(&self.path(kind, key), key, pool)?;
        let mut reader = opened.reader();
        let x = T::take(&mut reader)?;
        reader.stream.is_empty().then_some(x)
    }

    fn put<T: Stored>(&self, kind: &str, key: &Key, x: &T) {
        let mut w = Writer::default();
        x.put(&mut w);
        self.write(kind, key, &w);
    }

    fn write(&self, kind: &str, key: &Key, w: &Writer) -> bool {
        let path = self.path(kind, key);
        let done = create(&self.folder).is_ok() && file::write(&path, key, w).is_ok();
        if done {
            self.bound(BOUND, &path);
        }
        done
    }

    /// Deletes the files that were used longest ago until the rest is below `most` bytes; `last` stays.
    fn bound(&self, most: u64, last: &Path) {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return };
        let ours = |p: &Path| {
            let kind = p.extension().map(|e| e.to_string_lossy().into_owned()).unwrap_or_default();
            matches!(&*kind, "stamp" | "card" | "program") || kind.starts_with("tmp-")
        };
        let mut files: Vec<(SystemTime, u64, PathBuf)> = entries
            .flatten()
            .filter(|e| ours(&e.path()) && e.path() != last)
            .filter_map(|e| {
                let m = e.metadata().ok().filter(std::fs::Metadata::is_file)?;
                Some((m.modified().ok()?, m.len(), e.path()))
            })
            .collect();
        files.sort();
        let held = |p: &Path| std::fs::metadata(p).map_or(0, |m| m.len());
        let left = |p: &Path| p.extension().is_some_and(|e| e.to_string_lossy().starts_with("tmp-"));
        let aged = |t: &SystemTime| t.elapsed().is_ok_and(|a| a > REFRESH);
        // What a process left that ended while it wrote.
        files.retain(|(t, _, p)| !(left(p) && aged(t) && std::fs::remove_file(p).is_ok()));
        let mut total = files.iter().map(|f| f.1).sum::<u64>() + held(last);
        for (_, bytes, path) in files {
            if total <= most {
                break;
            }
            // Somebody else may have deleted it; one that maps it keeps what it has.
            drop(std::fs::remove_file(path));
            total -= bytes;
        }
    }
}

/// Content of a model: its own file and those its weights are in.
fn content(own: &Digest, external: &[(String, Digest)]) -> Digest {
    let mut h = blake3::Hasher::new();
    h.update(own);
    for (p, d) in external {
        h.update(&(p.len() as u64).to_le_bytes()).update(p.as_bytes()).update(d);
    }
    *h.finalize().as_bytes()
}

/// What a program was made for.
type Made<'a> = (&'a ProgramKey, Precision);

fn program_key(model: &Known, (of, precision): Made) -> Key {
    let mut w = Writer::default();
    let all: Vec<(i32, Vec<usize>, Option<Vec<u8>>)> =
        of.iter().map(|(d, s, v)| (d.onnx(), s.clone(), v.clone())).collect();
    all.put(&mut w);
    key("program", &[&model.content, &w.stream, &[precision as u8]])
}

fn card(s: Stocked) -> Option<Card> {
    let ports = |list: Vec<(String, Written)>| -> Option<Vec<(String, ValueType)>> {
        list.into_iter().map(|(n, t)| Some((n, read(t)?))).collect()
    };
    let (inputs, outputs) = (ports(s.inputs)?, ports(s.outputs)?);
    let fits = s.deciding.iter().all(|&i| i < inputs.len());
    fits.then_some(Card { inputs, outputs, deciding: s.deciding, bf16: s.bf16 })
}

/// Marks a file as used, now and then.
fn used(path: &Path) {
    let mark = || -> std::io::Result<()> {
        let now = SystemTime::now();
        let age = now.duration_since(std::fs::metadata(path)?.modified()?).unwrap_or_default();
        if age > REFRESH {
            std::fs::File::options().write(true).open(path)?.set_modified(now)
        } else {
            Ok(())
        }
    };
    // A folder that cannot be written serves all the same.
    drop(mark());
}

/// The folder, for its owner alone: it holds machine code that is run.
fn create(folder: &Path) -> std::io::Result<()> {
    let mut b = std::fs::DirBuilder::new();
    b.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut b, 0o700);
    b.create(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_stays_below_its_bound_and_the_newest_stay() {
        let d = std::env::temp_dir().join(format!("compress-cache-bound-{}", std::process::id()));
        std::fs::create_dir_all(&d).unwrap();
        let cache = Cache::new(&d);
        let file = |name: &str, age: u64| {
            let p = d.join(name);
            std::fs::write(&p, [0; 100]).unwrap();
            let f = std::fs::File::options().write(true).open(&p).unwrap();
            f.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
            p
        };
        let (old, mid, new) = (file("a.program", 30), file("b.program", 20), file("c.program", 10));
        let foreign = file("notes.txt", 99);
        cache.bound(250, &new);
        assert!(!old.exists() && mid.exists() && new.exists() && foreign.exists());
        cache.bound(10, &new);
        assert!(!mid.exists() && new.exists());
        std::fs::remove_dir_all(&d).unwrap();
    }
}
