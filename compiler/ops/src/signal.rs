//! Spectral analysis: DFT, STFT, window functions and the mel filter bank.

use crate::broadcast::axis;
use crate::cast::cast;
use crate::fft::{Complex, Fourier};
use crate::movement::volume;
use crate::typing::{one, tensor_type};
use crate::{Op, schema};
use ir::{
    Accuracy, Attrs, DType, Dim, Error, EvalCx, InferCx, Operator, Result, Tensor, Value, ValueType, budget,
};
use std::f64::consts::PI;

pub static OPERATORS: &[&dyn Operator] = &[
    &Op::new("DFT", &schema::DFT, infer_dft, eval_dft).accuracy(Accuracy::Accumulated),
    &Op::new("STFT", &schema::STFT, infer_stft, eval_stft).accuracy(Accuracy::Accumulated),
    &Op::new("HannWindow", &schema::HANN_WINDOW, infer_window, |cx| window(cx, &[0.5, -0.5])),
    &Op::new("HammingWindow", &schema::HAMMING_WINDOW, infer_window, |cx| {
        window(cx, &[25.0 / 46.0, -21.0 / 46.0])
    }),
    &Op::new("BlackmanWindow", &schema::BLACKMAN_WINDOW, infer_window, |cx| window(cx, &[0.42, -0.5, 0.08])),
    &Op::new("MelWeightMatrix", &schema::MEL_WEIGHT_MATRIX, infer_mel, eval_mel),
];

/// The one integer of input `i`, if given.
fn number(cx: &EvalCx, i: usize) -> Result<Option<i64>> {
    match cx.optional_ints(i)?.as_deref() {
        None => Ok(None),
        Some(&[n]) => Ok(Some(n)),
        Some(v) => Err(Error::model(format!("input {i} must be one number, got {}", v.len()))),
    }
}

/// A length that must be at least 1.
fn length(n: i64, what: &str) -> Result<usize> {
    usize::try_from(n)
        .ok()
        .filter(|&n| n > 0)
        .ok_or_else(|| Error::model(format!("{what} must be positive, is {n}")))
}

fn required(cx: &EvalCx, i: usize, what: &str) -> Result<i64> {
    number(cx, i)?.ok_or_else(|| Error::model(format!("{what} is missing")))
}

/// Direction and sidedness of a DFT.
struct Form {
    inverse: bool,
    onesided: bool,
}

impl Form {
    fn of(attrs: &Attrs) -> Result<Form> {
        Ok(Form { inverse: attrs.int_or("inverse", 0)? != 0, onesided: attrs.int_or("onesided", 0)? != 0 })
    }
    /// Length of the transform of a signal of `n` when none is given.
    fn default_length(&self, n: usize) -> usize {
        if self.inverse && self.onesided { n.saturating_sub(1).saturating_mul(2) } else { n }
    }
    /// Entries of the result along the axis.
    fn results(&self, n: usize) -> usize {
        if self.onesided && !self.inverse { n / 2 + 1 } else { n }
    }
    fn components(&self) -> usize {
        if self.onesided && self.inverse { 1 } else { 2 }
    }
}

/// The transformed axis: any but the last, which holds the parts of a complex number.
fn dft_axis(raw: i64, rank: usize) -> Result<usize> {
    let a = axis(raw, rank)?;
    if a + 1 == rank {
        return Err(Error::model("the last axis holds real and imaginary parts, it cannot be transformed"));
    }
    Ok(a)
}

