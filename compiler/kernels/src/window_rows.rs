//! The rows of a convolution's left operand: for each output pixel the pointers to its window, no copy of the input.
//!
//! Everything is counted in bytes, so that float32 and 8-bit activations share it; sums read cells of four bytes.
//! With few channels a line of the window is one run in memory and one pointer, and only pixels at the border are
//! copied, with what pads them.

use crate::conv_shape::Window;
use crate::indirect::{Rows, Table};
use std::ops::Range;

/// Input channels below which the elements of a window's line are summed as one run.
pub(crate) const FEW_CHANNELS: usize = 32;
/// Bytes of a cell.
const CELL: usize = 4;

fn bytes_of(cells: &mut [f32]) -> &mut [u8] {
    bytemuck::cast_slice_mut(cells)
}

/// Output pixels as lists of pointers.
pub(crate) struct WindowRows {
    pub window: Window,
    pub x: *const u8,
    /// Bytes between pixels.
    pub step: usize,
    /// Bytes read of each pixel.
    pub channels: usize,
    /// Window elements along W under one pointer: 1, or the whole line.
    pub run: usize,
    /// What stands outside the input: 0, or the zero point of a quantized input.
    pub pad: u8,
    /// Groups of as many channels, one behind the other, that pointers are moved to: padding has room for all.
    pub groups: usize,
}

// SAFETY: points into a shared slice that outlives the call; only read.
unsafe impl Sync for WindowRows {}

impl WindowRows {
    pub fn taps(&self) -> usize {
        let [d, h, w] = self.window.kernel;
        d * h * (w / self.run)
    }

    /// Cells of four bytes summed for each tap; those that hold the end of a run may reach up to 3 bytes past it.
    pub fn depth(&self) -> usize {
        (self.run * self.channels).div_ceil(CELL)
    }

    /// Cells of a row that lies outside the input.
    fn padding(&self) -> usize {
        (self.groups.max(1) - 1) * self.channels.div_ceil(CELL) + self.depth()
    }

    /// The first pixel of input line `(image, d, h)`.
    fn line(&self, image: usize, d: usize, h: usize) -> *const u8 {
        let [depth, height, width] = self.window.input;
        self.x.wrapping_add(((image * depth + d) * height + h) * width * self.step)
    }

    /// One pointer for each element of the window: `pointers[i]` for output column `first + i`. Gives those that lie in the
    /// input.
    fn elements(
        &self,
        line: *const u8,
        zeros: *const f32,
        k: usize,
        first: usize,
        pointers: &mut [*const f32],
    ) -> Range<usize> {
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
            *p = at.cast();
            at = at.wrapping_add(stride);
        }
        lo..hi
    }

    /// One pointer for each line of the window; border pixels are copied to `spare`, whose rest is returned.
    fn lines<'a>(
        &self,
        line: *const u8,
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
            *p = at.cast();
            at = at.wrapping_add(stride);
        }
        for i in (0..lo).chain(hi..pointers.len()) {
            let (copy, rest) = spare.split_at_mut(self.depth());
            for (k, to) in bytes_of(copy).chunks_exact_mut(self.channels).take(self.run).enumerate() {
                match self.window.source(2, first + i, k) {
                    // SAFETY: a pixel of the input, which holds its channels.
                    Some(w) => to.copy_from_slice(unsafe {
                        std::slice::from_raw_parts(line.wrapping_add(w * self.step), self.channels)
                    }),
                    None => to.fill(self.pad),
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
            return self.padding();
        }
        let width = self.window.output[2];
        let border = width - self.window.interior(2).len();
        let copies = count.min(border * (count / width + 2));
        self.padding() + self.depth() * copies * self.taps()
    }

    fn fill(&self, first: usize, count: usize, to: Table) {
        let width = self.window.output[2];
        let (zeros, mut spare) = to.spare.split_at_mut(self.padding());
        bytes_of(zeros).fill(self.pad);
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
                        if let Some(live) = to.live.get_mut(i..i + run) {
                            live.iter_mut().for_each(|live| *live &= !(1 << t));
                        }
                    }
                    continue;
                };
                let line = self.line(image, d, h);
                if self.run > 1 {
                    spare = self.lines(line, column, &mut to.pointers[at(tap)], spare);
                    continue;
                }
                for k in 0..kw {
                    let t = tap * kw + k;
                    let inside = self.elements(line, zeros, k, column, &mut to.pointers[at(t)]);
                    if let Some(live) = to.live.get_mut(i..i + run) {
                        live[..inside.start].iter_mut().for_each(|live| *live &= !(1 << t));
                        live[inside.end..].iter_mut().for_each(|live| *live &= !(1 << t));
                    }
                }
            }
            for j in i..i + run {
                to.out[j] = first + j;
            }
            i += run;
        }
    }
}
