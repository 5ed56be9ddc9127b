//! Convolution over channels-last activations, without a copy of the input.
//!
//! The weights are a packed operand whose rows run over the window and then the input channels; each output pixel
//! is a list of pointers into the input. With few channels a line of the window is one run in memory and one
//! pointer, and only pixels at the border are copied, with their zeros.

use crate::conv_shape::{ConvShape, Window, check_groups};
use crate::depthwise_f32::{self, PackedDepthwise};
use crate::dispatch::Tier;
use crate::epilogue::{Epilogue, holds};
use crate::error::{Error, product, same_length};
use crate::indirect::{self, Job, Rows, Table};
use crate::pack::PackedB;
use crate::parallel::Pool;

/// Input channels below which the elements of a window's line are summed as one run.
const FEW_CHANNELS: usize = 32;

/// Weights of a convolution, packed once, for one tier.
#[derive(Clone)]
pub struct PackedConv {
    kernel: [usize; 3],
    groups: usize,
    /// Input and output channels of a group.
    cin: usize,
    cout: usize,
    form: Form,
}

#[derive(Clone)]
enum Form {
    /// One operand for each group.
    Dense(Vec<PackedB>),
    Depthwise(PackedDepthwise),
}

impl PackedConv {
    /// Packs weights of shape `[cout, cin / groups, D, H, W]`.
    pub fn new(
        tier: Tier,
        weights: &[f32],
        cout: usize,
        cin: usize,
        kernel: [usize; 3],
        groups: usize,
    ) -> Result<PackedConv, Error> {
        check_groups(groups, cin, cout)?;
        let (cin, cout) = (cin / groups, cout / groups);
        let what = "the weights leave the address space";
        let taps = product(what, &kernel)?;
        same_length("weights", product(what, &[groups, cout, cin, taps])?, weights.len())?;
        let form = if cin == 1 && groups > 1 {
            Form::Depthwise(PackedDepthwise::new(tier, weights, groups * cout, cout, taps)?)
        } else {
            let k = cin * taps;
            let pack = |g: usize| {
                let weights = &weights[g * cout * k..];
                PackedB::from_fn(tier, k, cout, |row, col| {
                    weights[(col * cin + row % cin) * taps + row / cin]
                })
            };
            Form::Dense((0..groups).map(pack).collect::<Result<_, _>>()?)
        };
        Ok(PackedConv { kernel, groups, cin, cout, form })
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        match &self.form {
            Form::Dense(groups) => groups.iter().map(PackedB::bytes).sum(),
            Form::Depthwise(d) => d.bytes(),
        }
    }
}

/// `y = act(conv(x) + bias + residual)`. `x` is `[batch, D, H, W, cin]` with pixels `x_stride` apart, `y` likewise
/// with `y_stride`; both may exceed the channels. The residual's rows are the pixels of `y`.
pub fn conv_f32(
    pool: &dyn Pool,
    shape: &ConvShape,
    x: &[f32],
    x_stride: usize,
    weights: &PackedConv,
    y: &mut [f32],
    y_stride: usize,
    epilogue: &Epilogue,
) -> Result<(), Error> {
    let count = shape.check()?;
    let w = weights;
    if (shape.kernel, shape.groups, shape.cin, shape.cout)
        != (w.kernel, w.groups, w.cin * w.groups, w.cout * w.groups)
    {
        return Err(Error::Shape { what: "the weights are packed for another convolution" });
    }
    let pixels = product(
        "the input leaves the address space",
        &[shape.batch, crate::conv_shape::pixels(shape.input)?],
    )?;
    holds("input", x.len(), pixels, shape.cin, x_stride)?;
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
    let groups = match &w.form {
        Form::Depthwise(d) => {
            let call = depthwise_f32::Call {
                window,
                batch: shape.batch,
                x: x.as_ptr(),
                x_step: x_stride,
                weights: d,
                y: y.as_mut_ptr(),
                y_step: y_stride,
                finish: &finish,
            };
            // SAFETY: the extents were checked.
            unsafe { depthwise_f32::run(pool, &call) };
            return Ok(());
        }
        Form::Dense(groups) => groups,
    };
    let runs = w.groups == 1
        && x_stride == shape.cin
        && shape.dilation[2] == 1
        && (1..FEW_CHANNELS).contains(&shape.cin)
        && shape.kernel[2] > 1;
    for (g, b) in groups.iter().enumerate() {
        let rows = WindowRows {
            window,
            x: x.as_ptr().wrapping_add(g * w.cin),
            step: x_stride,
            channels: w.cin,
            run: if runs { shape.kernel[2] } else { 1 },
        };
        let job = Job {
            tier: b.tier(),
            count,
            taps: rows.taps(),
            depth: rows.depth(),
            row_bytes: [shape.stride[2], x_stride, size_of::<f32>()]
                .into_iter()
                .fold(shape.stride[1], usize::saturating_mul),
            rows: &rows,
            b: b.view(),
            c: y.as_mut_ptr().wrapping_add(g * w.cout),
            c_step: y_stride,
            finish: &finish.starting_at_column(g * w.cout),
        };
        // SAFETY: the extents of input, output, weights and epilogue were checked against the shape.
        unsafe { indirect::run(pool, &job) };
    }
    Ok(())
}

