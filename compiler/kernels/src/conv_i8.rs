//! Convolution of 8-bit activations with 8-bit weights, channels last, without a copy of the input.

use crate::conv_shape::{ConvShape, Window, check_groups, pixels};
use crate::depthwise_i8::{self, PackedDepthwiseI8};
use crate::dispatch::Tier;
use crate::epilogue::Epilogue;
use crate::error::{Error, product, same_length};
use crate::gemm_i8::{Activations, GroupRows, Results, contract, unsigned};
use crate::indirect::Rows;
use crate::pack_i8::{Form, PackedI8, Weights};
use crate::parallel::Pool;
use crate::window_rows::{FEW_CHANNELS, WindowRows};

/// Weights of a convolution, packed once, for one tier.
#[derive(Clone)]
pub struct PackedConvI8 {
    kernel: [usize; 3],
    dilation: [usize; 3],
    groups: usize,
    cin: usize,
    cout: usize,
    /// Window elements along W under one pointer.
    run: usize,
    form: Weighted,
}

#[derive(Clone)]
enum Weighted {
    Dense(PackedI8),
    Depthwise(PackedDepthwiseI8),
}

crate::variants! { Weighted { 0 = Dense(weights), 1 = Depthwise(weights) } }

crate::fields! { PackedConvI8 { kernel, dilation, groups, cin, cout, run, form } }

impl PackedConvI8 {
    /// Packs weights of shape `[cout, cin / groups, D, H, W]` for convolutions of this shape, whatever their batch and
    /// input sizes.
    pub fn new(tier: Tier, shape: &ConvShape, w: &Weights) -> Result<PackedConvI8, Error> {
        let &ConvShape { kernel, dilation, groups, .. } = shape;
        check_groups(groups, shape.cin, shape.cout)?;
        let (cin, cols) = (shape.cin / groups, shape.cout / groups);
        let what = "the weights leave the address space";
        let window = product(what, &kernel)?;
        same_length("weights", product(what, &[shape.cout, cin, window])?, w.data.len())?;
        let runs = groups == 1 && dilation[2] == 1 && cin < FEW_CHANNELS && !cin.is_multiple_of(4);
        let run = if runs { kernel[2] } else { 1 };
        let form = Form { groups, cols, taps: window / run, tap_bytes: run * cin };
        let at = |p: usize| p % cin * window + p / cin;
        let weights = if groups > 1 && cin == 1 && cols == 1 {
            Weighted::Depthwise(PackedDepthwiseI8::new(tier, w, groups, kernel[0] * kernel[1], kernel[2])?)
        } else {
            Weighted::Dense(PackedI8::new(tier, w, form, at, cin * window)?)
        };
        Ok(PackedConvI8 { kernel, dilation, groups, cin: shape.cin, cout: shape.cout, run, form: weights })
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        match &self.form {
            Weighted::Dense(w) => w.bytes(),
            Weighted::Depthwise(w) => w.bytes(),
        }
    }
}

/// `y = act(conv(x − zx, w − zw) · scale + bias + residual)`. `x` is `[batch, D, H, W, cin]`, `y` likewise with `cout`.
/// What pads is the zero point, so it counts as zero.
pub fn conv_i8(
    pool: &dyn Pool,
    shape: &ConvShape,
    x: &Activations,
    w: &PackedConvI8,
    y: &mut Results,
    epilogue: &Epilogue,
) -> Result<(), Error> {
    let count = shape.check()?;
    let ours = (w.kernel, w.dilation, w.groups, w.cin, w.cout);
    if (shape.kernel, shape.dilation, shape.groups, shape.cin, shape.cout) != ours {
        return Err(Error::Shape { what: "the weights are packed for another convolution" });
    }
    let what = "the input leaves the address space";
    same_length("input", product(what, &[shape.batch, pixels(shape.input)?, shape.cin])?, x.data.len())?;
    let window = Window {
        input: shape.input,
        output: shape.output()?,
        kernel: shape.kernel,
        stride: shape.stride,
        dilation: shape.dilation,
        pad: shape.pad_begin,
    };
    let channels = w.cin / w.groups;
    let weights = match &w.form {
        Weighted::Dense(weights) => {
            same_length("zero points of the activations", 0, x.zeros.len())?;
            weights
        }
        Weighted::Depthwise(weights) => {
            same_length("result", product(what, &[count, w.cout])?, y.len())?;
            same_length("zero points of the result", 0, y.zeros().len())?;
            if !x.zeros.is_empty() {
                same_length("zero points of the activations", w.cin, x.zeros.len())?;
            }
            let zeros: Vec<i32> = x.zeros.iter().map(|z| z + if x.signed { 128 } else { 0 }).collect();
            epilogue.finish(1.0, count, w.cout)?.stores(y, false)?;
            let by = y.scales(w.cout)?.to_vec();
            return unsigned(x, true, |u| {
                let (store, y) = (y.store(), y.start());
                let call = depthwise_i8::Call {
                    window,
                    batch: shape.batch,
                    x: u.data,
                    zero: u.zero,
                    zeros: &zeros,
                    scale: x.scale,
                    weights,
                    y,
                    store,
                    by: &by,
                    epilogue: if by.len() > 1 { *epilogue } else { epilogue.stored_as(store) },
                };
                // SAFETY: the extents were checked.
                unsafe { depthwise_i8::run(pool, &call) }
            });
        }
    };
    unsigned(x, weights.tap_bytes.is_multiple_of(4), |u| {
        let rows = |g: usize| -> Box<dyn Rows> {
            Box::new(WindowRows {
                window,
                x: u.data.wrapping_add(g * channels),
                step: w.cin,
                channels,
                run: w.run,
                pad: u.zero.clamp(0, 255) as u8,
                groups: w.groups,
            })
        };
        let rows = GroupRows { of: &rows, shift: channels };
        // SAFETY: the extents of the input were checked; `unsigned` leaves room behind it.
        unsafe { contract(pool, &rows, count, (u.zero, x.scale), weights, y, epilogue) }
    })
}

#[cfg(test)]
mod tests;
