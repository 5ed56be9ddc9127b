//! The geometry of a window that moves over up to three spatial axes, and its checks.

use crate::error::{Error, product};
use std::ops::Range;

/// A convolution over `[batch, D, H, W, channels]`. Fewer spatial axes are axes of size 1 in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Independent images.
    pub batch: usize,
    /// Spatial sizes of the input: D, H, W.
    pub input: [usize; 3],
    /// Input channels.
    pub cin: usize,
    /// Output channels.
    pub cout: usize,
    /// Window sizes.
    pub kernel: [usize; 3],
    /// Steps of the window.
    pub stride: [usize; 3],
    /// Steps inside the window.
    pub dilation: [usize; 3],
    /// Zeros in front of each axis.
    pub pad_begin: [usize; 3],
    /// Zeros behind each axis.
    pub pad_end: [usize; 3],
    /// Groups of channels that do not mix.
    pub groups: usize,
}

/// Above this a size is refused, so that positions in a window cannot leave `isize`.
const MOST: usize = 1 << 31;

impl ConvShape {
    /// A convolution over `[batch, h, w, cin]`; `pads` are top, left, bottom, right.
    pub fn d2(
        (batch, h, w, cin): (usize, usize, usize, usize),
        cout: usize,
        kernel: [usize; 2],
        stride: [usize; 2],
        dilation: [usize; 2],
        pads: [usize; 4],
        groups: usize,
    ) -> ConvShape {
        ConvShape {
            batch,
            input: [1, h, w],
            cin,
            cout,
            kernel: [1, kernel[0], kernel[1]],
            stride: [1, stride[0], stride[1]],
            dilation: [1, dilation[0], dilation[1]],
            pad_begin: [0, pads[0], pads[1]],
            pad_end: [0, pads[2], pads[3]],
            groups,
        }
    }

    /// Spatial sizes of the output, rounded down as the ONNX operator `Conv` has it.
    pub fn output(&self) -> Result<[usize; 3], Error> {
        let mut out = [0; 3];
        for i in 0..3 {
            let padded = self.input[i].saturating_add(self.pad_begin[i]).saturating_add(self.pad_end[i]);
            let window = span(self.kernel[i], self.dilation[i])?;
            if self.stride[i] == 0 {
                return Err(Error::Shape { what: "a stride is zero" });
            }
            out[i] = match padded.checked_sub(window) {
                Some(room) => room / self.stride[i] + 1,
                None => 0,
            };
        }
        Ok(out)
    }

    /// The same convolution with its last axis moved to where an axis of size 1 stood, so that what works along W, such
    /// as reading a line of the window as one run, works for images of one column too.
    pub(crate) fn narrowed(&self) -> ConvShape {
        let mut s = *self;
        let one = |s: &ConvShape, i: usize| {
            (s.input[i], s.kernel[i], s.stride[i], s.pad_begin[i], s.pad_end[i]) == (1, 1, 1, 0, 0)
        };
        for _ in 0..2 {
            if one(&s, 2) {
                let back = [&mut s.input, &mut s.kernel, &mut s.stride, &mut s.dilation];
                back.into_iter().for_each(|a| *a = [1, a[0], a[1]]);
                [&mut s.pad_begin, &mut s.pad_end].into_iter().for_each(|a| *a = [0, a[0], a[1]]);
            }
        }
        s
    }

    /// The same convolution without the outer elements of the window that lie in the padding wherever it is, and how many
    /// of these come first on each axis.
    pub(crate) fn trimmed(&self) -> Result<(ConvShape, [usize; 3]), Error> {
        let window = self.window()?;
        let (mut s, mut before) = (*self, [0; 3]);
        for axis in 0..3 {
            let dilation = self.dilation[axis];
            if window.output[axis] == 0 {
                continue;
            }
            let live = |k: &usize| !window.inside(axis, *k).is_empty();
            let (Some(first), Some(last)) =
                ((0..self.kernel[axis]).find(live), (0..self.kernel[axis]).rfind(live))
            else {
                continue;
            };
            // What is cut off is cut off the padding.
            let first = first.min(self.pad_begin[axis] / dilation);
            let behind = (self.kernel[axis] - 1 - last).min(self.pad_end[axis] / dilation);
            before[axis] = first;
            s.kernel[axis] -= first + behind;
            s.pad_begin[axis] -= first * dilation;
            s.pad_end[axis] -= behind * dilation;
            if s.kernel[axis] == 1 {
                s.dilation[axis] = 1;
            }
        }
        Ok((s, before))
    }