fn infer_dft(cx: &InferCx) -> Result<Vec<ValueType>> {
    let (dtype, form) = (cx.dtype(0)?, Form::of(cx.attrs)?);
    let Some(s) = cx.shape(0) else { return Ok(vec![tensor_type(dtype, None)]) };
    let mut out = s.to_vec();
    let raw = if cx.has(2) { cx.ints(2).and_then(|v| v.first().copied()) } else { Some(-2) };
    match raw {
        Some(raw) => {
            let a = dft_axis(raw, s.len())?;
            let n = match (cx.has(1), cx.ints(1)) {
                (true, v) => v.and_then(|v| usize::try_from(*v.first()?).ok()),
                (false, _) => s[a].known().map(|n| form.default_length(n)),
            };
            let same = !cx.has(1) && !form.onesided;
            out[a] = match n {
                Some(n) => Dim::Known(form.results(n)),
                None if same => s[a].clone(),
                None => Dim::Unknown,
            };
        }
        None => out.fill(Dim::Unknown),
    }
    if let Some(last) = out.last_mut() {
        *last = Dim::Known(form.components());
    }
    Ok(vec![tensor_type(dtype, Some(out))])
}

fn eval_dft(cx: &EvalCx) -> Result<Vec<Value>> {
    let (x, form) = (cx.tensor(0)?, Form::of(cx.attrs)?);
    let a = dft_axis(number(cx, 2)?.unwrap_or(-2), x.rank())?;
    let parts = components(x)?;
    if form.onesided && form.inverse != (parts == 2) {
        return Err(Error::model("onesided takes a real signal forward and a complex spectrum back"));
    }
    let have = x.shape()[a];
    let n = match number(cx, 1)? {
        Some(n) => length(n, "dft_length")?,
        None => length(form.default_length(have) as i64, "the signal's length")?,
    };
    let mut shape = x.shape().to_vec();
    shape[a] = form.results(n);
    shape[x.rank() - 1] = form.components();
    budget::bytes(DType::F64, &shape)?;
    let y = transform(&x.to_f64s()?, x.shape(), a, n, &form, &shape)?;
    Ok(one(Tensor::from_f64s(x.dtype(), &shape, y)?))
}

fn components(x: &Tensor) -> Result<usize> {
    match x.shape().last() {
        Some(&c @ 1..=2) if x.dtype().is_float() => Ok(c),
        _ => Err(Error::model(format!(
            "the last dimension must be 1 (real) or 2 (complex), got {} {:?}",
            x.dtype(),
            x.shape()
        ))),
    }
}

/// Transforms every signal along axis `a` to length `n`, cut or padded with zeros.
fn transform(x: &[f64], from: &[usize], a: usize, n: usize, form: &Form, to: &[usize]) -> Result<Vec<f64>> {
    let (parts, wide) = (from[from.len() - 1], to[to.len() - 1]);
    let (outer, inner) = (volume(&from[..a]), volume(&from[a + 1..from.len() - 1]));
    let (have, give) = (from[a], to[a]);
    let mut y = budget::filled(budget::elements(to)?, 0f64)?;
    if y.is_empty() {
        return Ok(y);
    }
    let plan = Fourier::new(n)?;
    let mut signal: Vec<Complex> = budget::filled(n, [0.0; 2])?;
    for o in 0..outer {
        for i in 0..inner {
            let entry = |j: usize| {
                let at = ((o * have + j) * inner + i) * parts;
                [x[at], if parts == 2 { x[at + 1] } else { 0.0 }]
            };
            load(&mut signal, have, form, entry);
            if form.inverse {
                plan.inverse(&mut signal)?
            } else {
                plan.forward(&mut signal)?
            }
            for (k, s) in signal.iter().take(give).enumerate() {
                let at = ((o * give + k) * inner + i) * wide;
                y[at..at + wide].copy_from_slice(&s[..wide]);
            }
        }
    }
    Ok(y)
}

/// Fills the buffer from a signal of `have` entries; a one-sided spectrum is completed by conjugate symmetry.
fn load(signal: &mut [Complex], have: usize, form: &Form, entry: impl Fn(usize) -> Complex) {
    let n = signal.len();
    signal.fill([0.0; 2]);
    if !(form.inverse && form.onesided) {
        (0..have.min(n)).for_each(|j| signal[j] = entry(j));
        return;
    }
    for j in 0..have.min(n / 2 + 1) {
        let [re, im] = entry(j);
        // The spectrum of a real signal is real at 0 and at half the length.
        let im = if j == 0 || 2 * j == n { 0.0 } else { im };
        signal[j] = [re, im];
        signal[(n - j) % n] = [re, -im];
    }
    signal[0][1] = 0.0;
}

