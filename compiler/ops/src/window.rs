//! Sliding windows along spatial axes: sizes, auto padding and a walk in contiguous runs, shared by convolution, pooling
//! and their transposes (ONNX Conv, MaxPool, ConvTranspose).

use ir::{Attrs, Dim, Error, Result, budget};
use smallvec::SmallVec;
use std::ops::Range;

/// The window along one spatial axis; every size is in elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub input: usize,
    pub kernel: usize,
    pub stride: usize,
    pub dilation: usize,
    pub pad_begin: usize,
    pub pad_end: usize,
    pub output: usize,
}

/// Windows of all spatial axes, outermost first.
pub type Windows = SmallVec<[Window; 3]>;

impl Window {
    /// Elements from the first to the last tap, both included.
    pub fn extent(&self) -> usize {
        (self.kernel.saturating_sub(1)).saturating_mul(self.dilation).saturating_add(1)
    }
    /// Input index read by `tap` of window `out`, or `None` in the padding.
    pub fn source(&self, out: usize, tap: usize) -> Option<usize> {
        (out * self.stride + tap * self.dilation).checked_sub(self.pad_begin).filter(|&i| i < self.input)
    }
    /// Windows whose `tap` falls inside the input.
    pub fn valid(&self, tap: usize) -> Range<usize> {
        let at = tap * self.dilation;
        let first = self.pad_begin.saturating_sub(at).div_ceil(self.stride);
        let past = match (self.input + self.pad_begin).checked_sub(at + 1) {
            Some(room) if self.input > 0 => (room / self.stride + 1).min(self.output),
            _ => 0,
        };
        first..past.max(first)
    }
    /// Taps of window `out` that fall inside the input.
    pub fn taps_at(&self, out: usize) -> Range<usize> {
        let at = out * self.stride;
        let first = self.pad_begin.saturating_sub(at).div_ceil(self.dilation);
        let past = match (self.input + self.pad_begin).checked_sub(at + 1) {
            Some(room) if self.input > 0 => room / self.dilation + 1,
            _ => 0,
        };
        first..past.min(self.kernel).max(first)
    }
    /// Taps that fall inside the input for some window: far fewer than `kernel` where most of it is over padding.
    pub fn live_taps(&self) -> Range<usize> {
        if self.input == 0 || self.output == 0 {
            return 0..0;
        }
        let first = self.pad_begin.saturating_sub((self.output - 1) * self.stride).div_ceil(self.dilation);
        let past = (self.pad_begin + self.input - 1) / self.dilation + 1;
        first..past.min(self.kernel).max(first)
    }
    /// True when window `i` reads element `i` and nothing else.
    pub fn is_identity(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.pad_begin == 0 && self.output == self.input
    }
}

/// How explicit sizes, pads and rounding are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoPad {
    Explicit,
    SameUpper,
    SameLower,
    Valid,
}

/// The window attributes of one node, checked: one value for each spatial axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowAttrs {
    pub kernel: Vec<usize>,
    pub strides: Vec<usize>,
    pub dilations: Vec<usize>,
    pub pads_begin: Vec<usize>,
    pub pads_end: Vec<usize>,
    pub auto_pad: AutoPad,
    pub ceil: bool,
}

/// Largest stride, dilation or pad; keeps all sums and products of indices far from overflow.
const LIMIT: i64 = 1 << 31;

