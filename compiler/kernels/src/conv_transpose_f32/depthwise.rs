//! kernel: transposed convolution of each channel by itself: vectors of channels, one output position at a time.

use super::ConvTransposeShape;
use crate::dispatch::Tier;
use crate::epilogue::Finish;
use crate::parallel::Pool;
use crate::partition::ranges;
use crate::simd::{LANES, tiered};
use crate::tile::{Place, load, store_rows};

/// One call: pixels of `x` and `y` have `step` elements from one to the next.
pub(super) struct Job<'a> {
    pub shape: &'a ConvTransposeShape,
    pub x: *const f32,
    pub x_step: usize,
    /// `[taps, channels]`.
    pub w: *const f32,
    pub y: *mut f32,
    pub y_step: usize,
    pub finish: &'a Finish,
}

// SAFETY: tasks write disjoint lines of `y`; everything else is read.
unsafe impl Sync for Job<'_> {}

/// Products below which a task is not worth handing over.
const GRAIN: usize = 64 * 1024;

/// The elements of an axis' window over output position `at`, and the input positions under them.
fn meets(s: &ConvTransposeShape, axis: usize, at: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
    let (stride, dilation, input) = (s.stride[axis], s.dilation[axis], s.input[axis]);
    let at = at + s.pad_begin[axis];
    (0..s.kernel[axis]).filter_map(move |k| {
        let from = at.checked_sub(k * dilation)?;
        (from.is_multiple_of(stride) && from / stride < input).then_some((k, from / stride))
    })
}

/// # Safety
/// Input, weights, output and epilogue have the extents of the shape.
pub(super) unsafe fn run(tier: Tier, pool: &dyn Pool, job: &Job) {
    let s = job.shape;
    let [od, oh, ow] = s.output;
    let taps: usize = s.kernel.iter().product();
    let work = (ow * s.cout).saturating_mul(taps).max(1);
    ranges(pool, s.batch * od * oh, GRAIN.div_ceil(work), &|lines| {
        // The window's elements and input pixels of one output position.
        let mut met: Vec<(usize, usize)> = Vec::with_capacity(taps);
        for line in lines {
            let (image, d, h) = (line / (od * oh), line / oh % od, line % oh);
            for w in 0..ow {
                met.clear();
                for (kd, id) in meets(s, 0, d) {
                    for (kh, ih) in meets(s, 1, h) {
                        met.extend(meets(s, 2, w).map(|(kw, iw)| {
                            let pixel = ((image * s.input[0] + id) * s.input[1] + ih) * s.input[2] + iw;
                            ((kd * s.kernel[1] + kh) * s.kernel[2] + kw, pixel)
                        }));
                    }
                }
                // SAFETY: the caller's contract; elements and pixels lie in window and input.
                unsafe { position(tier, job, &met, line * ow + w) };
            }
        }
    });
}

tiered! {
    /// # Safety
    /// As [`run`], for output pixel `row`, which meets these elements of the window and input pixels.
    unsafe fn position(s: S; job: &Job, met: &[(usize, usize)], row: usize) {
        let channels = job.shape.cout;
        for col in (0..channels).step_by(LANES) {
            let live_cols = LANES.min(channels - col);
            let mut sum = [[s.splat(0.0)]];
            for &(tap, pixel) in met {
                let x = load(s, job.x.add(pixel * job.x_step + col), 0, live_cols);
                let w = load(s, job.w.add(tap * channels + col), 0, live_cols);
                sum[0][0] = s.fma(x, w, sum[0][0]);
            }
            let place = Place { out: &row, live_rows: 1, live_cols, col };
            job.finish.sums(s, &mut sum, &place);
            store_rows(s, &sum, job.y.add(col), job.y_step, &place);
        }
        if job.finish.is_late() {
            let line = std::slice::from_raw_parts_mut(job.y.add(row * job.y_step), channels);
            job.finish.late(line, row, 0);
        }
    }
}