fn infer_stft(cx: &InferCx) -> Result<Vec<ValueType>> {
    let first = |i: usize| cx.ints(i).and_then(|v| usize::try_from(*v.first()?).ok()).filter(|&n| n > 0);
    let onesided = cx.attrs.int_or("onesided", 1)? != 0;
    let samples = cx.shape(0).and_then(|s| s.get(1)).and_then(Dim::known);
    let frame = match (cx.has(3), cx.has(2)) {
        (true, _) => first(3),
        (false, true) => cx.shape(2).and_then(|s| s.first()).and_then(Dim::known),
        (false, false) => samples,
    };
    let frames = match (samples, frame, first(1)) {
        (Some(n), Some(f), Some(step)) if 0 < f && f <= n => Dim::Known((n - f) / step + 1),
        _ => Dim::Unknown,
    };
    let bins = frame.map_or(Dim::Unknown, |f| Dim::Known(if onesided { f / 2 + 1 } else { f }));
    let batch = cx.shape(0).and_then(|s| s.first()).cloned().unwrap_or(Dim::Unknown);
    Ok(vec![tensor_type(cx.dtype(0)?, Some(vec![batch, frames, bins, Dim::Known(2)]))])
}

fn eval_stft(cx: &EvalCx) -> Result<Vec<Value>> {
    let (x, window) = (cx.tensor(0)?, cx.optional(2)?);
    // Exporters also write real signals without the last dimension.
    let (batch, samples, parts) = match *x.shape() {
        [b, n] => (b, n, 1),
        [b, n, _] => (b, n, components(x)?),
        _ => return Err(Error::model(format!("the signal must have 3 dims, got {:?}", x.shape()))),
    };
    let form = Form { inverse: false, onesided: cx.attrs.int_or("onesided", 1)? != 0 };
    if form.onesided && parts == 2 {
        return Err(Error::model("a complex signal has no onesided spectrum; set onesided = 0"));
    }
    let step = length(required(cx, 1, "frame_step")?, "frame_step")?;
    let frame = match (number(cx, 3)?, window) {
        (Some(n), _) => length(n, "frame_length")?,
        (None, Some(w)) => length(w.len() as i64, "the window's length")?,
        (None, None) => length(samples as i64, "the signal's length")?,
    };
    let weights = match window {
        Some(w) if w.shape() == [frame] => w.to_f64s()?,
        Some(w) => {
            return Err(Error::model(format!("a window of shape {:?} for frames of {frame}", w.shape())));
        }
        None => budget::filled(frame, 1.0)?,
    };
    let span = samples
        .checked_sub(frame)
        .ok_or_else(|| Error::data(format!("frames of {frame} are longer than the signal of {samples}")))?;
    let (frames, bins) = (span / step + 1, form.results(frame));
    let shape = [batch, frames, bins, 2];
    budget::bytes(DType::F64, &shape)?;
    let (x, mut y) = (x.to_f64s()?, budget::filled(budget::elements(&shape)?, 0f64)?);
    let plan = Fourier::new(frame)?;
    let mut signal: Vec<Complex> = budget::filled(frame, [0.0; 2])?;
    for (at, out) in y.chunks_exact_mut(bins * 2).enumerate() {
        let start = at / frames * samples + at % frames * step;
        load(&mut signal, frame, &form, |j| {
            let k = (start + j) * parts;
            [x[k] * weights[j], if parts == 2 { x[k + 1] * weights[j] } else { 0.0 }]
        });
        plan.forward(&mut signal)?;
        out.copy_from_slice(signal[..bins].as_flattened());
    }
    Ok(one(Tensor::from_f64s(cx.tensor(0)?.dtype(), &shape, y)?))
}

fn output_type(attrs: &Attrs) -> Result<DType> {
    let n = attrs.int_or("output_datatype", 1)?;
    i32::try_from(n)
        .ok()
        .and_then(DType::from_onnx)
        .ok_or_else(|| Error::unsupported(format!("element type number {n}")))
}