impl WindowAttrs {
    /// Reads `kernel_shape` (or takes `kernel`), `strides`, `dilations`, `pads`, `auto_pad` and `ceil_mode` for `axes`
    /// spatial axes.
    pub fn parse(attrs: &Attrs, axes: usize, kernel: Option<&[usize]>) -> Result<WindowAttrs> {
        let kernel = match (list(attrs, "kernel_shape", axes, 1)?, kernel) {
            (Some(k), Some(w)) if k != w => {
                return Err(Error::model(format!("kernel_shape {k:?} differs from the weights' {w:?}")));
            }
            (Some(k), _) => k,
            (None, Some(w)) => w.to_vec(),
            (None, None) => return Err(Error::model("attribute 'kernel_shape' is missing")),
        };
        if kernel.iter().any(|&k| k == 0 || k as u128 > LIMIT as u128) {
            return Err(Error::model(format!("kernel {kernel:?} must be positive and below 2^31")));
        }
        let ones = || vec![1; axes];
        let pads = list(attrs, "pads", 2 * axes, 0)?.unwrap_or_else(|| vec![0; 2 * axes]);
        let (pads_begin, pads_end) = pads.split_at(axes);
        Ok(WindowAttrs {
            kernel,
            strides: list(attrs, "strides", axes, 1)?.unwrap_or_else(ones),
            dilations: list(attrs, "dilations", axes, 1)?.unwrap_or_else(ones),
            pads_begin: pads_begin.to_vec(),
            pads_end: pads_end.to_vec(),
            auto_pad: auto_pad(attrs)?,
            ceil: attrs.int_or("ceil_mode", 0)? != 0,
        })
    }

    /// The window of axis `i` over `input` elements; an error when the kernel does not fit.
    pub fn window(&self, i: usize, input: usize) -> Result<Window> {
        let (kernel, stride, dilation) = (self.kernel[i], self.strides[i], self.dilations[i]);
        let mut w = Window { input, kernel, stride, dilation, pad_begin: 0, pad_end: 0, output: 0 };
        if input > isize::MAX as usize / 64 || (kernel as u128) * (dilation as u128) > 1 << 60 {
            return Err(Error::limit(format!("axis {i}: window over {input} elements overflows")));
        }
        match self.auto_pad {
            AutoPad::SameUpper | AutoPad::SameLower => {
                w.output = input.div_ceil(stride);
                let reach = w.output.saturating_sub(1) * stride + w.extent();
                let total = reach.saturating_sub(input);
                let small = total / 2;
                let upper = self.auto_pad == AutoPad::SameUpper;
                w.pad_begin = if upper { small } else { total - small };
                w.pad_end = total - w.pad_begin;
                return Ok(w);
            }
            AutoPad::Valid => {}
            AutoPad::Explicit => (w.pad_begin, w.pad_end) = (self.pads_begin[i], self.pads_end[i]),
        }
        let room = (input + w.pad_begin + w.pad_end).checked_sub(w.extent()).ok_or_else(|| {
            Error::model(format!(
                "axis {i}: kernel of extent {} is larger than the padded input of {}",
                w.extent(),
                input + w.pad_begin + w.pad_end
            ))
        })?;
        w.output = room / stride + 1;
        if self.ceil && self.auto_pad == AutoPad::Explicit {
            w.output = room.div_ceil(stride) + 1;
            if (w.output - 1) * stride >= input + w.pad_begin {
                w.output -= 1;
            }
        }
        Ok(w)
    }

    pub fn windows(&self, input: &[usize]) -> Result<Windows> {
        let windows: Windows =
            input.iter().enumerate().map(|(i, &n)| self.window(i, n)).collect::<Result<_>>()?;
        check_product(windows.iter().map(|w| w.input))?;
        check_product(windows.iter().map(|w| w.output))?;
        check_product(windows.iter().map(|w| w.kernel))?;
        Ok(windows)
    }

    /// Output size of axis `i`; a symbol survives where the window keeps the size.
    pub fn output_dim(&self, i: usize, input: &Dim) -> Result<Dim> {
        if let Dim::Known(n) = input {
            return Ok(Dim::Known(self.window(i, *n)?.output));
        }
        let extent = (self.kernel[i] - 1).saturating_mul(self.dilations[i]) + 1;
        let pads = self.pads_begin[i] + self.pads_end[i];
        let keeps = match self.auto_pad {
            AutoPad::SameUpper | AutoPad::SameLower => true,
            AutoPad::Valid => extent == 1,
            AutoPad::Explicit => pads + 1 == extent,
        };
        Ok(if keeps && self.strides[i] == 1 { input.clone() } else { Dim::Unknown })
    }
}

