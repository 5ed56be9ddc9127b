//! The vectors a layer's weight matrix is multiplied with, taken from its input tensor.

use ir::{Attrs, DType, Error, Result, Tensor};
use ndarray::Array2;
use std::borrow::Cow;

/// At most this many vectors are taken from one input tensor, evenly spread.
pub const VECTORS: usize = 256;
/// As [`VECTORS`] where every group of a convolution takes as many: their few columns need no more.
const VECTORS_OF_GROUPS: usize = 96;

/// How input vectors lie in the tensor.
#[derive(Debug, Clone, PartialEq)]
pub enum Extract {
    /// The last axis.
    Rows,
    /// The channel axis of N×C×spatial.
    Channels,
    /// Sliding windows of N×C×spatial, per group of channels.
    Windows(Windows),
}

/// Geometry of a convolution.
#[derive(Debug, Clone, PartialEq)]
pub struct Windows {
    pub kernel: Vec<usize>,
    pub strides: Vec<usize>,
    pub dilations: Vec<usize>,
    /// Before each axis, then after each axis.
    pub pads: Vec<usize>,
    /// Padding follows from the input's size: `Some(true)` puts the odd element last (SAME_UPPER).
    pub same: Option<bool>,
    pub groups: usize,
}

impl Windows {
    /// From the attributes of a Conv node with spatial kernel shape `kernel`.
    pub fn of(attrs: &Attrs, kernel: &[usize]) -> Result<Windows> {
        let n = kernel.len();
        let list = |name: &str, len: usize, default: usize| -> Result<Vec<usize>> {
            let v = match attrs.ints(name)? {
                Some(v) => v.iter().map(|&x| usize::try_from(x).ok()).collect(),
                None => Some(vec![default; len]),
            };
            v.filter(|v| v.len() == len)
                .ok_or_else(|| Error::model(format!("attribute '{name}' must hold {len} sizes")))
        };
        let same = match attrs.str_or("auto_pad", "NOTSET")? {
            "SAME_UPPER" => Some(true),
            "SAME_LOWER" => Some(false),
            _ => None,
        };
        let groups = usize::try_from(attrs.int_or("group", 1)?).unwrap_or(1).max(1);
        let (strides, dilations) = (list("strides", n, 1)?, list("dilations", n, 1)?);
        if strides.contains(&0) || dilations.contains(&0) || kernel.contains(&0) {
            return Err(Error::model("kernel, strides and dilations must be positive"));
        }
        Ok(Windows {
            kernel: kernel.to_vec(),
            strides,
            dilations,
            pads: list("pads", 2 * n, 0)?,
            same,
            groups,
        })
    }

    /// True for a kernel of one element without stride or padding, which is a matrix product.
    pub fn is_pointwise(&self) -> bool {
        self.kernel.iter().chain(&self.strides).all(|&k| k == 1) && self.pads.iter().all(|&p| p == 0)
    }

    /// (padding before, number of outputs) of each axis for this input size.
    fn outputs(&self, spatial: &[usize]) -> Vec<(usize, usize)> {
        let n = self.kernel.len();
        (0..n)
            .map(|a| {
                let reach = (self.kernel[a] - 1).saturating_mul(self.dilations[a]).saturating_add(1);
                let (before, total) = match self.same {
                    None => (self.pads[a], self.pads[a].saturating_add(self.pads[n + a])),
                    Some(upper) => {
                        let out = spatial[a].div_ceil(self.strides[a]);
                        let need =
                            out.saturating_sub(1).saturating_mul(self.strides[a]).saturating_add(reach);
                        let pad = need.saturating_sub(spatial[a]);
                        (if upper { pad / 2 } else { pad - pad / 2 }, pad)
                    }
                };
                let room = spatial[a].saturating_add(total);
                (before, if room < reach { 0 } else { (room - reach) / self.strides[a] + 1 })
            })
            .collect()
    }
}

