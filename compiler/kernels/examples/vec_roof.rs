//! Prints the speed of the kernels that are not contractions, one thread, best of many runs.
//!
//! `cargo run --release -p compress-kernels --example vec_roof [name…]`

use compress_kernels::attention::{Attention, HeadStrides, Heads, attention_on};
use compress_kernels::convert::{Scales, dequantize_on, narrow_f16_on, quantize_on, widen_f16_on};
use compress_kernels::norm::{Norm, NormArgs, normalize_rows_on};
use compress_kernels::reduce::{Reduction, reduce_on};
use compress_kernels::resize::{Image, Taps, resize_linear_on};
use compress_kernels::rnn::{Kind, PackedRecurrence, Projected, RecurrenceArgs, recur_on};
use compress_kernels::softmax::{Softmax, softmax_rows_on};
use compress_kernels::transpose::permute;
use compress_kernels::vecmath::{ENTRIES, map_on, pow_on};
use compress_kernels::{Serial, Tier};
use std::time::Instant;

/// Seconds of the fastest of many calls.
fn best(mut f: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    let start = Instant::now();
    while start.elapsed().as_millis() < 40 {
        let t = Instant::now();
        f();
        best = best.min(t.elapsed().as_secs_f64());
    }
    best
}

/// Prints one line of giga-units per second, a column for each tier.
fn line(name: &str, unit: &str, amount: f64, mut run: impl FnMut(Tier)) {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if !wanted.is_empty() && !wanted.iter().any(|w| name.contains(w.as_str())) {
        return;
    }
    print!("{name:<34}");
    for &tier in Tier::available() {
        print!("{:>10.2}", amount / best(|| run(tier)) / 1e9);
    }
    println!("  {unit}");
}

fn main() {
    print!("{:<34}", "");
    Tier::available().iter().for_each(|t| print!("{:>10}", format!("{t:?}")));
    println!();
    functions();
    rows();
    heads();
    recurrences();
    conversions();
    moves();
}

fn values(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919) % 2003) as f32 / 200.0 - 5.0).collect()
}

fn functions() {
    let n = 4096;
    let (x, mut y) = (values(n), vec![0.0; n]);
    for &(name, f, _) in ENTRIES {
        line(name, "Gelem/s", n as f64, |t| map_on(t, f, &x, &mut y).unwrap_or_default());
    }
    let base: Vec<f32> = x.iter().map(|v| v.abs() + 0.1).collect();
    line("vec_pow", "Gelem/s", n as f64, |t| pow_on(t, &base, &[1.7], &mut y).unwrap_or_default());
}

fn rows() {
    for n in [128, 384, 1000] {
        let len = 64 * n;
        let (x, mut y) = (values(len), vec![0.0; len]);
        let gamma = values(n);
        line(&format!("softmax 64x{n}"), "Gelem/s", len as f64, |t| {
            softmax_rows_on(t, &Serial, Softmax::Plain, Some(&x), &mut y, n, 1.0, None).unwrap_or_default()
        });
        line(&format!("layer norm + residual 64x{n}"), "Gelem/s", len as f64, |t| {
            let args = NormArgs {
                gamma: Some(&gamma),
                beta: Some(&gamma),
                residual: Some(&x),
                ..NormArgs::default()
            };
            normalize_rows_on(t, &Serial, Norm::Layer { epsilon: 1e-5 }, &x, &mut y, n, args)
                .unwrap_or_default()
        });
    }
    for (outer, n, inner) in [(64, 1024, 1), (1, 49, 1280), (1, 3136, 32), (1, 65536, 1)] {
        let (x, mut y) = (values(outer * n * inner), vec![0.0; outer * inner]);
        for op in [Reduction::Mean, Reduction::Max] {
            line(&format!("reduce {op:?} {outer}x{n}x{inner}"), "Gelem/s", x.len() as f64, |t| {
                reduce_on(t, &Serial, op, &x, &mut y, outer, n, inner).unwrap_or_default()
            });
        }
    }
}

/// `[1, S, H, D]` self-attention.
fn heads() {
    for (tokens, heads, dim) in [(128, 12, 32), (16, 12, 32), (512, 12, 64), (2048, 4, 64)] {
        let x = values(tokens * heads * dim);
        let mut y = vec![0.0; x.len()];
        let strides = HeadStrides { batch: 0, head: dim, position: heads * dim, lane: 1 };
        let h = Heads { data: &x, strides };
        let a = Attention {
            q: h,
            k: h,
            v: h,
            mask: None,
            causal: None,
            scale: 0.1,
            softcap: 0.0,
            batch: 1,
            heads,
            kv_heads: heads,
            queries: tokens,
            keys: tokens,
            dim,
            value_dim: dim,
            unseen: f32::NAN,
            guard: false,
        };
        let flop = 4 * heads * tokens * tokens * dim;
        line(&format!("attention {tokens}x{heads}x{dim}"), "Gflop/s", flop as f64, |t| {
            attention_on(t, &Serial, &a, &mut y, strides).unwrap_or_default()
        });
    }
}

