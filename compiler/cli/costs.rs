//! The clock of the search: layers and models timed with the real kernels, and the times of layers kept in a file, so that
//! a later run on the same CPU need not measure them again.
//!
//! The file has one JSON object a line. What does not read is left out; it is only lost work.

use crate::feeds;
use crate::files::{self, Pending};
use ir::{Evaluate, Feeds, Graph, Tensor};
use runtime::Jit;
use search::{Clock, Piece, Spread};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// Turns and time of one piece.
const TURNS: usize = 5;
const SPAN: Duration = Duration::from_millis(10);
/// Turns and time of a whole model.
const RACE_TURNS: usize = 9;
const RACE_SPAN: Duration = Duration::from_millis(900);
/// Bytes of constants of pieces that are compiled at once.
const AT_ONCE: usize = 64 << 20;
/// Constants of at most this many integers may decide what is done, so they belong to the key.
const DECIDING: usize = 8;
/// Largest file read.
const LARGEST: u64 = 64 << 20;

/// One measured time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Entry {
    cpu: String,
    tool: String,
    threads: usize,
    op: String,
    /// Types of inputs, then of constants.
    shapes: String,
    recipe: String,
    /// Hash of the piece: operators, attributes, types.
    key: String,
    ns: f64,
}

/// Times pieces on a number of threads, each once.
pub struct Stopwatch {
    engine: Jit,
    threads: usize,
    cpu: String,
    tool: String,
    file: Option<PathBuf>,
    /// Of this CPU, build and number of threads, by key.
    known: Mutex<BTreeMap<String, f64>>,
    fresh: Mutex<Vec<Entry>>,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(|e| e.into_inner())
}

impl Stopwatch {
    /// A clock with the times kept in `file`, or in the user's cache folder.
    pub fn new(threads: usize, file: Option<PathBuf>) -> Stopwatch {
        let file = file.or_else(default_file);
        let (cpu, tool) = (cpu(), tool());
        let all = file.as_deref().map(read).unwrap_or_default();
        let mine = |e: &Entry| e.cpu == cpu && e.tool == tool && e.threads == threads;
        let known = all.into_iter().filter(mine).map(|e| (e.key, e.ns)).collect();
        Stopwatch {
            engine: Jit::new(threads),
            threads,
            cpu,
            tool,
            file,
            known: Mutex::new(known),
            fresh: Mutex::default(),
        }
    }

    /// Times pieces that are not known yet.
    fn measure(&self, pieces: &[(&Piece, String)]) {
        let inputs: Vec<Feeds> = pieces
            .iter()
            .map(|(p, _)| feeds::random(&p.graph, &BTreeMap::new(), 0).unwrap_or_default())
            .collect();
        let graphs: Vec<(&Graph, &Feeds)> =
            pieces.iter().zip(&inputs).map(|((p, _), i)| (&p.graph, i)).collect();
        let Some(times) = self.engine.times(&graphs, TURNS, SPAN) else { return };
        for ((p, key), times) in pieces.iter().zip(times) {
            let Some(ns) = undisturbed(times) else { continue };
            lock(&self.known).insert(key.clone(), ns);
            lock(&self.fresh).push(Entry {
                cpu: self.cpu.clone(),
                tool: self.tool.clone(),
                threads: self.threads,
                op: p.op.clone(),
                shapes: shapes(&p.graph),
                recipe: p.form.clone(),
                key: key.clone(),
                ns,
            });
        }
    }

    /// Writes what was measured to the file, beside what other runs have written meanwhile.
    fn keep(&self) {
        let fresh = std::mem::take(&mut *lock(&self.fresh));
        let Some(file) = self.file.as_deref().filter(|_| !fresh.is_empty()) else { return };
        drop(std::fs::create_dir_all(files::parent(file)));
        let mut all = read(file);
        all.retain(|e| {
            !fresh
                .iter()
                .any(|f| (&f.key, &f.cpu, f.threads) == (&e.key, &e.cpu, e.threads) && f.tool == e.tool)
        });
        all.extend(fresh);
        let written = Pending::write(file, |w| {
            all.iter().try_for_each(|e| writeln!(w, "{}", serde_json::to_string(e).unwrap_or_default()))
        });
        if let Err(e) = written.and_then(Pending::commit) {
            eprintln!("compress: warning: the times of layers are not kept: {e}");
        }
    }
}

/// The tenth percentile, in nanoseconds: what else runs on the machine only ever makes a run slower, and may do so for longer
/// than a layer is timed.
fn undisturbed(mut times: Vec<Duration>) -> Option<f64> {
    times.sort();
    times.get(times.len() / 10).map(|t| t.as_nanos() as f64)
}

impl Drop for Stopwatch {
    fn drop(&mut self) {
        self.keep();
    }
}

impl Clock for Stopwatch {
    fn pieces(&self, pieces: &[Piece]) -> Vec<Option<f64>> {
        let keys: Vec<String> = pieces.iter().map(|p| key(&p.graph)).collect();
        let mut missing: Vec<(&Piece, String)> = Vec::new();
        let mut bytes = 0;
        for (p, k) in pieces.iter().zip(&keys) {
            if lock(&self.known).contains_key(k) || missing.iter().any(|m| m.1 == *k) {
                continue;
            }
            bytes += p.graph.initializers().map(|(_, t)| t.stored_bytes()).sum::<usize>();
            missing.push((p, k.clone()));
            if bytes > AT_ONCE {
                self.measure(&std::mem::take(&mut missing));
                bytes = 0;
            }
        }
        self.measure(&missing);
        let known = lock(&self.known);
        keys.iter().map(|k| known.get(k).copied()).collect()
    }

