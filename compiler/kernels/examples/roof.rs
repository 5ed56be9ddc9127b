//! Measures contractions as a share of the fused multiply-adds this CPU can do. One thread; the best of many runs.
//!
//! `cargo run --release -p compress-kernels --example roof [gemm|conv|depthwise] [tier] [part of a layer's name]`

use compress_kernels::*;
use std::hint::black_box;
use std::time::Instant;

/// Seconds of the fastest call.
fn best(mut f: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut least = f64::INFINITY;
    let mut runs = 0;
    while runs < 5 || start.elapsed().as_secs_f64() < 0.35 {
        let t = Instant::now();
        f();
        least = least.min(t.elapsed().as_secs_f64());
        runs += 1;
    }
    least
}

/// GFLOP/s of independent multiply-adds in registers.
fn peak(tier: Tier) -> f64 {
    const STEPS: usize = 100_000;
    let lanes = match tier {
        Tier::Avx512 => 16,
        Tier::Avx2 => 8,
        Tier::Portable => 4,
    };
    let seconds = best(|| {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the tier is one of the CPU's.
        unsafe {
            match tier {
                Tier::Avx512 => black_box(x86::fma512(STEPS)),
                Tier::Avx2 => black_box(x86::fma256(STEPS)),
                Tier::Portable => 0.0,
            };
        }
    });
    (STEPS * 12 * lanes * 2) as f64 / seconds * 1e-9
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    #[target_feature(enable = "avx512f")]
    pub unsafe fn fma512(steps: usize) -> f32 {
        let (x, y) = (_mm512_set1_ps(black_box(0.999)), _mm512_set1_ps(black_box(0.001)));
        let mut acc = [y; 12];
        for _ in 0..steps {
            for a in &mut acc {
                *a = _mm512_fmadd_ps(*a, x, y);
            }
        }
        acc.iter().fold(0.0, |s, &a| s + _mm512_reduce_add_ps(a))
    }

    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn fma256(steps: usize) -> f32 {
        let (x, y) = (_mm256_set1_ps(black_box(0.999)), _mm256_set1_ps(black_box(0.001)));
        let mut acc = [y; 12];
        for _ in 0..steps {
            for a in &mut acc {
                *a = _mm256_fmadd_ps(*a, x, y);
            }
        }
        acc.iter().fold(0.0, |s, &a| s + _mm256_cvtss_f32(a))
    }
}

/// Values on a cache line, as tensors in an arena are.
struct Aligned(Vec<f32>, std::ops::Range<usize>);

impl std::ops::Deref for Aligned {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.0[self.1.clone()]
    }
}

impl std::ops::DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0[self.1.clone()]
    }
}

fn data(len: usize) -> Aligned {
    let mut values = vec![0.0; len + 16];
    let start = values.as_ptr().align_offset(64);
    for (i, v) in values[start..start + len].iter_mut().enumerate() {
        *v = ((i * 2654435761) % 1000) as f32 * 1e-3 - 0.5;
    }
    Aligned(values, start..start + len)
}

fn report(name: &str, flops: usize, bytes: usize, seconds: f64, peak: f64) {
    let rate = flops as f64 / seconds * 1e-9;
    let width = bytes as f64 / seconds * 1e-9;
    println!(
        "{name:34} {:9.1} us {rate:7.1} GFLOP/s {:5.1} %  {width:6.1} GB/s",
        seconds * 1e6,
        rate / peak * 100.0
    );
}

fn gemm(tier: Tier, peak: f64, m: usize, k: usize, n: usize) {
    let (a, b, bias) = (data(m * k), data(k * n), data(n));
    let b = PackedB::from_kn(tier, &b, k, n).unwrap();
    let mut c = data(m * n);
    let e = Epilogue { bias: Some(&bias), act: Activation::Relu, ..Epilogue::default() };
    let t = best(|| gemm_f32(&Serial, m, &a, k, &b, &mut c, n, 1.0, &e).unwrap());
    report(&format!("gemm {m}x{k}x{n}"), 2 * m * n * k, 4 * (m * k + k * n + m * n), t, peak);
}

fn dynamic(tier: Tier, peak: f64, batch: usize, m: usize, k: usize, n: usize, transposed: bool) {
    let (a, b) = (data(batch * m * k), data(batch * k * n));
    let shape = GemmShape { batch, m, n, k };
    let mut scratch = vec![0.0; gemm_dynamic_scratch(shape, false, 1).unwrap()];
    let mut c = data(batch * m * n);
    let strides = if transposed { Strides::nk(k) } else { Strides::kn(n) };
    let t = best(|| {
        let a = Operand { data: &a, strides: Strides { row: k, col: 1 }, batch_stride: m * k };
        let b = Operand { data: &b, strides, batch_stride: k * n };
        let e = Epilogue::default();
        gemm_dynamic_f32(tier, &Serial, shape, a, b, &mut c, n, m * n, 1.0, &e, &mut scratch).unwrap();
    });
    let name = format!("dynamic {batch}x {m}x{k}x{n} {}", if transposed { "nk" } else { "kn" });
    report(&name, 2 * batch * m * n * k, 4 * batch * (m * k + k * n + m * n), t, peak);
}

