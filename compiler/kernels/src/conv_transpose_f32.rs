//! Transposed convolution over channels-last activations, as one small convolution for each phase of the stride.
//!
//! Output positions that are equal modulo the stride see the same elements of the window, over input positions one
//! apart. Each phase is therefore an ordinary product with pointers into the input, finished where it is summed,
//! with no intermediate image to scatter. Where windows do not overlap along W, its phases are columns of one
//! product.

mod depthwise;

use crate::conv_shape::{Window, check_groups, pixels};
use crate::dispatch::Tier;
use crate::epilogue::{Affine, Epilogue, Residual, holds};
use crate::error::{Error, product, same_length};
use crate::indirect::{self, Job, Rows, Table};
use crate::pack::PackedB;
use crate::parallel::Pool;

/// A transposed convolution from `[batch, D, H, W, cin]` to `[batch, D', H', W', cout]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvTransposeShape {
    /// Independent images.
    pub batch: usize,
    /// Spatial sizes of the input: D, H, W.
    pub input: [usize; 3],
    /// Spatial sizes of the output, which padding and output padding determine.
    pub output: [usize; 3],
    /// Input channels.
    pub cin: usize,
    /// Output channels.
    pub cout: usize,
    /// Window sizes.
    pub kernel: [usize; 3],
    /// Output positions from one input position to the next.
    pub stride: [usize; 3],
    /// Steps inside the window.
    pub dilation: [usize; 3],
    /// Positions cut from the front of each axis.
    pub pad_begin: [usize; 3],
    /// Groups of channels that do not mix.
    pub groups: usize,
}

/// Weights of a transposed convolution, packed once, for one tier, stride and dilation.
#[derive(Clone)]
pub struct PackedConvTranspose {
    kernel: [usize; 3],
    stride: [usize; 3],
    dilation: [usize; 3],
    groups: usize,
    cin: usize,
    cout: usize,
    axes: [Vec<Class>; 3],
    /// For each class of D, H, W and each group. The last `groups` have no taps.
    packed: Vec<PackedB>,
    /// The same with the columns of W's window side by side.
    wide: Option<Box<PackedConvTranspose>>,
    /// In place of `packed`, where each channel is a group: `[taps, channels]`.
    depthwise: Option<Vec<f32>>,
    tier: Tier,
}

/// Elements of a window's axis that meet the same output positions.
#[derive(Clone, Debug)]
struct Class {
    residue: usize,
    elements: Vec<usize>,
}

crate::fields! {
    Class { residue, elements }
    PackedConvTranspose { kernel, stride, dilation, groups, cin, cout, axes, packed, wide, depthwise, tier }
}

fn classes(kernel: usize, stride: usize, dilation: usize) -> Vec<Class> {
    let mut classes: Vec<Class> = Vec::new();
    for k in 0..kernel {
        let residue = k * dilation % stride;
        match classes.iter_mut().find(|c| c.residue == residue) {
            Some(class) => class.elements.push(k),
            None => classes.push(Class { residue, elements: vec![k] }),
        }
    }
    classes
}