    /// The convolution of one image that makes these lines of its result (places on the axis H), and the lines of the image
    /// it reads. D is of size 1, and no window lies in padding altogether.
    pub fn lines(&self, of: Range<usize>) -> Result<(ConvShape, Range<usize>), Error> {
        let (pads, input) = ([self.pad_begin[1], self.pad_end[1]], self.input[1]);
        let window = span(self.kernel[1], self.dilation[1])?;
        let output = self.output()?;
        let single = [self.input[0], self.kernel[0], output[0]] == [1; 3] && pads.iter().all(|&p| p < window);
        if !single || of.is_empty() || of.end > output[1] {
            return Err(Error::Shape { what: "lines of a convolution" });
        }
        // No larger than the padded input, as the last line is one of the output.
        let (first, end) = (of.start * self.stride[1], (of.end - 1) * self.stride[1] + window);
        let read = first.saturating_sub(pads[0])..input.min(end.saturating_sub(pads[0]));
        let mut part = ConvShape { batch: 1, ..*self };
        part.input[1] = read.len();
        part.pad_begin[1] = pads[0].saturating_sub(first);
        part.pad_end[1] = end.saturating_sub(pads[0] + input);
        Ok((part, read))
    }

    pub(crate) fn window(&self) -> Result<Window, Error> {
        Ok(Window {
            input: self.input,
            output: self.output()?,
            kernel: self.kernel,
            stride: self.stride,
            dilation: self.dilation,
            pad: self.pad_begin,
        })
    }

    /// Refuses sizes that are zero where they must not be, do not divide, or overflow; gives the output's rows.
    pub(crate) fn check(&self) -> Result<usize, Error> {
        let window = self.window()?;
        window.check()?;
        check_groups(self.groups, self.cin, self.cout)?;
        product("the output leaves the address space", &[self.batch, pixels(window.output)?])
    }
}

/// Channels divide into groups.
pub(crate) fn check_groups(groups: usize, cin: usize, cout: usize) -> Result<(), Error> {
    if groups == 0 || !cin.is_multiple_of(groups) || !cout.is_multiple_of(groups) {
        return Err(Error::Shape { what: "channels do not divide into the groups" });
    }
    Ok(())
}

/// The extent of a dilated window.
fn span(kernel: usize, dilation: usize) -> Result<usize, Error> {
    if kernel == 0 || dilation == 0 {
        return Err(Error::Shape { what: "a window size or dilation is zero" });
    }
    let reach = product("a window leaves the address space", &[kernel - 1, dilation])?;
    if reach >= MOST { Err(Error::Shape { what: "a window is too large" }) } else { Ok(reach + 1) }
}

pub(crate) fn pixels(sizes: [usize; 3]) -> Result<usize, Error> {
    product("spatial sizes leave the address space", &sizes)
}

/// A window with explicit output sizes: all that moving it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Spatial sizes of the input: D, H, W.
    pub input: [usize; 3],
    /// Spatial sizes of the output.
    pub output: [usize; 3],
    /// Window sizes.
    pub kernel: [usize; 3],
    /// Steps of the window.
    pub stride: [usize; 3],
    /// Steps inside the window.
    pub dilation: [usize; 3],
    /// Positions before the input where the window starts.
    pub pad: [usize; 3],
}

impl Window {
    pub(crate) fn check(&self) -> Result<(), Error> {
        for i in 0..3 {
            span(self.kernel[i], self.dilation[i])?;
            if self.stride[i] == 0 {
                return Err(Error::Shape { what: "a stride is zero" });
            }
            if [self.input[i], self.output[i], self.stride[i], self.pad[i]].iter().any(|&n| n >= MOST) {
                return Err(Error::Shape { what: "a spatial size is too large" });
            }
        }
        pixels(self.input)?;
        pixels(self.output)?;
        pixels(self.kernel)?;
        Ok(())
    }

    /// The input position on `axis` under window element `k` for output position `o`, if it is not padding.
    #[inline]
    pub(crate) fn source(&self, axis: usize, o: usize, k: usize) -> Option<usize> {
        let at = (o * self.stride[axis] + k * self.dilation[axis]).checked_sub(self.pad[axis])?;
        (at < self.input[axis]).then_some(at)
    }

    /// The first input position under the window at output position `o` of an axis, and how many there are.
    #[inline(always)]
    pub(crate) fn span(&self, axis: usize, o: usize) -> (usize, usize) {
        let origin = o * self.stride[axis];
        let skip = match self.dilation[axis] {
            1 => self.pad[axis].saturating_sub(origin),
            d => self.pad[axis].saturating_sub(origin).div_ceil(d),
        };
        let start = (origin + skip * self.dilation[axis]).saturating_sub(self.pad[axis]);
        let room = self.input[axis].saturating_sub(start);
        let room = if self.dilation[axis] == 1 { room } else { room.div_ceil(self.dilation[axis]) };
        (start, self.kernel[axis].saturating_sub(skip).min(room))
    }

