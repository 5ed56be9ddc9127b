//! Memory limits from the model's size: generous for real models, tight enough that a hostile file cannot take the machine.

use crate::args::Bounds;
use crate::exit::{Code, Failure, Result, last_word};
use std::path::Path;
use std::time::{Duration, Instant};

/// Largest single tensor before the model's own size is added.
const BASE_TENSOR: u64 = 384 << 20;
/// Largest sum of live tensors before the model's own size is added.
const BASE_TOTAL: u64 = 640 << 20;

/// What a run takes besides tensors: code, graphs, compiled programs, candidates of one layer.
const BASE_OTHER: u64 = 2 << 30;
/// How often the memory is looked at.
const GLANCE: Duration = Duration::from_millis(20);

/// Sets the budget for working on `model`, or what the user allows, and watches the process keep it. Returns the bound.
pub fn set(model: &Path, bounds: &Bounds) -> Result<u64> {
    let file = folder_bytes(model);
    let (tensor, total, bound) = match &bounds.max_memory {
        Some(s) => {
            let n = parse_bytes(s)
                .ok_or_else(|| Failure::usage(format!("--max-memory '{s}' is not a size such as 2G")))?;
            (n, n, n)
        }
        None => {
            let total = BASE_TOTAL.saturating_add(file.saturating_mul(8));
            (BASE_TENSOR.saturating_add(file), total, total.saturating_add(BASE_OTHER))
        }
    };
    ir::budget::set_tensor_limit(usize::try_from(tensor).unwrap_or(usize::MAX));
    ir::budget::set_total_limit(usize::try_from(total).unwrap_or(usize::MAX));
    watch(bound, bounds.timeout)?;
    Ok(bound)
}

/// Ends the program with one line when `seconds` have passed or when it holds more than `bound` bytes of memory; unfinished
/// outputs are removed. Pages of mapped files are given back long before the bound.
fn watch(bound: u64, seconds: Option<f64>) -> Result {
    let started = Instant::now();
    let watch = move || {
        let mut released = Duration::ZERO;
        loop {
            std::thread::sleep(GLANCE);
            let late = seconds.filter(|&s| started.elapsed().as_secs_f64() > s);
            let mut held = resident().unwrap_or(0);
            if held > bound / 2 && (held > bound || started.elapsed() > released + 5 * GLANCE) {
                onnx::release_all();
                released = started.elapsed();
                held = resident().unwrap_or(0);
            }
            let why = match late {
                Some(s) => format!("not done after {s} s, the limit set by --timeout"),
                None if held > bound => {
                    format!("needs more than {} MB of memory; --max-memory sets the bound", bound / 1_000_000)
                }
                None => continue,
            };
            crate::files::discard_pending();
            last_word(&why);
            std::process::exit(Code::Bad as i32);
        }
    };
    std::thread::Builder::new()
        .name("watch".into())
        .spawn(watch)
        .map(drop)
        .map_err(|e| Failure::bad(format!("cannot start a thread: {e}")))
}

/// Bytes of memory this process holds; `None` where the system does not tell.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// The model file and, for external data, what lies beside it with the same stem.
fn folder_bytes(model: &Path) -> u64 {
    let own = std::fs::metadata(model).map_or(0, |m| m.len());
    let stem = model.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let beside = model
        .parent()
        .and_then(|d| std::fs::read_dir(if d.as_os_str().is_empty() { Path::new(".") } else { d }).ok());
    let data: u64 = beside
        .into_iter()
        .flatten()
        .flatten()
        .filter(|e| {
            let name = e.file_name().to_string_lossy().into_owned();
            name.starts_with(&stem)
                && (name.ends_with(".data") || name.ends_with("_data") || name.ends_with(".bin"))
        })
        .filter_map(|e| e.metadata().ok())
        .map(|m| m.len())
        .sum();
    own.saturating_add(data)
}

/// `123`, `64K`, `5MB`, `2G`, `1.5GB`, `3MiB`: decimal with a plain suffix, binary with `i`.
pub fn parse_bytes(s: &str) -> Option<u64> {
    let s = s.trim();
    let split = s.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(s.len());
    let (number, unit) = s.split_at(split);
    let unit = unit.trim().to_ascii_lowercase();
    let (unit, base) = match unit.trim_end_matches('b') {
        u if u.ends_with('i') => (u.trim_end_matches('i').to_string(), 1024f64),
        u => (u.to_string(), 1000f64),
    };
    let power = match unit.as_str() {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return None,
    };
    let n = number.parse::<f64>().ok()? * base.powi(power);
    (0.0..1e18).contains(&n).then_some(n as u64)
}

#[cfg(test)]
mod tests {
    use super::parse_bytes;

    #[test]
    fn sizes() {
        assert_eq!(parse_bytes("5MB"), Some(5_000_000));
        assert_eq!(parse_bytes("2G"), Some(2_000_000_000));
        assert_eq!(parse_bytes("1KiB"), Some(1024));
        assert_eq!(parse_bytes("12"), Some(12));
        assert_eq!(parse_bytes("x"), None);
        assert_eq!(parse_bytes("5Q"), None);
    }
}