fn recurrences() {
    for (name, kind) in [
        ("lstm", Kind::Lstm),
        ("gru", Kind::Gru { linear_before_reset: true }),
        ("gru, reset first", Kind::Gru { linear_before_reset: false }),
        ("rnn", Kind::Rnn),
    ] {
        for batch in [1, 4] {
            let (n, steps) = (128, 16);
            let width = kind.gates() * n;
            let Ok(packed) = PackedRecurrence::pack(kind, &values(width * n), n) else { continue };
            let x = values(steps * batch * width);
            let x = Projected {
                data: &x,
                steps,
                batch,
                step: batch * width,
                row: width,
                lengths: None,
                reverse: false,
                by_blocks: false,
            };
            let (mut h, mut c) = (vec![0.0; batch * n], vec![0.0; batch * n]);
            let flop = 2 * steps * batch * width * n;
            line(&format!("{name}, hidden {n}, batch {batch}"), "Gflop/s", flop as f64, |t| {
                recur_on(t, &Serial, &packed, &RecurrenceArgs::default(), &x, &mut h, &mut c, None)
                    .unwrap_or_default()
            });
        }
    }
}

fn conversions() {
    let n = 16384;
    let (x, mut y, mut q) = (values(n), vec![0.0; n], vec![0u8; n]);
    let mut half = vec![half::f16::ZERO; n];
    let by = Scales { scale: &[0.04], zero: &[128u8], inner: 1 };
    line("quantize u8", "Gelem/s", n as f64, |t| quantize_on(t, &Serial, &x, by, &mut q).unwrap_or_default());
    line("dequantize u8", "Gelem/s", n as f64, |t| {
        dequantize_on(t, &Serial, &q, by, &mut y).unwrap_or_default()
    });
    line("narrow to f16", "Gelem/s", n as f64, |t| narrow_f16_on(t, &x, &mut half).unwrap_or_default());
    line("widen from f16", "Gelem/s", n as f64, |t| widen_f16_on(t, &half, &mut y).unwrap_or_default());
    let image = Image { batch: 1, height: 32, width: 32, channels: 64 };
    let x = values(32 * 32 * 64);
    let mut y = vec![0.0; 4 * x.len()];
    let low: Vec<usize> = (0..64).map(|i| i / 2).collect();
    let high: Vec<usize> = (0..64).map(|i| (i / 2 + 1).min(31)).collect();
    let taps = Taps { low: &low, high: &high, weight: &[0.5; 64] };
    line("resize linear 32x32x64 to 64x64", "Gelem/s", y.len() as f64, |t| {
        resize_linear_on(t, &Serial, image, &x, taps, taps, &mut y).unwrap_or_default()
    });
}

/// Read plus written, on the best tier whatever the column says.
fn moves() {
    println!("moves, GB/s read + written");
    let shapes: [(&[usize], &[usize]); 6] = [
        (&[1, 32, 12544], &[0, 2, 1]),
        (&[1, 12544, 32], &[0, 2, 1]),
        (&[1, 3, 50176], &[0, 2, 1]),
        (&[1, 50176, 3], &[0, 2, 1]),
        (&[1, 128, 12, 32], &[0, 2, 1, 3]),
        (&[1, 1024, 1024], &[0, 2, 1]),
    ];
    for (shape, perm) in shapes {
        let n: usize = shape.iter().product();
        move_line::<f32>(shape, perm, n, 0.0);
        move_line::<u8>(shape, perm, n, 0);
        move_line::<u16>(shape, perm, n, 0);
    }
    let (x, mut y) = (vec![0u8; 1 << 16], vec![0u8; 1 << 16]);
    println!(
        "{:<42}{:>8.1}",
        "copy 64 KiB",
        2.0 * 65536.0 / best(|| std::hint::black_box(&mut y).copy_from_slice(std::hint::black_box(&x))) / 1e9
    );
}

fn move_line<T: compress_kernels::transpose::Element>(shape: &[usize], perm: &[usize], n: usize, zero: T) {
    let (x, mut y) = (vec![zero; n], vec![zero; n]);
    let seconds = best(|| permute(&Serial, &x, shape, perm, &mut y).unwrap_or_default());
    let name = format!("{shape:?} by {perm:?}, {} bytes", size_of::<T>());
    println!("{name:<42}{:>8.1}", 2.0 * (n * size_of::<T>()) as f64 / seconds / 1e9);
}
