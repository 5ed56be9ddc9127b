//! The kernels against what this CPU can do: `cargo bench -p compress-kernels [-- part of a name]`, one thread.
//!
//! After criterion's own lines a table has, for each kernel, the median of its samples and the percent of the roof it
//! meets: multiply-adds of the type in registers, or a copy of as many bytes. A target, where there is one, stands beside.

use compress_kernels::norm::{Norm, NormArgs, normalize_rows_on};
use compress_kernels::softmax::{Softmax, softmax_rows_on};
use compress_kernels::vecmath::{ENTRIES, map_on};
use compress_kernels::*;
use criterion::Criterion;
use std::cell::RefCell;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// What a kernel does, against which roof.
#[derive(Clone, Copy)]
enum Work {
    Float(usize),
    Bytes(usize),
    Bf16(usize),
    /// Bytes read and written.
    Moved(usize),
}

struct Row {
    name: String,
    seconds: f64,
    work: Work,
    target: Option<f64>,
}

struct Bench {
    criterion: Criterion,
    tier: Tier,
    rows: Vec<Row>,
}

impl Bench {
    /// Times `f`, which should reach `target` percent of its roof.
    fn run(&mut self, name: &str, work: Work, target: Option<f64>, mut f: impl FnMut()) {
        let samples = RefCell::new(Vec::new());
        self.criterion.bench_function(name, |b| {
            b.iter_custom(|times| {
                let start = Instant::now();
                (0..times).for_each(|_| f());
                let spent = start.elapsed();
                samples.borrow_mut().push(spent.as_secs_f64() / times as f64);
                spent
            });
        });
        let mut samples = samples.into_inner();
        samples.sort_by(f64::total_cmp);
        if let Some(&seconds) = samples.get(samples.len() / 2) {
            self.rows.push(Row { name: name.into(), seconds, work, target });
        }
    }

    fn table(&self) {
        let (float, bytes) = (probe::peak_f32(self.tier), probe::peak_i8(self.tier));
        println!(
            "\n{:?}: {:.0} GFLOP/s, {:.0} GOP/s of bytes in registers",
            self.tier,
            float / 1e9,
            bytes / 1e9
        );
        println!("{:44} {:>10} {:>12} {:>9} {:>7}", "kernel", "µs", "rate", "of roof", "target");
        for r in &self.rows {
            let (amount, unit, roof) = match r.work {
                Work::Float(n) => (n, "GFLOP/s", float),
                Work::Bytes(n) => (n, "GOP/s", bytes),
                Work::Bf16(n) => (n, "GFLOP/s", 2.0 * float),
                Work::Moved(n) => (n, "GB/s", copies(n)),
            };
            let rate = amount as f64 / r.seconds;
            let percent = 100.0 * rate / roof;
            let target = r
                .target
                .map_or(String::new(), |t| format!("{t:.0} %{}", if percent < t { " missed" } else { "" }));
            println!(
                "{:44} {:10.2} {:>12} {:7.1} % {target:>7}",
                r.name,
                r.seconds * 1e6,
                format!("{:.0} {unit}", rate / 1e9),
                percent
            );
        }
    }
}

/// Bytes a second of a copy that reads and writes as many bytes.
fn copies(bytes: usize) -> f64 {
    let n = (bytes / 8).max(1024);
    probe::copy_bandwidth(&vec![1.0; n], &mut vec![0.0; n])
}

/// Values from the first cache line of their memory on, as tensors in an arena are.
struct Lined(Vec<f32>, usize);

impl std::ops::Deref for Lined {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.0[self.1..]
    }
}

impl std::ops::DerefMut for Lined {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0[self.1..]
    }
}

fn values(len: usize) -> Lined {
    let mut x = vec![0.0; len + 15];
    let start = x.as_ptr().align_offset(64).min(15);
    x.truncate(start + len);
    x[start..].iter_mut().enumerate().for_each(|(i, v)| *v = (i * 2654435761 % 1000) as f32 * 1e-3 - 0.5);
    Lined(x, start)
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 2654435761 % 251) as u8).collect()
}

