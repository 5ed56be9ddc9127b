//! Measures products with sparse weights against dense ones of float32 and of 8-bit integers.
//!
//! `cargo run --release -p compress-kernels --example sparse [K] [N]`
//!
//! One thread, formats in turns, medians; times of the float32 product, and how many times faster the others are. `bitmap`
//! holds 8-bit codes that are not zero, `int8` all of them with 8-bit activations, `2:4` is a bitmap with half of its codes.

use compress_kernels::*;
use std::time::Instant;

fn random(len: usize, mut x: u64) -> Vec<f32> {
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

fn median(mut t: Vec<f64>) -> f64 {
    t.sort_by(f64::total_cmp);
    t[t.len() / 2]
}

/// What is timed; the name of its column.
type Timed<'a> = (&'static str, Box<dyn FnMut() + 'a>);

fn main() {
    let mut args = std::env::args().skip(1).filter_map(|a| a.parse::<usize>().ok());
    let (k, n) = (args.next().unwrap_or(768), args.next().unwrap_or(768));
    let (tier, e) = (Tier::best(), Epilogue::default());
    let dense = random(k * n, 1);
    let chance = random(k * n, 2);
    let strides = Strides::kn(n);
    println!("{k} × {n}");
    for zeros in [50, 60, 70, 80, 90, 95] {
        let keep = |i: usize| chance[i] * 50.0 + 50.0 >= zeros as f32;
        let w: Vec<f32> = (0..k * n).map(|i| if keep(i) { dense[i] } else { 0.0 }).collect();
        let codes: Vec<u8> = w.iter().map(|w| (w * 127.0 + 128.0) as u8).collect();
        let scale = vec![1.0 / 127.0; n];
        let c = Codes {
            codes: &codes,
            strides,
            k,
            n,
            bits: 8,
            block: k,
            scale: &scale,
            zero: Zero::One(128),
            table: None,
        };
        let packed = PackedB::from_kn(tier, &w, k, n).expect("sizes fit");
        let sparse = SparseF32::from_strided(tier, &w, strides, k, n).expect("sizes fit");
        let bitmap = PackedCodes::sparse(tier, &c).expect("sizes fit").expect("a known form");
        let signed: Vec<u8> = codes.iter().map(|c| c ^ 0x80).collect();
        let weights = Weights { data: &signed, signed: true, zero: &[], scale: &scale };
        let integers = PackedI8::from_strided(tier, &weights, strides, k, n).expect("sizes fit");
        for m in [1, 4, 8, 16, 32, 64, 128, 512] {
            let x = random(m * k, 3);
            let bytes: Vec<u8> = x.iter().map(|x| (x * 127.0 + 128.0) as u8).collect();
            let a = Activations { data: &bytes, signed: false, zero: 128, zeros: &[], scale: 1.0 / 127.0 };
            let mut y = [const { Vec::new() }; 4].map(|_: Vec<f32>| vec![0f32; m * n]);
            let [ya, yb, yc, yd] = &mut y;
            let mut all: Vec<Timed> = vec![
                (
                    "float32",
                    Box::new(|| gemm_f32(&Serial, m, &x, k, &packed, ya, n, 1.0, &e).expect("sizes fit")),
                ),
                (
                    "sparse",
                    Box::new(|| {
                        gemm_sparse_f32(&Serial, m, (&x, k), &sparse, (yb, n), 1.0, &e).expect("sizes fit")
                    }),
                ),
                (
                    "int8",
                    Box::new(|| {
                        gemm_i8(&Serial, m, &a, &integers, &mut Results::F32(yc), &e).expect("sizes fit")
                    }),
                ),
            ];
            if m <= 8 {
                all.push((
                    "bitmap",
                    Box::new(|| {
                        gemm_packed(&Serial, Precision::Float, m, (&x, k), &bitmap, (yd, n), 1.0, &e)
                            .expect("sizes fit")
                    }),
                ));
            }
            let mut times: Vec<Vec<f64>> = vec![Vec::new(); all.len()];
            let runs = (2e8 / (m * k * n) as f64).clamp(5.0, 60.0) as usize;
            for _ in 0..runs {
                for ((_, f), t) in all.iter_mut().zip(&mut times) {
                    let start = Instant::now();
                    f();
                    t.push(start.elapsed().as_secs_f64());
                }
            }
            let times: Vec<f64> = times.into_iter().map(median).collect();
            print!("{zeros:3} % zeros {m:4} rows: float32 {:8.1} µs", times[0] * 1e6);
            for ((name, _), t) in all.iter().zip(&times).skip(1) {
                print!("  {name} {:5.2} ×", times[0] / t);
            }
            println!();
        }
    }
}
