//! Convolution over channels-last activations, without a copy of the input.
//!
//! The weights are a packed operand whose rows run over the window and then the input channels; each output pixel
//! is a list of pointers into the input. With few channels a line of the window is one run in memory and one
//! pointer, and only pixels at the border are copied, with their zeros.

use crate::columns_f32::{self, PackedColumns};
use crate::conv_shape::{ConvShape, check_groups};
use crate::depthwise_f32::{self, PackedDepthwise};
use crate::dispatch::Tier;
use crate::epilogue::{Epilogue, Finish, holds};
use crate::error::{Error, product, same_length};
use crate::indirect::{self, Job, NARROW};
use crate::pack::PackedB;
use crate::parallel::Pool;
use crate::stored::{Reader, Stored, Writer};
use crate::window_rows::{FEW_CHANNELS, WindowRows};
use crate::winograd_f32::{self, PackedWinograd, Side};

/// Products below which no other form is looked for.
const SMALL: usize = 1 << 18;

/// Share of a window's elements that are no padding above which leaving out the others saves less than looking for them
/// costs. What is skipped then follows from the shape alone.
const MOSTLY_INSIDE: f64 = 0.96;

/// Weights of a convolution, packed once, for one tier.
#[derive(Clone)]
pub struct PackedConv {
    kernel: [usize; 3],
    groups: usize,
    /// Input and output channels of a group.
    cin: usize,
    cout: usize,
    /// Products of the weights with zeros are zeros.
    finite: bool,
    form: Form,
}

/// Shapes of one layout have their weights packed alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvLayout {
    channels: [usize; 3],
    kernel: [usize; 3],
    stride: [usize; 3],
    side: Option<Side>,
    columns: Option<usize>,
    /// What of the window is packed where weights are finite, as the rest only meets padding: its start and size.
    kept: Option<([usize; 3], [usize; 3])>,
}