    /// The output positions on `axis` for which element `k` of the window is not padding.
    pub(crate) fn inside(&self, axis: usize, k: usize) -> std::ops::Range<usize> {
        let (stride, shift, pad) = (self.stride[axis], k * self.dilation[axis], self.pad[axis]);
        let first = pad.saturating_sub(shift).div_ceil(stride);
        let end = self.input[axis].saturating_add(pad).saturating_sub(shift).div_ceil(stride);
        let end = end.min(self.output[axis]);
        first.min(end)..end
    }

    /// The output positions on `axis` for which no element of the window is padding.
    pub(crate) fn interior(&self, axis: usize) -> std::ops::Range<usize> {
        let (first, last) = (self.inside(axis, 0), self.inside(axis, self.kernel[axis] - 1));
        let end = first.end.min(last.end);
        first.start.max(last.start).min(end)..end
    }

    /// The share of its elements that are not padding, over all output positions.
    pub(crate) fn share(&self) -> f64 {
        let along = |axis: usize| {
            let all = self.output[axis] as f64 * self.kernel[axis] as f64;
            (0..self.kernel[axis]).map(|k| self.inside(axis, k).len()).sum::<usize>() as f64 / all.max(1.0)
        };
        (0..3).map(along).product()
    }

    /// The batch index and output positions of output line `line` (a run along the last axis).
    #[inline]
    pub(crate) fn line(&self, line: usize) -> (usize, usize, usize) {
        let (plane, h) = (line / self.output[1], line % self.output[1]);
        (plane / self.output[0], plane % self.output[0], h)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_agree_with_single_positions(
            input in 0usize..12, output in 0usize..12, kernel in 1usize..5, stride in 1usize..4,
            dilation in 1usize..4, pad in 0usize..6,
        ) {
            let three = |x| [1, 1, x];
            let w = Window {
                input: three(input), output: three(output), kernel: three(kernel), stride: three(stride),
                dilation: three(dilation), pad: [0, 0, pad],
            };
            for o in 0..output {
                for k in 0..kernel {
                    prop_assert_eq!(w.source(2, o, k).is_some(), w.inside(2, k).contains(&o));
                }
                let all = (0..kernel).all(|k| w.source(2, o, k).is_some());
                prop_assert_eq!(all, w.interior(2).contains(&o));
            }
        }

        #[test]
        fn lines_read_what_the_whole_reads(
            input in 1usize..30, kernel in 1usize..5, stride in 1usize..4, dilation in 1usize..3,
            pads in (0usize..4, 0usize..4), cut in (0usize..30, 1usize..30),
        ) {
            let pads = [pads.0, pads.1].map(|p| p.min((kernel - 1) * dilation));
            let whole = ConvShape::d2((3, input, 5, 1), 1, [kernel, 1], [stride, 1], [dilation, 1], [pads[0], 0, pads[1], 0], 1);
            let lines = whole.output().unwrap()[1];
            let of = cut.0.min(lines)..(cut.0 + cut.1).min(lines);
            match whole.lines(of.clone()) {
                Err(_) => prop_assert!(of.is_empty()),
                Ok((part, read)) => {
                    let (all, some) = (whole.window().unwrap(), part.window().unwrap());
                    prop_assert_eq!((some.output[1], some.input[1], part.batch), (of.len(), read.len(), 1));
                    for (o, k) in (0..of.len()).flat_map(|o| (0..kernel).map(move |k| (o, k))) {
                        let here = some.source(1, o, k).map(|at| at + read.start);
                        prop_assert_eq!(all.source(1, of.start + o, k), here);
                    }
                }
            }
        }

        #[test]
        fn trimmed_windows_read_the_same(
            input in 1usize..12, kernel in 1usize..5, stride in 1usize..4, dilation in 1usize..9,
            pads in (0usize..20, 0usize..20),
        ) {
            let whole = ConvShape::d2((1, 1, input, 1), 1, [1, kernel], [1, stride], [1, dilation], [0, pads.0, 0, pads.1], 1);
            let (part, first) = whole.trimmed().unwrap();
            prop_assert_eq!(whole.output().unwrap(), part.output().unwrap());
            let (all, some) = (whole.window().unwrap(), part.window().unwrap());
            for o in 0..all.output[2] {
                let read = |w: &Window, n: usize, k: usize| if k < n { w.source(2, o, k) } else { None };
                for k in 0..kernel {
                    let found = k.checked_sub(first[2]).and_then(|k| read(&some, part.kernel[2], k));
                    prop_assert_eq!(all.source(2, o, k), found);
                }
            }
        }
    }
}
