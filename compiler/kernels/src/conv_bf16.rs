//! Convolution in bfloat16, channels last, with float32 activations and results; bounds as in [`crate::gemm_bf16`].
//!
//! The input is rounded once into cells of two channels, then read through lists of pointers as in [`crate::conv_f32`].

use crate::bf16;
use crate::conv_shape::{ConvShape, Window, check_groups, pixels};
use crate::dispatch::Tier;
use crate::epilogue::{Epilogue, holds};
use crate::error::{Error, product, same_length};
use crate::indirect::{self, Job};
use crate::pack_bf16::PackedBf16;
use crate::parallel::Pool;
use crate::scratch;
use crate::stored::{Reader, Stored, Writer};
use crate::window_rows::{FEW_CHANNELS, WindowRows};

/// Weights of a convolution, rounded to bfloat16 and packed once, for one tier.
#[derive(Clone)]
pub struct PackedConvBf16 {
    kernel: [usize; 3],
    /// Input and output channels of a group.
    cin: usize,
    cout: usize,
    groups: Vec<PackedBf16>,
}

impl Stored for PackedConvBf16 {
    fn put<'a>(&'a self, out: &mut Writer<'a>) {
        self.kernel.put(out);
        self.cin.put(out);
        self.cout.put(out);
        self.groups.put(out);
    }
    fn take(from: &mut Reader) -> Option<PackedConvBf16> {
        let (kernel, cin, cout) = <([usize; 3], usize, usize)>::take(from)?;
        let groups = Vec::<PackedBf16>::take(from)?;
        let taps = kernel.iter().try_fold(1usize, |n, &k| n.checked_mul(k))?;
        let fits = |b: &PackedBf16| (b.taps, b.tap, b.n()) == (taps, cin, cout);
        let whole = cin.checked_mul(groups.len()).is_some() && cout.checked_mul(groups.len()).is_some();
        let packed = PackedConvBf16 { kernel, cin, cout, groups };
        (whole && packed.groups.iter().all(fits)).then_some(packed)
    }
}

impl PackedConvBf16 {
    /// Whether a convolution may have this form: groups of one channel, or of an odd number that cells would straddle,
    /// have not.
    pub fn takes(cin: usize, groups: usize) -> bool {
        groups == 1 || (groups > 0 && (cin / groups).is_multiple_of(2))
    }

    /// Packs weights of shape `[cout, cin / groups, D, H, W]`.
    pub fn new(
        tier: Tier,
        weights: &[f32],
        cout: usize,
        cin: usize,
        kernel: [usize; 3],
        groups: usize,
    ) -> Result<PackedConvBf16, Error> {
        check_groups(groups, cin, cout)?;
        if !PackedConvBf16::takes(cin, groups) {
            return Err(Error::Shape { what: "groups of an odd number of channels have no bfloat16 form" });
        }
        let (cin, cout) = (cin / groups, cout / groups);
        let what = "the weights leave the address space";
        let taps = product(what, &kernel)?;
        same_length("weights", product(what, &[groups, cout, cin, taps])?, weights.len())?;
        let k = cin * taps;
        let pack = |g: usize| {
            let weights = &weights[g * cout * k..];
            PackedBf16::new(tier, taps, cin, cout, |t, c, col| weights[(col * cin + c) * taps + t])
        };
        Ok(PackedConvBf16 { kernel, cin, cout, groups: (0..groups).map(pack).collect::<Result<_, _>>()? })
    }

    #[cfg(test)]
    pub(crate) fn widened(mut self) -> PackedConvBf16 {
        self.groups = self.groups.into_iter().map(PackedBf16::widened).collect();
        self
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.groups.iter().map(PackedBf16::bytes).sum()
    }
}

/// `y = act(conv(x) + bias + residual)`. `x` is `[batch, D, H, W, cin]` with pixels `x_stride` apart, `y` likewise with
/// `y_stride`; both may exceed the channels. The residual's rows are the pixels of `y`.
pub fn conv_bf16(
    pool: &dyn Pool,
    shape: &ConvShape,
    x: &[f32],
    x_stride: usize,
    weights: &PackedConvBf16,
    y: &mut [f32],
    y_stride: usize,
    epilogue: &Epilogue,
) -> Result<(), Error> {
    let count = shape.check()?;
    let w = weights;
    let groups = w.groups.len();
    if (shape.kernel, shape.groups, shape.cin, shape.cout)
        != (w.kernel, groups, w.cin * groups, w.cout * groups)
    {
        return Err(Error::Shape { what: "the weights are packed for another convolution" });
    }
    let what = "the input leaves the address space";
    let all = product(what, &[shape.batch, pixels(shape.input)?])?;
    holds("input", x.len(), all, shape.cin, x_stride)?;
    holds("output", y.len(), count, shape.cout, y_stride)?;
    let finish = epilogue.finish(1.0, count, shape.cout)?;
    let window = Window {
        input: shape.input,
        output: shape.output()?,
        kernel: shape.kernel,
        stride: shape.stride,
        dilation: shape.dilation,
        pad: shape.pad_begin,
    };
    // Cells of a pixel and of a group's part of it.
    let (pixel, part) = (shape.cin.div_ceil(2), w.cin.div_ceil(2));
    let runs = groups == 1
        && shape.dilation[2] == 1
        && (1..FEW_CHANNELS).contains(&shape.cin)
        && shape.kernel[2] > 1;
    let native = w.groups.first().is_some_and(PackedBf16::is_native);
    scratch::with(product(what, &[all, pixel])?, |cells| {
        bf16::convert(pool, native, x, all, shape.cin, x_stride, cells);
        for (g, b) in w.groups.iter().enumerate() {
            let rows = WindowRows {
                window,
                x: cells.as_ptr().wrapping_add(g * part).cast(),
                step: pixel * 4,
                channels: part * 4,
                run: if runs { shape.kernel[2] } else { 1 },
                pad: 0,
                groups: 1,
            };
            let job = Job {
                tier: b.tier(),
                count,
                taps: rows.taps(),
                depth: rows.depth(),
                skips: false,
                row_bytes: [shape.stride[2], pixel, 4]
                    .into_iter()
                    .fold(shape.stride[1], usize::saturating_mul),
                rows: &rows,
                b: b.view(),
                c: y.as_mut_ptr().wrapping_add(g * w.cout),
                c_step: y_stride,
                finish: &finish.starting_at_column(g * w.cout),
                integers: None,
                quantized: None,
            };
            // SAFETY: the extents of input, output, weights and epilogue were checked against the shape.
            unsafe { indirect::run(pool, &job) };
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests;