#[derive(Clone)]
enum Form {
    /// One operand for each group.
    Dense(Vec<PackedB>),
    /// Also for narrow groups.
    Depthwise(PackedDepthwise),
    Winograd(PackedWinograd),
    Columns(PackedColumns),
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
        PackedConv::plain(tier, bytemuck::cast_slice(weights), cout, cin, kernel, groups)
    }

    fn plain(
        tier: Tier,
        weights: &[[u8; 4]],
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
        let form = if groups > 1 && PackedDepthwise::takes(cin, cout) {
            Form::Depthwise(PackedDepthwise::new(tier, weights, groups, (cin, cout), taps)?)
        } else {
            let k = cin * taps;
            let pack =
                |g: usize| PackedB::from_taps(tier, &weights[g * cout * k..][..cout * k], cout, cin, taps);
            Form::Dense((0..groups).map(pack).collect::<Result<_, _>>()?)
        };
        Ok(PackedConv { kernel, groups, cin, cout, finite: finite(weights), form })
    }

    /// What of a shape decides how [`PackedConv::for_shape`] packs.
    pub fn layout(shape: &ConvShape) -> Result<ConvLayout, Error> {
        let whole = shape.narrowed();
        let (s, first) = whole.trimmed()?;
        let kept = (s != whole).then_some((first, s.kernel));
        Ok(ConvLayout { kernel: whole.kernel, kept, ..PackedConv::layout_of(&s)? })
    }

    fn layout_of(s: &ConvShape) -> Result<ConvLayout, Error> {
        let sizes = [s.output()?, s.kernel].into_iter().flatten();
        let products = sizes.fold(s.batch, usize::saturating_mul);
        let small = products.saturating_mul(s.cin).saturating_mul(s.cout) < SMALL;
        Ok(ConvLayout {
            channels: [s.cin, s.cout, s.groups],
            kernel: s.kernel,
            stride: s.stride,
            side: if small { None } else { winograd_f32::side(s) },
            columns: if small { None } else { columns_f32::columns(s) },
            kept: None,
        })
    }

    /// Packs weights of shape `[cout, cin / groups, D, H, W]` in the form that is fastest for these sizes, with which
    /// pixels of the result and of a residual must be adjacent.
    pub fn for_shape(tier: Tier, weights: &[f32], shape: &ConvShape) -> Result<PackedConv, Error> {
        PackedConv::from_unaligned(tier, bytemuck::cast_slice(weights), shape)
    }

    /// As [`PackedConv::for_shape`] for elements at any address, as they lie in a file.
    pub fn from_unaligned(tier: Tier, weights: &[[u8; 4]], shape: &ConvShape) -> Result<PackedConv, Error> {
        let whole = &shape.narrowed();
        let (shape, first) = &whole.trimmed()?;
        if shape == whole || !finite(weights) {
            return PackedConv::of(tier, weights, whole);
        }
        let what = "the weights leave the address space";
        let [d, h, w] = whole.kernel;
        check_groups(whole.groups, whole.cin, whole.cout)?;
        let len = product(what, &[whole.cout, whole.cin / whole.groups, d, h, w])?;
        same_length("weights", len, weights.len())?;
        let mut kept = Vec::new();
        for window in weights.chunks_exact(d * h * w) {
            for (i, j) in (0..shape.kernel[0]).flat_map(|i| (0..shape.kernel[1]).map(move |j| (i, j))) {
                let start = ((first[0] + i) * h + first[1] + j) * w + first[2];
                kept.extend_from_slice(&window[start..start + shape.kernel[2]]);
            }
        }
        PackedConv::of(tier, &kept, shape)
    }

    fn of(tier: Tier, weights: &[[u8; 4]], shape: &ConvShape) -> Result<PackedConv, Error> {
        let layout = PackedConv::layout_of(shape)?;
        let (cin, cout) = (shape.cin, shape.cout);
        if let Some(form) = layout
            .side
            .and_then(|side| PackedWinograd::new(tier, side, weights, cout, cin).map(Form::Winograd))
        {
            return Ok(PackedConv { kernel: shape.kernel, groups: 1, cin, cout, finite: true, form });
        }
        if let Some(columns) = layout.columns {
            let [d, h, w] = shape.kernel;
            let len = product("the weights leave the address space", &[d, h, w, cin, cout])?;
            same_length("weights", len, weights.len())?;
            let form = Form::Columns(PackedColumns::new(tier, columns, weights, shape)?);
            let finite = finite(weights);
            return Ok(PackedConv { kernel: shape.kernel, groups: 1, cin, cout, finite, form });
        }
        PackedConv::plain(tier, weights, cout, cin, shape.kernel, shape.groups)
    }

    /// Whether some lines of the result of `shape` may be made without the others, bit for bit the same.
    pub fn takes_lines(&self, shape: &ConvShape) -> bool {
        let plain = matches!(self.form, Form::Dense(_) | Form::Depthwise(_));
        // A single pixel may be summed in another order.
        plain && self.kernel == shape.kernel && shape.output().is_ok_and(|o| o[2] > 1)
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        match &self.form {
            Form::Dense(groups) => groups.iter().map(PackedB::bytes).sum(),
            Form::Depthwise(d) => d.bytes(),
            Form::Winograd(w) => w.bytes(),
            Form::Columns(c) => c.bytes(),
        }
    }
}

fn finite(weights: &[[u8; 4]]) -> bool {
    weights.iter().all(|w| f32::from_ne_bytes(*w).is_finite())
}

/// The window without axes of size 1: weights are packed in the same order whichever axes it lies on.
fn taps(mut kernel: [usize; 3]) -> [usize; 3] {
    kernel.sort_by_key(|&n| n > 1);
    kernel
}

crate::variants! { Form { 0 = Dense(groups), 1 = Depthwise(weights), 2 = Winograd(weights), 3 = Columns(weights) } }