impl PackedConvTranspose {
    /// Packs weights of shape `[cin, cout / groups, D, H, W]` for the window, stride, dilation, channels and groups
    /// of `shape`.
    pub fn new(
        tier: Tier,
        weights: &[f32],
        shape: &ConvTransposeShape,
    ) -> Result<PackedConvTranspose, Error> {
        let &ConvTransposeShape { kernel, stride, dilation, groups, .. } = shape;
        check_groups(groups, shape.cin, shape.cout)?;
        shape.window().check()?;
        let (cin, cout) = (shape.cin / groups, shape.cout / groups);
        let what = "the weights leave the address space";
        let taps = product(what, &kernel)?;
        same_length("weights", product(what, &[groups, cin, cout, taps])?, weights.len())?;
        let axes = [0, 1, 2].map(|i| classes(kernel[i], stride[i], dilation[i]));
        let (packed, wide, depthwise) = (Vec::new(), None, None);
        let mut all = PackedConvTranspose {
            kernel,
            stride,
            dilation,
            groups,
            cin,
            cout,
            axes,
            packed,
            wide,
            depthwise,
            tier,
        };
        if groups > 1 && (cin, cout) == (1, 1) {
            let each = |tap: usize| weights.iter().skip(tap).step_by(taps);
            all.depthwise = Some((0..taps).flat_map(each).copied().collect());
            return Ok(all);
        }
        for d in &all.axes[0] {
            for h in &all.axes[1] {
                for w in &all.axes[2] {
                    let mut elements = Vec::new();
                    for kd in &d.elements {
                        for kh in &h.elements {
                            elements
                                .extend(w.elements.iter().map(|kw| (kd * kernel[1] + kh) * kernel[2] + kw));
                        }
                    }
                    for g in 0..groups {
                        let at = |row: usize, col: usize| {
                            weights[((g * cin + row % cin) * cout + col) * taps + elements[row / cin]]
                        };
                        all.packed.push(PackedB::from_fn(tier, elements.len() * cin, cout, at)?);
                    }
                }
            }
        }
        for _ in 0..groups {
            all.packed.push(PackedB::from_fn(tier, 0, cout, |_, _| 0f32)?);
        }
        if let Some(wide) = shape.side_by_side() {
            let columns = kernel[2];
            let mut w = Vec::with_capacity(weights.len());
            for c in 0..cin {
                for column in 0..columns {
                    for o in 0..cout {
                        let line = &weights[(c * cout + o) * taps..][..taps];
                        w.extend(line.iter().skip(column).step_by(columns));
                    }
                }
            }
            all.wide = Some(Box::new(PackedConvTranspose::new(tier, &w, &wide)?));
        }
        Ok(all)
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let wide = self.wide.as_ref().map_or(0, |w| w.bytes());
        let depthwise = self.depthwise.as_ref().map_or(0, |d| size_of_val(&d[..]));
        self.packed.iter().map(PackedB::bytes).sum::<usize>() + wide + depthwise
    }

    /// The operands, one for each group, and the window's elements for outputs whose position plus padding leaves
    /// these residues.
    fn phase(&self, residue: [usize; 3]) -> (&[PackedB], [&[usize]; 3]) {
        let mut index = 0;
        let mut elements: [&[usize]; 3] = [&[]; 3];
        for i in 0..3 {
            match self.axes[i].iter().position(|c| c.residue == residue[i]) {
                Some(class) => {
                    index = index * self.axes[i].len() + class;
                    elements[i] = &self.axes[i][class].elements;
                }
                None => return (&self.packed[self.packed.len() - self.groups..], [&[]; 3]),
            }
        }
        (&self.packed[index * self.groups..][..self.groups], elements)
    }
}

impl ConvTransposeShape {
    fn window(&self) -> Window {
        Window {
            input: self.input,
            output: self.output,
            kernel: self.kernel,
            stride: self.stride,
            dilation: self.dilation,
            pad: self.pad_begin,
        }
    }

    /// The same with W's window folded into the output channels, if its columns meet disjoint, adjacent outputs.
    fn side_by_side(&self) -> Option<ConvTransposeShape> {
        let columns = self.kernel[2];
        let adjacent =
            columns > 1 && columns == self.stride[2] && self.dilation[2] == 1 && self.pad_begin[2] == 0;
        let exact = self.input[2].checked_mul(columns) == Some(self.output[2]);
        (adjacent && exact && self.groups == 1).then_some(ConvTransposeShape {
            output: [self.output[0], self.output[1], self.input[2]],
            cout: self.cout * columns,
            kernel: [self.kernel[0], self.kernel[1], 1],
            stride: [self.stride[0], self.stride[1], 1],
            ..*self
        })
    }
}