fn products(b: &mut Bench) {
    let tier = b.tier;
    for (m, k, n, target) in [
        (512, 512, 512, Some(85.0)),
        (128, 384, 1536, None),
        (128, 1536, 384, None),
        (128, 384, 384, None),
        (16, 1280, 1000, None),
    ] {
        let (a, w, mut c) = (values(m * k), values(k * n), values(m * n));
        let packed = PackedB::from_kn(tier, &w, k, n).unwrap();
        let e = Epilogue::default();
        b.run(&format!("gemm f32 {m}x{k}x{n}"), Work::Float(2 * m * k * n), target, || {
            gemm_f32(&Serial, m, &a, k, &packed, &mut c, n, 1.0, &e).unwrap();
        });
        let packed = PackedBf16::from_strided(tier, &w, Strides::kn(n), k, n).unwrap();
        b.run(&format!("gemm bf16 {m}x{k}x{n}"), Work::Bf16(2 * m * k * n), None, || {
            gemm_bf16(&Serial, m, &a, k, &packed, &mut c, n, 1.0, &e).unwrap();
        });
        let (x, w) = (bytes(m * k), bytes(k * n));
        let weights = Weights { data: &w, signed: true, zero: &[], scale: &[0.01] };
        let packed = PackedI8::from_strided(tier, &weights, Strides::kn(n), k, n).unwrap();
        let x = Activations { data: &x, signed: false, zero: 3, zeros: &[], scale: 0.02 };
        let mut y = vec![0u8; m * n];
        let target = (m >= 128).then_some(80.0);
        b.run(&format!("gemm int8 {m}x{k}x{n}"), Work::Bytes(2 * m * k * n), target, || {
            let mut to = Results::Bytes { data: &mut y, signed: false, scale: &[0.1], zero: 5, zeros: &[] };
            gemm_i8(&Serial, m, &x, &packed, &mut to, &e).unwrap();
        });
    }
    for (k, n) in [(1280, 1000), (4096, 16384)] {
        let (a, w, mut c) = (values(k), values(k * n), values(n));
        let packed = PackedB::from_kn(tier, &w, k, n).unwrap();
        b.run(&format!("gemv f32 {k}x{n}"), Work::Moved(4 * k * n), None, || {
            gemm_f32(&Serial, 1, &a, k, &packed, &mut c, n, 1.0, &Epilogue::default()).unwrap();
        });
    }
}

/// A square layer with a window of `k` and "same" padding.
fn layer(size: usize, cin: usize, cout: usize, k: usize, stride: usize, groups: usize) -> ConvShape {
    let total = (k - 1).saturating_sub(if stride == 2 && size.is_multiple_of(2) { 1 } else { 0 });
    let (begin, end) = (total / 2, total - total / 2);
    ConvShape::d2((1, size, size, cin), cout, [k, k], [stride; 2], [1, 1], [begin, begin, end, end], groups)
}

