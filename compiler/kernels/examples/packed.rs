//! Measures products of one row with packed weights against float32 ones, all read from memory.
//!
//! `cargo run --release -p compress-kernels --example packed [K] [N] [part of a format's name, or rows]`
//!
//! Formats take turns and every turn starts with the float32 product, which leaves nothing of the others in the caches;
//! medians. Weights are counted, not bytes.

use compress_kernels::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Reproducible bytes.
fn bytes(len: usize, mut x: u64) -> Vec<u8> {
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 40) as u8
        })
        .collect()
}

fn floats(len: usize, seed: u64) -> Vec<f32> {
    bytes(len, seed).into_iter().map(|b| f32::from(b) / 128.0 - 1.0).collect()
}

/// Threads that wait spinning.
struct Spinning(Arc<State>);

#[derive(Default)]
struct State {
    /// A task set: its number, and the function as two words.
    turn: AtomicUsize,
    f: [AtomicUsize; 2],
    tasks: AtomicUsize,
    next: AtomicUsize,
    done: AtomicUsize,
}

impl Spinning {
    fn new() -> Spinning {
        let state = Arc::new(State::default());
        let worker = Arc::clone(&state);
        std::thread::spawn(move || {
            for turn in 1.. {
                while worker.turn.load(Ordering::Acquire) < turn {
                    std::hint::spin_loop();
                }
                worker.work();
                worker.done.fetch_add(1, Ordering::Release);
            }
        });
        Spinning(state)
    }
}

impl State {
    fn work(&self) {
        let words = [self.f[0].load(Ordering::Relaxed), self.f[1].load(Ordering::Relaxed)];
        // SAFETY: `run` stored a function that lives until both threads are done.
        let f: &(dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(words) };
        loop {
            let task = self.next.fetch_add(1, Ordering::Relaxed);
            if task >= self.tasks.load(Ordering::Relaxed) {
                return;
            }
            f(task);
        }
    }
}

impl Pool for Spinning {
    fn threads(&self) -> usize {
        2
    }
    fn run(&self, tasks: usize, f: &(dyn Fn(usize) + Sync)) {
        let s = &self.0;
        // SAFETY: a fat pointer is two words.
        let words: [usize; 2] = unsafe { std::mem::transmute(f) };
        s.f[0].store(words[0], Ordering::Relaxed);
        s.f[1].store(words[1], Ordering::Relaxed);
        s.tasks.store(tasks, Ordering::Relaxed);
        s.next.store(0, Ordering::Relaxed);
        s.done.store(0, Ordering::Relaxed);
        s.turn.fetch_add(1, Ordering::Release);
        s.work();
        while s.done.load(Ordering::Acquire) == 0 {
            std::hint::spin_loop();
        }
    }
}

struct Format {
    name: &'static str,
    bits: u32,
    block: usize,
    each: bool,
    table: Option<Vec<f32>>,
    precision: Precision,
    /// Percent of zeros behind a bitmap.
    zeros: Option<usize>,
}

fn formats() -> Vec<Format> {
    let all = usize::MAX;
    let whole = |n: usize| Some(bytes(n, 3).iter().map(|&b| (f32::from(b) - 128.0) / 64.0).collect());
    let any = |n: usize| Some(floats(n, 4).iter().map(|x| x.sin()).collect());
    let f = |name, bits, block, each, table, precision| Format {
        name,
        bits,
        block,
        each,
        table,
        precision,
        zeros: None,
    };
    let sparse =
        |(name, zeros)| Format { zeros: Some(zeros), ..f(name, 8, all, false, None, Precision::Float) };
    let mut formats = vec![
        f("int4", 4, all, false, None, Precision::Float),
        f("int4 zeros", 4, all, true, None, Precision::Float),
        f("int4 block 128", 4, 128, false, None, Precision::Float),
        f("int4 block 32", 4, 32, false, None, Precision::Float),
        f("int4 block 32 zeros", 4, 32, true, None, Precision::Float),
        f("int8", 8, all, false, None, Precision::Float),
        f("int8 block 32", 8, 32, false, None, Precision::Float),
        f("16 int8 entries", 4, all, false, whole(16), Precision::Float),
        f("16 float entries", 4, all, false, any(16), Precision::Float),
        f("256 float entries", 8, all, false, any(256), Precision::Float),
        f("int4, 16-bit rows", 4, all, false, None, Precision::Words),
        f("int4 block 32, 16-bit rows", 4, 32, false, None, Precision::Words),
        f("int8, 16-bit rows", 8, all, false, None, Precision::Words),
        f("int8 block 32, 16-bit rows", 8, 32, false, None, Precision::Words),
        f("16 int8 entries, 16-bit rows", 4, all, false, whole(16), Precision::Words),
        f("16 float entries, 16-bit rows", 4, all, false, any(16), Precision::Words),
        f("256 float entries, 16-bit rows", 8, all, false, any(256), Precision::Words),
        f("int4, 8-bit rows", 4, all, false, None, Precision::Bytes),
        f("int4 block 32, 8-bit rows", 4, 32, false, None, Precision::Bytes),
        f("16 int8 entries, 8-bit rows", 4, all, false, whole(16), Precision::Bytes),
    ];
    let shares = [
        ("50 % zeros, 2:4", 50),
        ("70 % zeros", 70),
        ("80 % zeros", 80),
        ("90 % zeros", 90),
        ("95 % zeros", 95),
    ];
    formats.extend(shares.map(sparse));
    formats
}