/// An error when the product of sizes overflows, counting zeros as ones: parts of an empty tensor must be countable too.
pub(crate) fn check_product(sizes: impl IntoIterator<Item = usize>) -> Result<()> {
    let sizes: Vec<usize> = sizes.into_iter().map(|n| n.max(1)).collect();
    budget::elements(&sizes).map(|_| ())
}

/// A list attribute of `len` integers, each at least `min`.
pub(crate) fn list(attrs: &Attrs, name: &str, len: usize, min: i64) -> Result<Option<Vec<usize>>> {
    let Some(v) = attrs.ints(name)?.filter(|v| !v.is_empty() || len == 0) else { return Ok(None) };
    if v.len() != len {
        return Err(Error::model(format!("attribute '{name}' has {} values, {len} are needed", v.len())));
    }
    let checked = v.iter().map(|&x| usize::try_from(x).ok().filter(|_| (min..=LIMIT).contains(&x)));
    let all: Option<Vec<usize>> = checked.collect();
    all.map(Some)
        .ok_or_else(|| Error::model(format!("attribute '{name}' = {v:?}: values must be at least {min}")))
}

/// The `auto_pad` attribute.
pub(crate) fn auto_pad(attrs: &Attrs) -> Result<AutoPad> {
    Ok(match attrs.str_or("auto_pad", "NOTSET")? {
        "NOTSET" | "" => AutoPad::Explicit,
        "SAME_UPPER" => AutoPad::SameUpper,
        "SAME_LOWER" => AutoPad::SameLower,
        "VALID" => AutoPad::Valid,
        s => return Err(Error::model(format!("auto_pad '{}' is not known", s.escape_debug()))),
    })
}

/// Consecutive windows of the last axis that read the input at a constant step through one tap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Row-major index of the tap in the kernel.
    pub tap: usize,
    /// First window, as a row-major index in the output.
    pub output: usize,
    /// First element read, as a row-major index in the input.
    pub input: usize,
    pub len: usize,
    /// Step of the input index from window to window.
    pub stride: usize,
}

/// Calls `f` for every tap (row-major) and every run of windows whose reads fall inside the input, limited to windows of
/// the first axis in `first`. Padding is never visited.
pub fn for_each_run(axes: &[Window], first: Range<usize>, mut f: impl FnMut(Run)) {
    let live: SmallVec<[Range<usize>; 4]> = axes.iter().map(Window::live_taps).collect();
    let count = live.iter().map(Range::len).product();
    let mut index = SmallVec::<[usize; 4]>::from_elem(0, axes.len());
    for i in 0..count {
        let (mut rest, mut tap, mut step) = (i, 0, 1);
        for (a, (w, live)) in axes.iter().zip(&live).enumerate().rev() {
            index[a] = live.start + rest % live.len();
            rest /= live.len();
            tap += index[a] * step;
            step *= w.kernel;
        }
        let at = Run { tap, output: 0, input: 0, len: 0, stride: 1 };
        descend(axes, &index, first.clone(), at, &mut f);
    }
}