impl Extract {
    /// One matrix (vectors × width) per group; `phase` shifts which vectors are taken when there are too many.
    pub fn vectors(&self, input: &Tensor, width: usize, phase: usize) -> Result<Vec<Array2<f32>>> {
        let data = &floats(input)?[..];
        let shape = input.shape();
        match self {
            Extract::Rows => {
                let k = shape.last().copied().unwrap_or(1);
                check(k, width)?;
                let rows = picks(data.len().checked_div(k).unwrap_or(0), VECTORS, phase);
                Ok(vec![Array2::from_shape_fn((rows.len(), k), |(i, j)| data[rows[i] * k + j])])
            }
            Extract::Channels => {
                let [n, c, plane] = planes(shape)?;
                check(c, width)?;
                let at: Vec<usize> = picks(n * plane, VECTORS, phase)
                    .into_iter()
                    .map(|p| p / plane * c * plane + p % plane)
                    .collect();
                let mut vectors = Array2::zeros((at.len(), c));
                // Channel by channel: neighbours of a plane lie together.
                for (j, mut column) in vectors.columns_mut().into_iter().enumerate() {
                    column.iter_mut().zip(&at).for_each(|(v, p)| *v = data[p + j * plane]);
                }
                Ok(vec![vectors])
            }
            Extract::Windows(w) => windows(w, data, shape, width, phase),
        }
    }
}

/// The values of a tensor, read where they lie if they are floats.
pub(crate) fn floats(t: &Tensor) -> Result<Cow<'_, [f32]>> {
    if t.dtype() == DType::F32 { t.data::<f32>() } else { t.to_f32s().map(Cow::Owned) }
}

fn check(found: usize, width: usize) -> Result<()> {
    if found != width {
        return Err(Error::model(format!("the weight takes vectors of {width}, the input has {found}")));
    }
    Ok(())
}

fn planes(shape: &[usize]) -> Result<[usize; 3]> {
    match shape {
        [n, c, rest @ ..] => Ok([*n, *c, rest.iter().product()]),
        _ => Err(Error::model(format!("shape {shape:?} has no channel axis"))),
    }
}

/// Evenly spread positions among `total`.
fn picks(total: usize, most: usize, phase: usize) -> Vec<usize> {
    if total <= most {
        return (0..total).collect();
    }
    // A stride coprime to powers of two walks over rows and columns of maps alike.
    let step = total / most;
    let shift = phase.wrapping_mul(7919) % step.max(1);
    (0..most).map(|i| (i * step + (shift + i * 5) % step).min(total - 1)).collect()
}

fn windows(
    w: &Windows,
    data: &[f32],
    shape: &[usize],
    width: usize,
    phase: usize,
) -> Result<Vec<Array2<f32>>> {
    let [n, c, plane] = planes(shape)?;
    let spatial = &shape[2..];
    if spatial.len() != w.kernel.len() || c % w.groups != 0 {
        return Err(Error::model(format!("input {shape:?} does not fit kernel {:?}", w.kernel)));
    }
    let (per, taps) = (c / w.groups, w.kernel.iter().product::<usize>());
    check(per * taps, width)?;
    let outs = w.outputs(spatial);
    let positions: usize = outs.iter().map(|o| o.1).product();
    let most = if w.groups > 1 { VECTORS_OF_GROUPS } else { VECTORS };
    let at = picks(n * positions, most, phase);
    let offsets: Vec<Vec<usize>> = (0..taps).map(|t| unravel(t, w.kernel.iter().copied())).collect();
    // Where each tap of each window reads the first channel; nowhere in the padding.
    let mut sources = Vec::with_capacity(at.len() * taps);
    for p in &at {
        let image = p / positions.max(1) * c * plane;
        let origin = unravel(p % positions.max(1), outs.iter().map(|o| o.1));
        sources.extend(
            offsets.iter().map(|t| locate(w, &outs, spatial, &origin, t).map_or(NOWHERE, |s| image + s)),
        );
    }
    let group = |g: usize| {
        let mut vectors = Array2::<f32>::zeros((at.len(), width));
        for ch in 0..per {
            let first = (g * per + ch) * plane;
            for (mut row, sources) in vectors.rows_mut().into_iter().zip(sources.chunks(taps)) {
                let taps = row.iter_mut().skip(ch * taps).zip(sources).filter(|(_, s)| **s != NOWHERE);
                taps.for_each(|(v, s)| *v = data[first + s]);
            }
        }
        vectors
    };
    Ok((0..w.groups).map(group).collect())
}