/// Output pixels as lists of pointers.
struct WindowRows {
    window: Window,
    x: *const f32,
    /// Elements between pixels.
    step: usize,
    /// Channels read of each.
    channels: usize,
    /// Window elements along W under one pointer: 1, or the whole line.
    run: usize,
}

// SAFETY: points into a shared slice that outlives the call; only read.
unsafe impl Sync for WindowRows {}

impl WindowRows {
    fn taps(&self) -> usize {
        let [d, h, w] = self.window.kernel;
        d * h * (w / self.run)
    }

    fn depth(&self) -> usize {
        self.run * self.channels
    }

    /// The first pixel of input line `(image, d, h)`.
    fn line(&self, image: usize, d: usize, h: usize) -> *const f32 {
        let [depth, height, width] = self.window.input;
        self.x.wrapping_add(((image * depth + d) * height + h) * width * self.step)
    }

    /// One pointer for each element of the window: `pointers[i]` for output column `first + i`.
    fn elements(
        &self,
        line: *const f32,
        zeros: *const f32,
        k: usize,
        first: usize,
        pointers: &mut [*const f32],
    ) {
        let inside = self.window.inside(2, k);
        let end = first + pointers.len();
        let (lo, hi) = (inside.start.clamp(first, end) - first, inside.end.clamp(first, end) - first);
        let hi = hi.max(lo);
        pointers[..lo].fill(zeros);
        pointers[hi..].fill(zeros);
        let stride = self.window.stride[2].wrapping_mul(self.step);
        let shift = (k * self.window.dilation[2]).wrapping_sub(self.window.pad[2]).wrapping_mul(self.step);
        let mut at = line.wrapping_add((first + lo).wrapping_mul(stride).wrapping_add(shift));
        for p in &mut pointers[lo..hi] {
            *p = at;
            at = at.wrapping_add(stride);
        }
    }

    /// One pointer for each line of the window; border pixels are copied to `spare`, whose rest is returned.
    fn lines<'a>(
        &self,
        line: *const f32,
        first: usize,
        pointers: &mut [*const f32],
        mut spare: &'a mut [f32],
    ) -> &'a mut [f32] {
        let interior = self.window.interior(2);
        let end = first + pointers.len();
        let (lo, hi) = (interior.start.clamp(first, end) - first, interior.end.clamp(first, end) - first);
        let hi = hi.max(lo);
        let stride = self.window.stride[2].wrapping_mul(self.step);
        let shift = 0usize.wrapping_sub(self.window.pad[2]).wrapping_mul(self.step);
        let mut at = line.wrapping_add((first + lo).wrapping_mul(stride).wrapping_add(shift));
        for p in &mut pointers[lo..hi] {
            *p = at;
            at = at.wrapping_add(stride);
        }
        for i in (0..lo).chain(hi..pointers.len()) {
            let (copy, rest) = spare.split_at_mut(self.depth());
            for (k, to) in copy.chunks_exact_mut(self.channels).enumerate() {
                match self.window.source(2, first + i, k) {
                    // SAFETY: a pixel of the input, which holds its channels.
                    Some(w) => to.copy_from_slice(unsafe {
                        std::slice::from_raw_parts(line.wrapping_add(w * self.step), self.channels)
                    }),
                    None => to.fill(0.0),
                }
            }
            pointers[i] = copy.as_ptr();
            spare = rest;
        }
        spare
    }
}

impl Rows for WindowRows {
    fn spare_len(&self, count: usize) -> usize {
        if self.run == 1 {
            return self.depth();
        }
        let width = self.window.output[2];
        let border = width - self.window.interior(2).len();
        let copies = count.min(border * (count / width + 2));
        self.depth() * (1 + copies * self.taps())
    }

    fn fill(&self, first: usize, count: usize, to: Table) {
        let width = self.window.output[2];
        let (zeros, mut spare) = to.spare.split_at_mut(self.depth());
        zeros.fill(0.0);
        let zeros = zeros.as_ptr();
        let mut i = 0;
        while i < count {
            let (line, column) = ((first + i) / width, (first + i) % width);
            let run = (width - column).min(count - i);
            let (image, d, h) = self.window.line(line);
            let [kd, kh, kw] = self.window.kernel;
            for tap in 0..kd * kh {
                let source = (self.window.source(0, d, tap / kh), self.window.source(1, h, tap % kh));
                let at = |t: usize| t * to.step + i..t * to.step + i + run;
                let (Some(d), Some(h)) = source else {
                    for t in tap * (kw / self.run)..(tap + 1) * (kw / self.run) {
                        to.pointers[at(t)].fill(zeros);
                    }
                    continue;
                };
                let line = self.line(image, d, h);
                if self.run > 1 {
                    spare = self.lines(line, column, &mut to.pointers[at(tap)], spare);
                    continue;
                }
                for k in 0..kw {
                    self.elements(line, zeros, k, column, &mut to.pointers[at(tap * kw + k)]);
                }
            }
            for j in i..i + run {
                to.out[j] = first + j;
            }
            i += run;
        }
    }
}

#[cfg(test)]
mod tests;