fn median(mut x: Vec<f64>) -> f64 {
    x.sort_by(f64::total_cmp);
    x[x.len() / 2]
}

/// Products of more rows, one thread: where floats become faster.
fn rows(packed: &[(Format, PackedCodes)], k: usize, n: usize, dense: &PackedB) {
    let e = Epilogue::default();
    for m in [1, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128, 512, 2048] {
        let x: Vec<f32> = (0..k * m).map(|i| ((i * 37 % 101) as f32).sin()).collect();
        let mut y = vec![0f32; n * m];
        let mut base = Vec::new();
        let mut times = vec![Vec::new(); packed.len()];
        for _ in 0..9 {
            let start = Instant::now();
            gemm_f32(&Serial, m, &x, k, dense, &mut y, n, 1.0, &e).expect("sizes fit");
            base.push(start.elapsed().as_secs_f64());
            for ((f, p), t) in packed.iter().zip(&mut times) {
                let start = Instant::now();
                gemm_packed(&Serial, f.precision, m, (&x, k), p, (&mut y, n), 1.0, &e).expect("sizes fit");
                t.push(start.elapsed().as_secs_f64());
            }
        }
        let base = median(base);
        print!("{m:3} rows: float32 {:7.0} µs", base * 1e6);
        for ((f, _), t) in packed.iter().zip(times) {
            print!(" | {} {:.2}", f.name, base / median(t));
        }
        println!();
    }
}

fn main() {
    let mut args = std::env::args().skip(1).peekable();
    let mut number = |default: usize| match args.peek().and_then(|a| a.parse().ok()) {
        Some(n) => {
            args.next();
            n
        }
        None => default,
    };
    let (k, n) = (number(4096), number(16384));
    let part = args.next().unwrap_or_default();
    let tier = Tier::best();
    let codes = bytes(k * n, 1);
    let dense = PackedB::from_nk(tier, &floats(k * n, 2), n, k).expect("sizes fit");
    let packed: Vec<(Format, PackedCodes)> = formats()
        .into_iter()
        .filter(|f| match part == "rows" {
            true => f.precision != Precision::Bytes && f.zeros.is_none(),
            false => f.name.contains(&part),
        })
        .filter_map(|f| {
            let block = f.block.min(k);
            let mut codes: Vec<u8> = codes.iter().map(|c| if f.bits == 4 { c & 15 } else { *c }).collect();
            if let Some(share) = f.zeros {
                let chance = bytes(k * n, 9);
                codes
                    .iter_mut()
                    .zip(chance)
                    .filter(|(_, r)| usize::from(*r) * 100 < share * 256)
                    .for_each(|(c, _)| *c = 8);
            }
            let scales = n * k.div_ceil(block);
            let scale: Vec<f32> = bytes(scales, 5).iter().map(|&b| f32::from(b) / 1024.0).collect();
            let zeros: Vec<f32> = bytes(scales, 6).iter().map(|&b| f32::from(b & 15)).collect();
            let zero = match (f.each, &f.table) {
                (true, _) => Zero::Each(&zeros),
                (_, None) => Zero::One(8),
                _ => Zero::One(0),
            };
            let strides = Strides::nk(k);
            let table = f.table.as_deref();
            let c = Codes { codes: &codes, strides, k, n, bits: f.bits, block, scale: &scale, zero, table };
            let pack = if f.zeros.is_some() { PackedCodes::sparse } else { PackedCodes::dense };
            let p = pack(tier, &c).expect("sizes fit")?;
            Some((f, p))
        })
        .collect();
    if part == "rows" {
        return rows(&packed, k, n, &dense);
    }
    let x: Vec<f32> = (0..k).map(|i| ((i * 37 % 101) as f32).sin()).collect();
    let mut y = vec![0f32; n];
    let e = Epilogue::default();
    for (threads, pool) in [(1, &Serial as &dyn Pool), (2, &Spinning::new())] {
        let mut base = Vec::new();
        let mut times: Vec<Vec<f64>> = vec![Vec::new(); packed.len()];
        for _ in 0..15 {
            for ((f, p), t) in packed.iter().zip(&mut times) {
                let start = Instant::now();
                gemm_f32(pool, 1, &x, k, &dense, &mut y, n, 1.0, &e).expect("sizes fit");
                base.push(start.elapsed().as_secs_f64());
                let start = Instant::now();
                gemm_packed(pool, f.precision, 1, (&x, k), p, (&mut y, n), 1.0, &e).expect("sizes fit");
                t.push(start.elapsed().as_secs_f64());
            }
        }
        let weights = (k * n) as f64 * 1e-9;
        let base = median(base);
        println!("{k} × {n}, {threads} threads");
        println!("  {:28} {:6.1} Gw/s {:6.1} GB/s", "float32", weights / base, 4.0 * weights / base);
        for ((f, p), t) in packed.iter().zip(times) {
            let t = median(t);
            let read = p.bytes() as f64 * 1e-9 / t;
            println!("  {:28} {:6.1} Gw/s {read:6.1} GB/s {:6.2} × float32", f.name, weights / t, base / t);
        }
    }
}