/// `y = act(transposed conv(x) + bias + residual)`. `x` and `y` have pixels `x_stride` and `y_stride` apart, which
/// may exceed the channels. The residual's rows are the pixels of `y`.
pub fn conv_transpose_f32(
    pool: &dyn Pool,
    shape: &ConvTransposeShape,
    x: &[f32],
    x_stride: usize,
    weights: &PackedConvTranspose,
    y: &mut [f32],
    y_stride: usize,
    epilogue: &Epilogue,
) -> Result<(), Error> {
    let w = weights;
    let packed_for = (w.kernel, w.stride, w.dilation, w.groups, w.cin * w.groups, w.cout * w.groups);
    if packed_for != (shape.kernel, shape.stride, shape.dilation, shape.groups, shape.cin, shape.cout) {
        return Err(Error::Shape { what: "the weights are packed for another convolution" });
    }
    shape.window().check()?;
    let what = "the sizes leave the address space";
    let count = product(what, &[shape.batch, pixels(shape.output)?])?;
    holds("input", x.len(), product(what, &[shape.batch, pixels(shape.input)?])?, shape.cin, x_stride)?;
    holds("output", y.len(), count, shape.cout, y_stride)?;
    let finish = epilogue.finish(1.0, count, shape.cout)?;
    if count == 0 || shape.cout == 0 {
        return Ok(());
    }
    if let Some(d) = &w.depthwise {
        same_length("weights", product(what, &[product(what, &shape.kernel)?, shape.cout])?, d.len())?;
        let (x, y) = (x.as_ptr(), y.as_mut_ptr());
        let job = depthwise::Job {
            shape,
            x,
            x_step: x_stride,
            w: d.as_ptr(),
            y,
            y_step: y_stride,
            finish: &finish,
        };
        // SAFETY: the extents of input, output, weights and epilogue were checked against the shape.
        unsafe { depthwise::run(w.tier, pool, &job) };
        return Ok(());
    }
    let compact = y_stride == shape.cout && epilogue.residual.is_none_or(|r| r.row_stride == shape.cout);
    if let (true, Some(wide), Some(folded)) = (compact, &w.wide, shape.side_by_side()) {
        return side_by_side(pool, shape, &folded, x, x_stride, wide, y, epilogue);
    }
    let phases = [0, 1, 2].map(|i| shape.stride[i].min(shape.output[i]));
    for phase in 0..phases.iter().product() {
        let first = [phase / (phases[1] * phases[2]), phase / phases[2] % phases[1], phase % phases[2]];
        let residue = [0, 1, 2].map(|i| (first[i] + shape.pad_begin[i]) % shape.stride[i]);
        let (packed, elements) = w.phase(residue);
        for (g, b) in packed.iter().enumerate() {
            let rows = PhaseRows {
                shape,
                first,
                count: [0, 1, 2].map(|i| (shape.output[i] - first[i]).div_ceil(shape.stride[i])),
                elements,
                x: x.as_ptr().wrapping_add(g * w.cin),
                step: x_stride,
                depth: if b.k() == 0 { 0 } else { w.cin },
            };
            let job = Job {
                tier: b.tier(),
                count: shape.batch * rows.count.iter().product::<usize>(),
                taps: rows.taps().max(1),
                depth: rows.depth,
                skips: false,
                row_bytes: x_stride.saturating_mul(size_of::<f32>()),
                rows: &rows,
                b: b.view(),
                c: y.as_mut_ptr().wrapping_add(g * w.cout),
                c_step: y_stride,
                finish: &finish.starting_at_column(g * w.cout),
                integers: None,
                quantized: None,
            };
            // SAFETY: the extents of input, output, weights and epilogue were checked against the shape; phases
            // have output pixels of their own.
            unsafe { indirect::run(pool, &job) };
        }
    }
    Ok(())
}