fn descend(axes: &[Window], taps: &[usize], within: Range<usize>, at: Run, f: &mut impl FnMut(Run)) {
    let (Some((w, inner)), Some((&tap, taps))) = (axes.split_first(), taps.split_first()) else { return };
    let valid = w.valid(tap);
    let (lo, hi) = (valid.start.max(within.start), valid.end.min(within.end));
    if lo >= hi {
        return;
    }
    let start = lo * w.stride + tap * w.dilation - w.pad_begin;
    if inner.is_empty() {
        let (output, input) = (at.output * w.output + lo, at.input * w.input + start);
        return f(Run { output, input, len: hi - lo, stride: w.stride, ..at });
    }
    for o in lo..hi {
        let output = at.output * w.output + o;
        let input = at.input * w.input + start + (o - lo) * w.stride;
        descend(inner, taps, 0..usize::MAX, Run { output, input, ..at }, f);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn attrs(kernel: i64, stride: i64, dilation: i64, pads: [i64; 2]) -> Attrs {
        Attrs::new()
            .with("kernel_shape", vec![kernel])
            .with("strides", vec![stride])
            .with("dilations", vec![dilation])
            .with("pads", pads.to_vec())
    }

    #[test]
    fn hostile_attributes_are_errors() {
        for a in
            [attrs(0, 1, 1, [0, 0]), attrs(2, 0, 1, [0, 0]), attrs(2, 1, 0, [0, 0]), attrs(2, 1, 1, [-1, 0])]
        {
            assert!(WindowAttrs::parse(&a, 1, None).is_err());
        }
        assert!(WindowAttrs::parse(&attrs(3, 1, 1, [0, 0]), 2, None).is_err());
        let a = WindowAttrs::parse(&attrs(1 << 31, 1, 1 << 31, [1 << 31, 0]), 1, None).unwrap();
        assert!(a.window(0, 7).is_err());
        let a = WindowAttrs::parse(&attrs(3, 1, 1, [0, 0]), 1, None).unwrap();
        assert!(a.window(0, 2).is_err() && a.window(0, usize::MAX).is_err());
    }

    #[test]
    fn same_padding_puts_the_odd_element_on_its_side() {
        let a = attrs(2, 1, 1, [0, 0]);
        let upper = WindowAttrs::parse(&a.clone().with("auto_pad", "SAME_UPPER"), 1, None).unwrap();
        let lower = WindowAttrs::parse(&a.with("auto_pad", "SAME_LOWER"), 1, None).unwrap();
        let (u, l) = (upper.window(0, 5).unwrap(), lower.window(0, 5).unwrap());
        assert_eq!((u.pad_begin, u.pad_end, u.output), (0, 1, 5));
        assert_eq!((l.pad_begin, l.pad_end, l.output), (1, 0, 5));
        assert_eq!(upper.output_dim(0, &Dim::symbol("w")).unwrap(), Dim::symbol("w"));
    }

    proptest! {
        #[test]
        fn runs_visit_exactly_the_taps_inside_the_input(
            inputs in prop::collection::vec(1usize..6, 1..4), k in 1i64..4, s in 1i64..4, d in 1i64..3, p in 0i64..3
        ) {
            let n = inputs.len();
            let a = Attrs::new()
                .with("kernel_shape", vec![k; n]).with("strides", vec![s; n]).with("dilations", vec![d; n])
                .with("pads", vec![p; 2 * n]).with("ceil_mode", k % 2);
            let Ok(windows) = WindowAttrs::parse(&a, n, None).unwrap().windows(&inputs) else { return Ok(()) };
            let out: Vec<usize> = windows.iter().map(|w| w.output).collect();
            let mut seen = std::collections::BTreeSet::new();
            for_each_run(&windows, 0..usize::MAX, |r| for i in 0..r.len {
                assert!(seen.insert((r.tap, r.output + i, r.input + i * r.stride)));
            });
            let mut want = std::collections::BTreeSet::new();
            for t in ndarray::indices(vec![k as usize; n]) {
                for o in ndarray::indices(out.clone()) {
                    let (mut flat, mut input, mut tap, mut inside) = (0, 0, 0, true);
                    for (i, w) in windows.iter().enumerate() {
                        let src = w.source(o[i], t[i]);
                        inside &= src.is_some();
                        (flat, input) = (flat * w.output + o[i], input * w.input + src.unwrap_or(0));
                        tap = tap * w.kernel + t[i];
                    }
                    if inside { want.insert((tap, flat, input)); }
                }
            }
            for w in &windows {
                for o in 0..w.output {
                    let inside: Vec<usize> = (0..w.kernel).filter(|&t| w.source(o, t).is_some()).collect();
                    prop_assert_eq!(w.taps_at(o).collect::<Vec<_>>(), inside);
                }
            }
            prop_assert_eq!(seen, want);
        }
    }
}