    fn race(&self, graphs: &[&Graph], inputs: &Feeds) -> Option<Vec<Spread>> {
        let entries: Vec<(&Graph, &Feeds)> = graphs.iter().map(|&g| (g, inputs)).collect();
        let times = self.engine.times(&entries, RACE_TURNS, RACE_SPAN)?;
        times.into_iter().map(|t| Spread::of(t.iter().map(|t| t.as_secs_f64() * 1e3).collect())).collect()
    }

    fn threads(&self) -> usize {
        self.threads
    }
}

fn read(file: &Path) -> Vec<Entry> {
    let fits = std::fs::metadata(file).is_ok_and(|m| m.is_file() && m.len() <= LARGEST);
    let bytes = if fits { std::fs::read(file).unwrap_or_default() } else { Vec::new() };
    let text = String::from_utf8_lossy(&bytes);
    let entry = |l: &str| serde_json::from_str::<Entry>(l).ok().filter(|e| e.ns.is_finite() && e.ns > 0.0);
    text.lines().filter_map(entry).collect()
}

/// `compress/costs.jsonl` where the user's caches are.
fn default_file() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let caches = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?;
    Some(caches.join("compress").join("costs.jsonl"))
}

/// Model name of the CPU and the vector extensions it has.
fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find(|l| l.split(':').next().is_some_and(|k| k.trim() == name))?;
        line.split_once(':').map(|(_, v)| v.trim().to_string())
    };
    let wide: Vec<String> = field("flags")
        .unwrap_or_default()
        .split(' ')
        .filter(|f| f.starts_with("avx") || f.starts_with("amx") || *f == "fma")
        .map(str::to_string)
        .collect();
    format!("{} {} {}", std::env::consts::ARCH, field("model name").unwrap_or_default(), wide.join(" "))
}

/// Version and build of this program: another build may have other kernels.
fn tool() -> String {
    let program = std::env::current_exe().ok().and_then(|p| crate::model::hash(&p).ok()).unwrap_or_default();
    format!("{} {}", env!("CARGO_PKG_VERSION"), program.get(..16).unwrap_or_default())
}

fn shapes(g: &Graph) -> String {
    let inputs = g.inputs().iter().map(|&v| g.ty(v).to_string());
    let constants = g.initializers().map(|(_, t)| format!("{}{:?}", t.dtype(), t.shape()));
    inputs.chain(constants).collect::<Vec<_>>().join(" ")
}

/// Hash of what decides how long a graph takes: operators, attributes, types, and small integers.
fn key(g: &Graph) -> String {
    let mut text = String::new();
    let mut numbers: BTreeMap<ir::ValueId, usize> = BTreeMap::new();
    let mut name = |v: ir::ValueId| {
        let next = numbers.len();
        *numbers.entry(v).or_insert(next)
    };
    for &v in g.inputs() {
        text += &format!("{} {};", name(v), g.ty(v));
    }
    for id in g.order().unwrap_or_default() {
        let Some(n) = g.get(id) else { continue };
        text += &format!("{} {:?}", ir::qualified(n.op), n.attrs);
        for v in n.inputs() {
            match v.map(|v| (v, g.constant(v))) {
                None => text.push_str(" -"),
                Some((v, None)) => text += &format!(" {}", name(v)),
                Some((v, Some(t))) => {
                    text += &format!(" {}:{}{:?}{}", name(v), t.dtype(), t.shape(), value(t))
                }
            }
        }
        n.outputs().iter().flatten().for_each(|&v| text += &format!(" > {}", name(v)));
        text.push(';');
    }
    g.outputs().iter().for_each(|o| text += &format!(" {}", name(o.value)));
    blake3::hash(text.as_bytes()).to_hex().as_str().chars().take(24).collect()
}

fn value(t: &Tensor) -> String {
    let small = t.dtype() == ir::DType::I64 && t.len() <= DECIDING;
    if small { format!("{:?}", t.to_i64s().unwrap_or_default()) } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(rows: usize, weight: f32) -> Piece {
        let text = format!(
            "g (float[{rows}, 64] x) => (float[{rows}, 32] y) <float[64, 32] w = {{{}}}> {{ y = MatMul (x, w) }}",
            vec![weight.to_string(); 64 * 32].join(", ")
        );
        let mut graph = ir::text::parse(&text, &ops::Standard).unwrap();
        ir::infer(&mut graph).unwrap();
        Piece { graph, op: "MatMul".into(), form: "keep".into() }
    }

    #[test]
    fn keys_tell_sizes_apart_and_not_values() {
        let of = |p: Piece| key(&p.graph);
        assert_eq!(of(piece(4, 0.5)), of(piece(4, 0.25)));
        assert_ne!(of(piece(4, 0.5)), of(piece(8, 0.5)));
    }

    #[test]
    fn times_are_kept_and_not_measured_again() {
        let dir = std::env::temp_dir().join(format!("compress-costs-{}", std::process::id()));
        let file = dir.join("deep/costs.jsonl");
        let first = Stopwatch::new(1, Some(file.clone()));
        let [Some(a), Some(b)] = first.pieces(&[piece(4, 0.5), piece(512, 0.5)])[..] else {
            panic!("no times")
        };
        assert!(a > 0.0 && b > a, "{a} {b}");
        assert_eq!(first.pieces(&[piece(4, 0.25)]), [Some(a)]);
        drop(first);
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
        std::fs::write(&file, format!("nonsense\n{{\"ns\": 1}}\n{text}")).unwrap();
        let second = Stopwatch::new(1, Some(file.clone()));
        assert_eq!(second.pieces(&[piece(512, 0.5), piece(4, 0.5)]), [Some(b), Some(a)]);
        assert!(lock(&second.fresh).is_empty());
        let other = Stopwatch::new(2, Some(file.clone()));
        assert!(lock(&other.known).is_empty(), "times on other numbers of threads are others");
        drop((second, other));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