fn infer_window(cx: &InferCx) -> Result<Vec<ValueType>> {
    let size = cx.dims(0).and_then(|d| d.into_iter().next()).unwrap_or(Dim::Unknown);
    Ok(vec![tensor_type(Some(output_type(cx.attrs)?), Some(vec![size]))])
}

/// Σ coefficients[m] · cos(2π m k / N) with N the size, or size − 1 for a symmetric window.
fn window(cx: &EvalCx, coefficients: &[f64]) -> Result<Vec<Value>> {
    let size = required(cx, 0, "size")?;
    let size = usize::try_from(size).map_err(|_| Error::model(format!("a window of {size} samples")))?;
    let period = if cx.attrs.int_or("periodic", 1)? != 0 { size } else { size.saturating_sub(1) };
    let dtype = output_type(cx.attrs)?;
    let mut w = budget::vec(size)?;
    w.extend((0..size).map(|k| {
        // A symmetric window of one sample is that sample at its peak.
        let turn = if period == 0 { PI } else { 2.0 * PI * k as f64 / period as f64 };
        coefficients.iter().enumerate().map(|(m, c)| c * (turn * m as f64).cos()).sum::<f64>()
    }));
    Ok(one(cast(&Tensor::vector(w), dtype, true)?))
}

fn infer_mel(cx: &InferCx) -> Result<Vec<ValueType>> {
    let size = |i: usize| cx.ints(i).and_then(|v| usize::try_from(*v.first()?).ok());
    let dim = |n: Option<usize>| n.map_or(Dim::Unknown, Dim::Known);
    let shape = vec![dim(size(1).map(|n| n / 2 + 1)), dim(size(0))];
    Ok(vec![tensor_type(Some(output_type(cx.attrs)?), Some(shape))])
}

/// Corners of the triangles, in bins of the spectrum: equal steps on the mel scale.
fn mel_corners(cx: &EvalCx, bands: usize, dft: usize, bins: usize) -> Result<Vec<usize>> {
    let rate = length(required(cx, 2, "sample_rate")?, "sample_rate")? as f64;
    let edge = |i: usize| -> Result<f64> {
        let v = cx.tensor(i)?.to_f64s()?;
        match v[..] {
            [f] if f.is_finite() && f >= 0.0 => Ok(2595.0 * (f / 700.0).ln_1p() / 10f64.ln()),
            _ => Err(Error::model(format!("an edge must be one frequency, got {v:?}"))),
        }
    };
    let (low, high) = (edge(3)?, edge(4)?);
    let step = (high - low) / (bands + 2) as f64;
    let mut corners = budget::vec(bands + 2)?;
    for i in 0..bands + 2 {
        let hertz = 700.0 * ((i as f64 * step + low) / 2595.0 * 10f64.ln()).exp_m1();
        let bin = ((dft as f64 + 1.0) * hertz / rate).floor();
        if !(0.0..bins as f64).contains(&bin) {
            return Err(Error::model(format!("{hertz} Hz lies outside a spectrum of {bins} bins")));
        }
        corners.push(bin as usize);
    }
    Ok(corners)
}