/// Operands for each column become operands for each column of W's window.
fn side_by_side(
    pool: &dyn Pool,
    shape: &ConvTransposeShape,
    folded: &ConvTransposeShape,
    x: &[f32],
    x_stride: usize,
    weights: &PackedConvTranspose,
    y: &mut [f32],
    e: &Epilogue,
) -> Result<(), Error> {
    let columns = shape.kernel[2];
    let bias = e.bias.map(|b| b.repeat(columns));
    let affine = e.affine.map(|a| (a.scale.repeat(columns), a.shift.repeat(columns)));
    let epilogue = Epilogue {
        bias: bias.as_deref(),
        residual: e.residual.map(|r| Residual { row_stride: folded.cout, ..r }),
        act: e.act,
        affine: affine.as_ref().map(|(scale, shift)| Affine { scale, shift }),
        grid: e.grid,
    };
    conv_transpose_f32(pool, folded, x, x_stride, weights, y, folded.cout, &epilogue)
}

/// The output pixels of one phase as lists of pointers.
struct PhaseRows<'a> {
    shape: &'a ConvTransposeShape,
    /// The first output position on each axis, and how many there are, a stride apart.
    first: [usize; 3],
    count: [usize; 3],
    /// The window's elements they meet.
    elements: [&'a [usize]; 3],
    x: *const f32,
    step: usize,
    depth: usize,
}

// SAFETY: points into a shared slice that outlives the call; only read.
unsafe impl Sync for PhaseRows<'_> {}

impl PhaseRows<'_> {
    fn taps(&self) -> usize {
        self.elements.iter().map(|e| e.len()).product()
    }

    /// What to add to the index of an output position of the phase to have the input position under element `k`.
    fn shift(&self, axis: usize, k: usize) -> isize {
        let s = self.shape;
        let at = (self.first[axis] + s.pad_begin[axis]) as isize - (k * s.dilation[axis]) as isize;
        at.div_euclid(s.stride[axis] as isize)
    }

    fn source(&self, axis: usize, index: usize, shift: isize) -> Option<usize> {
        let at = usize::try_from(index as isize + shift).ok()?;
        (at < self.shape.input[axis]).then_some(at)
    }
}

impl Rows for PhaseRows<'_> {
    fn spare_len(&self, _: usize) -> usize {
        self.depth
    }

    fn fill(&self, first: usize, count: usize, to: Table) {
        to.spare.fill(0.0);
        let zeros = to.spare.as_ptr();
        let (s, [nd, nh, nw]) = (self.shape, self.count);
        let mut i = 0;
        while i < count {
            let (line, column) = ((first + i) / nw, (first + i) % nw);
            let (image, d, h) = (line / (nd * nh), line / nh % nd, line % nh);
            let run = (nw - column).min(count - i);
            if self.taps() == 0 {
                to.pointers[i..i + run].fill(zeros);
            }
            let mut tap = 0;
            for &kd in self.elements[0] {
                for &kh in self.elements[1] {
                    let source = |axis, index, k| self.source(axis, index, self.shift(axis, k));
                    let line = match (source(0, d, kd), source(1, h, kh)) {
                        (Some(d), Some(h)) => Some(((image * s.input[0] + d) * s.input[1] + h) * s.input[2]),
                        _ => None,
                    };
                    for &kw in self.elements[2] {
                        let shift = self.shift(2, kw);
                        for j in 0..run {
                            let source = self.source(2, column + j, shift);
                            to.pointers[tap * to.step + i + j] = match (line, source) {
                                (Some(line), Some(w)) => {
                                    self.x.wrapping_add((line + w).wrapping_mul(self.step))
                                }
                                _ => zeros,
                            };
                        }
                        tap += 1;
                    }
                }
            }
            let at = [0, 1].map(|axis| self.first[axis] + [d, h][axis] * s.stride[axis]);
            let line = ((image * s.output[0] + at[0]) * s.output[1] + at[1]) * s.output[2];
            for j in 0..run {
                to.out[i + j] = line + self.first[2] + (column + j) * s.stride[2];
            }
            i += run;
        }
    }
}

#[cfg(test)]
mod tests;