/// No place: padding.
const NOWHERE: usize = usize::MAX;

/// Flat position in the plane of one kernel tap, `None` in the padding.
fn locate(
    w: &Windows,
    outs: &[(usize, usize)],
    spatial: &[usize],
    origin: &[usize],
    offset: &[usize],
) -> Option<usize> {
    let mut flat = 0;
    for a in 0..spatial.len() {
        let p = (origin[a] * w.strides[a] + offset[a] * w.dilations[a]).checked_sub(outs[a].0)?;
        if p >= spatial[a] {
            return None;
        }
        flat = flat * spatial[a] + p;
    }
    Some(flat)
}

fn unravel(mut i: usize, dims: impl DoubleEndedIterator<Item = usize>) -> Vec<usize> {
    let mut v: Vec<usize> = dims
        .rev()
        .map(|d| {
            let r = i % d.max(1);
            i /= d.max(1);
            r
        })
        .collect();
    v.reverse();
    v
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::matrix;

    fn direct(x: &[f32], k: &[f32], h: usize, w: usize, pad: isize, stride: usize) -> Vec<f32> {
        let out = |n: usize| (n as isize + 2 * pad - 3) as usize / stride + 1;
        let mut y = Vec::new();
        for i in 0..out(h) {
            for j in 0..out(w) {
                let mut s = 0.0;
                for c in 0..2 {
                    for a in 0..3isize {
                        for b in 0..3isize {
                            let (p, q) = ((i * stride) as isize + a - pad, (j * stride) as isize + b - pad);
                            if p >= 0 && q >= 0 && p < h as isize && q < w as isize {
                                s += x[c * h * w + p as usize * w + q as usize]
                                    * k[c * 9 + (a * 3 + b) as usize];
                            }
                        }
                    }
                }
                y.push(s);
            }
        }
        y
    }

    #[test]
    fn windows_times_kernel_is_the_convolution() {
        let (x, k) = (matrix(1, 60, 1), matrix(1, 18, 2));
        let t = Tensor::new(&[1, 2, 6, 5], x.iter().copied().collect()).unwrap();
        for (pad, stride) in [(0, 1), (1, 1), (1, 2)] {
            let attrs = Attrs::new().with("pads", vec![pad; 4]).with("strides", vec![stride; 2]);
            let e = Extract::Windows(Windows::of(&attrs, &[3, 3]).unwrap());
            let v = e.vectors(&t, 18, 0).unwrap();
            let y = v[0].dot(&k.t());
            let want =
                direct(x.as_slice().unwrap(), k.as_slice().unwrap(), 6, 5, pad as isize, stride as usize);
            assert_eq!(y.len(), want.len());
            assert!(y.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-4));
        }
    }

    #[test]
    fn depthwise_groups_see_their_own_channel() {
        let t = Tensor::new(&[1, 2, 2, 2], (0..8).map(|i| i as f32).collect()).unwrap();
        let w = Windows::of(&Attrs::new().with("group", 2i64), &[1, 1]).unwrap();
        let v = Extract::Windows(w).vectors(&t, 1, 0).unwrap();
        assert_eq!(v[1].iter().copied().collect::<Vec<_>>(), [4.0, 5.0, 6.0, 7.0]);
    }

    #[test]
    fn large_maps_are_sampled_within_bounds() {
        let t = Tensor::new(&[1, 1, 100, 100], (0..10_000).map(|i| i as f32).collect()).unwrap();
        for phase in 0..3 {
            let v = Extract::Channels.vectors(&t, 1, phase).unwrap();
            assert_eq!(v[0].nrows(), VECTORS);
        }
    }

    #[test]
    fn a_weight_that_does_not_fit_its_input_is_an_error() {
        let t = Tensor::new(&[2, 3], vec![0.0f32; 6]).unwrap();
        assert!(Extract::Rows.vectors(&t, 4, 0).is_err());
        assert!(Extract::Channels.vectors(&Tensor::scalar(1.0f32), 1, 0).is_err());
    }
}