impl Stored for PackedConv {
    fn put<'a>(&'a self, out: &mut Writer<'a>) {
        [self.kernel.as_slice(), &[self.groups, self.cin, self.cout]].concat().iter().for_each(|x| {
            out.stream.extend((*x as u64).to_le_bytes());
        });
        self.finite.put(out);
        self.form.put(out);
    }
    fn take(from: &mut Reader) -> Option<PackedConv> {
        let (kernel, [groups, cin, cout]) = <([usize; 3], [usize; 3])>::take(from)?;
        let (finite, form) = (bool::take(from)?, Form::take(from)?);
        let taps = kernel.iter().try_fold(1usize, |n, &k| n.checked_mul(k))?;
        let fits = match &form {
            Form::Dense(all) => {
                let k = cin.checked_mul(taps)?;
                all.len() == groups && all.iter().all(|b| (b.k(), b.n()) == (k, cout))
            }
            Form::Depthwise(d) => groups > 1 && d.fits(groups, cin, cout, taps),
            Form::Winograd(_) | Form::Columns(_) => groups == 1,
        };
        fits.then_some(PackedConv { kernel, groups, cin, cout, finite, form })
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
    let (w, whole) = (weights, shape.narrowed());
    let count = whole.check()?;
    let shape = &if taps(whole.kernel) == taps(w.kernel) { whole } else { whole.trimmed()?.0 };
    let fits = match &w.form {
        Form::Winograd(w) => w.takes(shape),
        Form::Columns(_) => shape.kernel == w.kernel && y_stride == shape.cout && shape.dilation[2] == 1,
        _ => true,
    };
    if (taps(shape.kernel), shape.groups, shape.cin, shape.cout)
        != (taps(w.kernel), w.groups, w.cin * w.groups, w.cout * w.groups)
        || !fits
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
    let window = shape.window()?;
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
        Form::Winograd(weights) => {
            let (x, y) = (x.as_ptr(), y.as_mut_ptr());
            let call = winograd_f32::Call {
                shape,
                window,
                x,
                x_step: x_stride,
                weights,
                y,
                y_step: y_stride,
                finish: &finish,
            };
            // SAFETY: the extents were checked, and the sizes are those the form was chosen for but for the batch and
            // the spatial ones, which it does not depend on.
            unsafe { winograd_f32::run(pool, &call) };
            return Ok(());
        }
        Form::Columns(weights) => {
            // SAFETY: the extents were checked, and pixels of the output are adjacent.
            return unsafe { columns_f32::run(pool, shape, window, (x, x_stride), weights, y, epilogue) };
        }
        Form::Dense(groups) => groups,
    };
    let runs = w.groups == 1
        && x_stride == shape.cin
        && shape.dilation[2] == 1
        && (1..FEW_CHANNELS).contains(&shape.cin)
        && shape.kernel[2] > 1;
    let of_group = |g: usize| {
        let rows = WindowRows {
            window,
            x: x.as_ptr().wrapping_add(g * w.cin).cast(),
            step: x_stride * size_of::<f32>(),
            channels: w.cin * size_of::<f32>(),
            run: if runs { shape.kernel[2] } else { 1 },
            pad: 0,
            groups: w.groups,
        };
        (rows, finish.starting_at_column(g * w.cout))
    };
    let all: Vec<(WindowRows, Finish)> = (0..groups.len()).map(of_group).collect();
    let mut jobs: Vec<Job> = Vec::with_capacity(groups.len());
    for (g, ((rows, finish), b)) in all.iter().zip(groups).enumerate() {
        jobs.push(Job {
            tier: b.tier(),
            count,
            taps: rows.taps(),
            depth: rows.depth(),
            skips: w.finite && window.share() < MOSTLY_INSIDE,
            row_bytes: [shape.stride[2], x_stride, size_of::<f32>()]
                .into_iter()
                .fold(shape.stride[1], usize::saturating_mul),
            rows,
            b: b.view(),
            c: y.as_mut_ptr().wrapping_add(g * w.cout),
            c_step: y_stride,
            finish,
            integers: None,
            quantized: None,
        });
    }
    // SAFETY: the extents of input, output, weights and epilogue were checked against the shape.
    unsafe {
        if jobs.len() > 1 && w.cout <= NARROW {
            indirect::run_groups(pool, &jobs, w.cin * size_of::<f32>());
        } else {
            jobs.iter().for_each(|job| indirect::run(pool, job));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