fn convolution(b: &mut Bench, shape: ConvShape, target: Option<f64>) {
    let tier = b.tier;
    let pixels = |s: [usize; 3]| s.iter().product::<usize>();
    let (from, to) = (pixels(shape.input) * shape.cin, pixels(shape.output().unwrap()) * shape.cout);
    let taps = pixels(shape.kernel) * shape.cin / shape.groups;
    let work = 2 * to * taps;
    let kind = if shape.groups > 1 { "depthwise" } else { "conv" };
    let name = format!(
        "{}x{}/{} {}² {}->{}",
        shape.kernel[1], shape.kernel[2], shape.stride[1], shape.input[1], shape.cin, shape.cout
    );
    let act = Activation::Clip { lo: 0.0, hi: 6.0 };
    let bias = values(shape.cout);
    let e = Epilogue { bias: Some(&bias), act, ..Epilogue::default() };
    let (x, w, mut y) = (values(from), values(taps * shape.cout), values(to));
    let packed = PackedConv::for_shape(tier, &w, &shape).unwrap();
    let float = if shape.groups > 1 { Work::Moved(4 * (from + to)) } else { Work::Float(work) };
    b.run(&format!("{kind} f32 {name}"), float, target, || {
        conv_f32(&Serial, &shape, &x, shape.cin, &packed, &mut y, shape.cout, &e).unwrap();
    });
    if shape.groups == 1 {
        let packed = PackedConvBf16::new(tier, &w, shape.cout, shape.cin, shape.kernel, 1).unwrap();
        b.run(&format!("{kind} bf16 {name}"), Work::Bf16(work), None, || {
            conv_bf16(&Serial, &shape, &x, shape.cin, &packed, &mut y, shape.cout, &e).unwrap();
        });
    }
    let (x, w) = (bytes(from), bytes(taps * shape.cout));
    let weights = Weights { data: &w, signed: true, zero: &[], scale: &[0.01] };
    let packed = PackedConvI8::new(tier, &shape, &weights).unwrap();
    let x = Activations { data: &x, signed: false, zero: 3, zeros: &[], scale: 0.02 };
    let mut y = vec![0u8; to];
    let integer = if shape.groups > 1 { Work::Moved(from + to) } else { Work::Bytes(work) };
    b.run(&format!("{kind} int8 {name}"), integer, None, || {
        let mut to = Results::Bytes { data: &mut y, signed: false, scale: &[0.1], zero: 5, zeros: &[] };
        conv_i8(&Serial, &shape, &x, &packed, &mut to, &e).unwrap();
    });
}

fn convolutions(b: &mut Bench) {
    for (size, cin, cout, k, stride, target) in [
        (224, 3, 32, 3, 2, None),
        (112, 32, 16, 1, 1, None),
        (56, 24, 144, 1, 1, Some(75.0)),
        (28, 144, 40, 1, 1, Some(75.0)),
        (14, 480, 112, 1, 1, Some(75.0)),
        (7, 320, 1280, 1, 1, Some(75.0)),
        (160, 24, 24, 3, 1, Some(75.0)),
        (56, 64, 64, 3, 1, Some(75.0)),
        (28, 128, 128, 3, 1, Some(75.0)),
        (14, 256, 256, 3, 1, Some(75.0)),
    ] {
        convolution(b, layer(size, cin, cout, k, stride, 1), target);
    }
    for (size, channels, k, stride) in
        [(112, 32, 3, 1), (56, 144, 3, 1), (28, 240, 5, 1), (14, 672, 5, 2), (7, 1152, 3, 1)]
    {
        convolution(b, layer(size, channels, channels, k, stride, channels), None);
    }
}

fn rows(b: &mut Bench) {
    let tier = b.tier;
    for n in [128, 384] {
        let len = 128 * n;
        let (x, gamma, mut y) = (values(len), values(n), values(len));
        b.run(&format!("softmax 128x{n}"), Work::Moved(8 * len), None, || {
            softmax_rows_on(tier, &Serial, Softmax::Plain, Some(&x), &mut y, n, 1.0, None).unwrap();
        });
        b.run(&format!("layer norm with residual 128x{n}"), Work::Moved(12 * len), None, || {
            let args = NormArgs {
                gamma: Some(&gamma),
                beta: Some(&gamma),
                residual: Some(&x),
                ..NormArgs::default()
            };
            normalize_rows_on(tier, &Serial, Norm::Layer { epsilon: 1e-5 }, &x, &mut y, n, args).unwrap();
        });
    }
    let n = 1 << 16;
    let (x, mut y) = (values(n), values(n));
    for &(name, f, _) in ENTRIES {
        b.run(&format!("{name} {n}"), Work::Moved(8 * n), None, || {
            map_on(tier, f, black_box(&x), &mut y).unwrap();
        });
    }
}

fn main() {
    let criterion = Criterion::default()
        .sample_size(12)
        .warm_up_time(Duration::from_millis(60))
        .measurement_time(Duration::from_millis(250))
        .nresamples(1000)
        .without_plots()
        .configure_from_args();
    let mut b = Bench { criterion, tier: Tier::best(), rows: Vec::new() };
    products(&mut b);
    convolutions(&mut b);
    rows(&mut b);
    b.table();
}
