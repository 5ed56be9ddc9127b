//! The packed right operand of an integer contraction: cells of four weights in the panels of [`crate::pack`].

use crate::dispatch::Tier;
use crate::error::{Error, product, same_length};
use crate::pack::{PackedB, Strides};
use crate::simd::LANES;

/// Products of one sum above which 32 bits may not hold it.
const MOST_PRODUCTS: usize = 1 << 16;

/// 8-bit weights as they are given.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a> {
    /// The bytes of `i8` or `u8` elements.
    pub data: &'a [u8],
    pub signed: bool,
    /// One zero point for all columns, one for each, or none for 0.
    pub zero: &'a [i32],
    /// One scale for all columns, or one for each.
    pub scale: &'a [f32],
}

/// Weights packed once, for one tier. An operand of several groups has one after the other.
#[derive(Clone)]
pub struct PackedI8 {
    /// One operand of cells for each group.
    pub(crate) groups: Vec<PackedB>,
    /// Pointers of a row, and the bytes each leads to.
    pub(crate) taps: usize,
    pub(crate) tap_bytes: usize,
    /// All columns.
    pub(crate) cols: usize,
    /// `Σ (w − zero)` of each column, padded to vectors.
    pub(crate) sums: Vec<i32>,
    /// Zero points, where one is not 0, padded to vectors; and an operand of ones over the products of a group.
    pub(crate) zero: Option<(Vec<i32>, PackedB)>,
    /// Padded to vectors.
    pub(crate) scale: Vec<f32>,
}

crate::fields! { PackedI8 { groups, taps, tap_bytes, cols, sums, zero, scale } }

/// What the packed form is made of: columns `0..groups · cols`, each the sum of `taps · tap_bytes` products.
#[derive(Clone, Copy)]
pub(crate) struct Form {
    pub groups: usize,
    pub cols: usize,
    pub taps: usize,
    pub tap_bytes: usize,
}

impl PackedI8 {
    /// Packs a matrix of `k × n` elements at `strides`.
    pub fn from_strided(
        tier: Tier,
        w: &Weights,
        strides: Strides,
        k: usize,
        n: usize,
    ) -> Result<PackedI8, Error> {
        strides.check("weights", w.data.len(), k, n)?;
        let form = Form { groups: 1, cols: n, taps: 1, tap_bytes: k };
        PackedI8::new(tier, w, form, |product| product * strides.row, strides.col)
    }

    /// Packs the elements at `at(product) + column · step`, which must lie in the weights.
    pub(crate) fn new(
        tier: Tier,
        w: &Weights,
        form: Form,
        at: impl Fn(usize) -> usize,
        step: usize,
    ) -> Result<PackedI8, Error> {
        let Form { groups, cols, taps, tap_bytes } = form;
        let products = product("the weights leave the address space", &[taps, tap_bytes])?;
        if products > MOST_PRODUCTS {
            return Err(Error::Shape { what: "a sum has more products than 32 bits are sure to hold" });
        }
        let all = product("the weights leave the address space", &[groups, cols])?;
        if step == 0 && products > 0 && all > 1 {
            return Err(Error::Shape { what: "columns of the weights overlap" });
        }
        let step = step.max(1);
        let flip = if w.signed { 0u8 } else { 0x80 };
        let shift = if w.signed { 0 } else { -128 };
        let zero = spread("weight zero points", w.zero, all, 0)?;
        let zero: Vec<i32> = zero.into_iter().map(|z| z.wrapping_add(shift)).collect();
        let cells = tap_bytes.div_ceil(4);
        let rows = product("the weights leave the address space", &[taps, cells])?;
        let mut sums = vec![0i32; all];
        let mut operand = |g: usize| {
            PackedB::from_rows(tier, rows, cols, |row, col, to: &mut [[i8; 4]]| {
                let (tap, first) = (row / cells, row % cells * 4);
                let products = tap * tap_bytes + first..tap * tap_bytes + tap_bytes.min(first + 4);
                let from = |p: usize| &w.data[at(p) + (g * cols + col) * step..];
                match products.len() {
                    4 => whole_cells(to, std::array::from_fn(|i| from(products.start + i)), step, flip),
                    _ => products.enumerate().for_each(|(i, p)| {
                        to.iter_mut()
                            .zip(from(p).iter().step_by(step))
                            .for_each(|(to, x)| to[i] = (x ^ flip) as i8);
                    }),
                }
                for (to, sum) in to.iter().zip(&mut sums[g * cols + col..]) {
                    *sum = to.iter().fold(*sum, |sum, &x| sum.wrapping_add(i32::from(x)));
                }
            })
        };
        let groups = (0..groups).map(&mut operand).collect::<Result<_, _>>()?;
        for (sum, z) in sums.iter_mut().zip(&zero) {
            *sum = sum.wrapping_sub(z.wrapping_mul(products as i32));
        }
        let ones = || {
            PackedB::from_rows(tier, rows, 1, |row, _, to: &mut [[i8; 4]]| {
                let live = 4.min(tap_bytes - row % cells * 4);
                to.iter_mut().for_each(|to| to[..live].fill(1));
            })
        };
        Ok(PackedI8 {
            groups,
            taps,
            tap_bytes,
            cols: all,
            sums: padded(sums),
            zero: if zero.iter().all(|&z| z == 0) { None } else { Some((padded(zero), ones()?)) },
            scale: padded(spread("weight scales", w.scale, all, 1.0)?),
        })
    }

    /// Columns of the result.
    pub fn n(&self) -> usize {
        self.cols
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.groups.iter().map(PackedB::bytes).sum::<usize>() + self.cols * 8
    }
}

/// Cells of the bytes that four products have for each column, columns `step` apart; all end where the weights do.
fn whole_cells(to: &mut [[i8; 4]], from: [&[u8]; 4], step: usize, flip: u8) {
    let [a, b, c, d] = from;
    let cell = |x: [u8; 4]| x.map(|x| (x ^ flip) as i8);
    if step == 1 {
        let n = to.len();
        let (a, b, c, d) = (&a[..n], &b[..n], &c[..n], &d[..n]);
        for (i, to) in to.iter_mut().enumerate() {
            *to = cell([a[i], b[i], c[i], d[i]]);
        }
    } else if [b.len() + 1, c.len() + 2, d.len() + 3] == [a.len(); 3] {
        for (to, x) in to.iter_mut().zip(a.chunks(step)) {
            *to = cell([x[0], x[1], x[2], x[3]]);
        }
    } else {
        for (i, to) in to.iter_mut().enumerate() {
            *to = cell([a[i * step], b[i * step], c[i * step], d[i * step]]);
        }
    }
}

/// One value for each of `n` columns.
pub(crate) fn spread<T: Copy>(what: &'static str, x: &[T], n: usize, none: T) -> Result<Vec<T>, Error> {
    match x {
        [] => Ok(vec![none; n]),
        [one] => Ok(vec![*one; n]),
        _ => same_length(what, n, x.len()).map(|()| x.to_vec()),
    }
}

/// Room for whole vectors from any column on.
pub(crate) fn padded<T: Copy + Default>(mut x: Vec<T>) -> Vec<T> {
    x.resize(x.len().next_multiple_of(LANES) + 4 * LANES, T::default());
    x
}