fn conv(tier: Tier, peak: f64, shape: ConvShape, act: Activation) {
    let [_, h, w] = shape.output().unwrap();
    let [_, kh, kw] = shape.kernel;
    let name = format!(
        "{} {kh}x{kw}/{} {}x{}x{}->{}",
        if shape.groups > 1 { "depthwise" } else { "conv" },
        shape.stride[1],
        shape.input[1],
        shape.input[2],
        shape.cin,
        shape.cout
    );
    if std::env::args().nth(3).is_some_and(|only| !name.contains(&only)) {
        return;
    }
    let x = data(shape.input.iter().product::<usize>() * shape.cin);
    let taps = kh * kw * shape.cin / shape.groups;
    let weights = data(taps * shape.cout);
    let weights = PackedConv::for_shape(tier, &weights, &shape).unwrap();
    let bias = data(shape.cout);
    let mut y = data(h * w * shape.cout);
    let e = Epilogue { bias: Some(&bias), act, ..Epilogue::default() };
    let t = best(|| conv_f32(&Serial, &shape, &x, shape.cin, &weights, &mut y, shape.cout, &e).unwrap());
    report(&name, 2 * h * w * shape.cout * taps, 4 * (x.len() + y.len() + taps * shape.cout), t, peak);
}

/// A square layer with a window of `k` and "same" padding.
fn layer(size: usize, cin: usize, cout: usize, k: usize, stride: usize, groups: usize) -> ConvShape {
    let total = (k - 1).saturating_sub(if stride == 2 && size.is_multiple_of(2) { 1 } else { 0 });
    let (begin, end) = (total / 2, total - total / 2);
    ConvShape::d2((1, size, size, cin), cout, [k, k], [stride; 2], [1, 1], [begin, begin, end, end], groups)
}

fn main() {
    let filter = std::env::args().nth(1).unwrap_or_default();
    let tier = match std::env::args().nth(2).as_deref() {
        Some("avx2") => Tier::Avx2,
        Some("portable") => Tier::Portable,
        _ => Tier::best(),
    };
    let peak = peak(tier);
    println!("{tier:?}: peak {peak:.1} GFLOP/s");
    if "gemm".contains(&filter) {
        for (m, k, n) in [
            (512, 512, 512),
            (128, 384, 1536),
            (128, 1536, 384),
            (128, 384, 384),
            (128, 384, 1152),
            (64, 576, 3136),
            (1, 384, 1536),
            (1, 1280, 1000),
            (1, 4096, 16384),
        ] {
            gemm(tier, peak, m, k, n);
        }
        dynamic(tier, peak, 12, 128, 32, 128, true);
        dynamic(tier, peak, 12, 128, 128, 32, false);
        dynamic(tier, peak, 1, 256, 256, 256, false);
    }
    if "conv".contains(&filter) {
        for (size, cin, cout, k, stride) in [
            (224, 3, 32, 3, 2),
            (112, 32, 16, 1, 1),
            (112, 16, 96, 1, 1),
            (56, 96, 24, 1, 1),
            (56, 24, 144, 1, 1),
            (56, 144, 24, 1, 1),
            (28, 144, 40, 1, 1),
            (28, 40, 240, 1, 1),
            (14, 240, 80, 1, 1),
            (14, 80, 480, 1, 1),
            (14, 480, 112, 1, 1),
            (14, 112, 672, 1, 1),
            (14, 672, 112, 1, 1),
            (7, 672, 192, 1, 1),
            (7, 192, 1152, 1, 1),
            (7, 1152, 192, 1, 1),
            (7, 320, 1280, 1, 1),
            (160, 24, 24, 3, 1),
            (56, 64, 64, 3, 1),
            (14, 256, 256, 3, 1),
            (7, 512, 512, 3, 1),
        ] {
            conv(tier, peak, layer(size, cin, cout, k, stride, 1), Activation::Clip { lo: 0.0, hi: 6.0 });
        }
    }
    if "depthwise".contains(&filter) {
        for (size, channels, k, stride) in [
            (112, 32, 3, 1),
            (112, 96, 3, 2),
            (56, 144, 3, 1),
            (56, 144, 5, 2),
            (28, 240, 5, 1),
            (28, 240, 3, 2),
            (14, 480, 3, 1),
            (14, 480, 5, 1),
            (14, 672, 5, 1),
            (14, 672, 5, 2),
            (7, 1152, 5, 1),
            (7, 1152, 3, 1),
        ] {
            conv(
                tier,
                peak,
                layer(size, channels, channels, k, stride, channels),
                Activation::Clip { lo: 0.0, hi: 6.0 },
            );
        }
    }
}