fn eval_mel(cx: &EvalCx) -> Result<Vec<Value>> {
    let bands = length(required(cx, 0, "num_mel_bins")?, "num_mel_bins")?;
    let dft = length(required(cx, 1, "dft_length")?, "dft_length")?;
    let shape = [dft / 2 + 1, bands];
    budget::bytes(DType::F64, &shape)?;
    let corners = mel_corners(cx, bands, dft, shape[0])?;
    let mut y = budget::filled(budget::elements(&shape)?, 0f64)?;
    for (band, w) in corners.windows(3).enumerate() {
        let &[low, peak, high] = w else { continue };
        if low == peak {
            y[peak * bands + band] = 1.0;
        }
        for j in low..=peak {
            if peak > low {
                y[j * bands + band] = (j - low) as f64 / (peak - low) as f64;
            }
        }
        for j in peak..high {
            y[j * bands + band] = (high - j) as f64 / (high - peak) as f64;
        }
    }
    Ok(one(cast(&Tensor::new(&shape, y)?, output_type(cx.attrs)?, true)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{standard, testing::eval};

    fn run(op: &str, attrs: Attrs, inputs: &[Option<Tensor>]) -> Result<Tensor> {
        let all: Vec<Option<Value>> = inputs.iter().map(|t| t.clone().map(Value::Tensor)).collect();
        eval(standard(op)?, attrs, &all, 1)?.remove(0).tensor().cloned()
    }
    fn close(t: &Tensor, want: &[f64]) {
        let got = t.to_f64s().unwrap();
        assert!(
            got.len() == want.len() && got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6),
            "{got:?} {want:?}"
        );
    }

    #[test]
    fn a_real_signal_goes_to_half_a_spectrum_and_back() {
        let x = Tensor::new::<f32>(&[1, 4, 1], vec![1.0, 2.0, 3.0, 5.0]).unwrap();
        let y = run("DFT", Attrs::new().with("onesided", 1), &[Some(x.clone())]).unwrap();
        assert_eq!(y.shape(), [1, 3, 2]);
        close(&y, &[11.0, 0.0, -2.0, 3.0, -3.0, 0.0]);
        let back = Attrs::new().with("onesided", 1).with("inverse", 1);
        let z = run("DFT", back, &[Some(y)]).unwrap();
        assert_eq!(z.shape(), [1, 4, 1]);
        close(&z, &[1.0, 2.0, 3.0, 5.0]);
        let last = Some(Tensor::scalar(-1i64));
        assert!(run("DFT", Attrs::new(), &[Some(x), None, last]).is_err());
    }

    #[test]
    fn frames_step_over_the_signal() {
        let x = Tensor::new::<f32>(&[1, 5, 1], vec![1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        let window = Tensor::vector(vec![1f32, 0.5]);
        let y =
            run("STFT", Attrs::new(), &[Some(x.clone()), Some(Tensor::scalar(2i64)), Some(window)]).unwrap();
        assert_eq!(y.shape(), [1, 2, 2, 2]);
        close(&y, &[2.0, 0.0, 0.0, 0.0, 5.0, 0.0, 1.0, 0.0]);
        assert!(run("STFT", Attrs::new(), &[Some(x), Some(Tensor::scalar(0i64))]).is_err());
    }

    #[test]
    fn windows_have_their_known_values() {
        let symmetric = || Attrs::new().with("periodic", 0);
        let size = |n: i64| [Some(Tensor::scalar(n))];
        close(&run("HannWindow", symmetric(), &size(5)).unwrap(), &[0.0, 0.5, 1.0, 0.5, 0.0]);
        close(&run("BlackmanWindow", symmetric(), &size(3)).unwrap(), &[0.0, 1.0, 0.0]);
        close(&run("HammingWindow", Attrs::new(), &size(2)).unwrap(), &[4.0 / 46.0, 1.0]);
        close(&run("HannWindow", symmetric(), &size(1)).unwrap(), &[1.0]);
        assert!(run("HannWindow", Attrs::new(), &size(-1)).is_err());
    }

    #[test]
    fn mel_bands_outside_the_spectrum_are_refused() {
        let inputs = |top: f32| {
            let n = |x: i64| Some(Tensor::scalar(x));
            [n(8), n(16), n(8192), Some(Tensor::scalar(0f32)), Some(Tensor::scalar(top))]
        };
        let y = run("MelWeightMatrix", Attrs::new(), &inputs(4096.0)).unwrap();
        assert_eq!(y.shape(), [9, 8]);
        let mut want = [0.0; 72];
        for (row, column) in [(0, 0), (0, 1), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7)] {
            want[row * 8 + column] = 1.0;
        }
        close(&y, &want);
        assert!(run("MelWeightMatrix", Attrs::new(), &inputs(40960.0)).is_err());
    }
}
