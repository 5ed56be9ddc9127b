//! Products of 8-bit matrices: `act((x − zx)·(w − zw) · scale + bias + residual)`, stored as float32, 32-bit sums or 8-bit
//! integers again. Sums are exact, so every tier and any number of threads gives the same bits.

use crate::epilogue::{Activation, Epilogue, Finish};
use crate::error::{Error, product, same_length};
use crate::indirect::{self, Job, NARROW, Rows};
use crate::integers::{Integers, Store};
use crate::matrix_rows::MatrixRows;
use crate::pack::PackedB;
use crate::pack_i8::{PackedI8, padded};
use crate::parallel::Pool;
use crate::quantizer::ByColumn;
use crate::scratch;

/// 8-bit activations.
#[derive(Clone, Copy, Debug)]
pub struct Activations<'a> {
    /// The bytes of `i8` or `u8` elements.
    pub data: &'a [u8],
    pub signed: bool,
    pub zero: i32,
    /// One for each channel in place of `zero`, for convolutions whose channels do not mix; else empty.
    pub zeros: &'a [i32],
    pub scale: f32,
}

/// Where results go.
#[derive(Debug)]
pub enum Results<'a> {
    /// Values in float32.
    F32(&'a mut [f32]),
    /// The integer sums; the scales and the epilogue are not used.
    Sums(&'a mut [i32]),
    /// `saturate(round_half_even(value / scale) + zero)` as `i8` or `u8`; one scale, or one for each column, which an
    /// epilogue of a bias and an activation with the same bounds everywhere allows. Of such an epilogue
    /// `round_half_even(sum · (factor / scale) + bias / scale)` is taken, where `sum · factor` is the value without bias;
    /// of others without a residual `round_half_even(act(value) · (a / scale) + b / scale)`, where `a` and `b`, factor and
    /// addend of the epilogue, are the same for all columns. Behind an activation that registers do not hold, and where channels
    /// mix behind any, `value · (1 / scale)` is rounded, by any scales. `zeros` has a zero point for each column in place of
    /// `zero`, where channels mix; else it is empty.
    Bytes { data: &'a mut [u8], signed: bool, scale: &'a [f32], zero: i32, zeros: &'a [i32] },
}

impl Epilogue<'_> {
    /// Without an activation that storing does as well.
    pub(crate) fn stored_as(&self, store: Store) -> Self {
        let last = self.residual.is_none_or(|r| !r.after_activation) && self.affine.is_none();
        Epilogue { act: if last { store.remains(self.act) } else { self.act }, ..*self }
    }
}

impl Finish {
    /// Refuses an activation that works on stored floats where there are none.
    pub(crate) fn stores(&self, y: &Results, through_floats: bool) -> Result<(), Error> {
        let floats = matches!(y, Results::F32(_)) || through_floats && matches!(y, Results::Bytes { .. });
        if self.is_late() && !floats || self.grid.is_some() && !matches!(y, Results::F32(_)) {
            return Err(Error::Shape { what: "this epilogue needs results in float32" });
        }
        Ok(())
    }
}

impl Results<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Results::F32(y) => y.len(),
            Results::Sums(y) => y.len(),
            Results::Bytes { data, .. } => data.len(),
        }
    }

    pub(crate) fn start(&mut self) -> *mut f32 {
        match self {
            Results::F32(y) => y.as_mut_ptr(),
            Results::Sums(y) => y.as_mut_ptr().cast(),
            Results::Bytes { data, .. } => data.as_mut_ptr().cast(),
        }
    }

    pub(crate) fn store(&self) -> Store {
        match *self {
            Results::F32(_) => Store::Float,
            Results::Sums(_) => Store::Sums,
            Results::Bytes { signed, scale, zero, .. } => {
                let (low, high) = if signed { (-128, 127) } else { (0, 255) };
                Store::Bytes { scale: scale.first().copied().unwrap_or(1.0), zero, low, high }
            }
        }
    }

    /// The scales of bytes, checked against the columns.
    pub(crate) fn scales(&self, cols: usize) -> Result<&[f32], Error> {
        match *self {
            Results::Bytes { scale, zeros, .. } if scale.len() != 1 || !zeros.is_empty() => {
                if !zeros.is_empty() {
                    same_length("zero points of the result", cols, zeros.len())?;
                }
                same_length("scales of the result", cols, scale.len()).map(|()| scale)
            }
            Results::Bytes { scale, .. } => Ok(scale),
            _ => Ok(&[]),
        }
    }

    /// Zero points of the columns, where they differ.
    pub(crate) fn zeros(&self) -> &[i32] {
        match *self {
            Results::Bytes { zeros, .. } => zeros,
            _ => &[],
        }
    }
}

/// Whether results may be stored as bytes by these scales, one for each column, after an activation and no residual.
pub fn quantizes_by_column(act: Activation, scales: &[f32], zero: i32, signed: bool) -> bool {
    let (low, high) = if signed { (-128, 127) } else { (0, 255) };
    let store = Store::Bytes { scale: 1.0, zero, low, high };
    store.requantization(scales, &Epilogue::activation(act), &[], 0).is_some()
}

/// Where channels do not mix, several scales are for requantization only.
pub(crate) fn one_scale(by: &[f32], requantizes: bool) -> Result<(), Error> {
    match by.len() > 1 && !requantizes {
        true => Err(Error::Shape { what: "an epilogue with results by several scales" }),
        false => Ok(()),
    }
}

/// Activations as unsigned bytes, readable up to three bytes past the end of any tap.
pub(crate) struct Unsigned {
    pub data: *const u8,
    pub zero: i32,
}

/// Calls `f` with the activations as unsigned bytes: as they are, or as a copy in scratch memory.
pub(crate) fn unsigned<R>(x: &Activations, whole_cells: bool, f: impl FnOnce(Unsigned) -> R) -> R {
    if !x.signed && whole_cells {
        return f(Unsigned { data: x.data.as_ptr(), zero: x.zero });
    }
    scratch::with(x.data.len().div_ceil(4) + 1, |copy| {
        let copy: &mut [u8] = bytemuck::cast_slice_mut(copy);
        let flip = if x.signed { 0x80 } else { 0 };
        for (to, from) in copy.iter_mut().zip(x.data) {
            *to = from ^ flip;
        }
        copy[x.data.len()..].fill(0);
        f(Unsigned { data: copy.as_ptr(), zero: x.zero + i32::from(flip) })
    })
}

/// The rows of each group of a contraction, which are those of the first group moved by `shift` bytes for each.
pub(crate) struct GroupRows<'a> {
    pub of: &'a dyn Fn(usize) -> Box<dyn Rows + 'a>,
    pub shift: usize,
}

/// Runs a contraction of `count` rows with weights of one or more groups.
///
/// # Safety
/// The rows of group `g` give pointers that are valid for the bytes the weights' taps have, up to whole cells, and number
/// the result's rows `0..count`, each once; so do those of the first group, moved.
pub(crate) unsafe fn contract(
    pool: &dyn Pool,
    rows: &GroupRows,
    count: usize,
    x: (i32, f32),
    w: &PackedI8,
    y: &mut Results,
    epilogue: &Epilogue,
) -> Result<(), Error> {
    same_length("result", product("the result leaves the address space", &[count, w.cols])?, y.len())?;
    let by = y.scales(w.cols)?;
    let several = by.len() > 1 || !y.zeros().is_empty();
    let stored = if several { *epilogue } else { epilogue.stored_as(y.store()) };
    let finish = stored.finish(1.0, count, w.cols)?;
    finish.stores(y, true)?;
    let cols = w.cols / w.groups.len().max(1);
    let offset: Vec<i32> = w.sums.iter().map(|s| s.wrapping_mul(x.0)).collect();
    let mut scale: Vec<f32> = w.scale.iter().map(|s| s * x.1).collect();
    let zeros = padded(vec![0i32; if w.zero.is_some() { 1 } else { 0 }]);
    let mut store = y.store();
    let mut addend = Vec::new();
    let requantization = match y.zeros() {
        [] => store.requantization(by, epilogue, &scale[..w.cols], w.taps * w.tap_bytes),
        _ => None,
    };
    let apart = several && requantization.is_none();
    let mut late = None;
    if let (Store::Bytes { zero, low, high, .. }, true) = (store, finish.is_late() || apart) {
        let by = if by.len() == 1 { vec![by[0]; w.cols] } else { by.to_vec() };
        let zeros = if y.zeros().is_empty() { vec![zero; w.cols] } else { y.zeros().to_vec() };
        (late, store) = (Some((by, zeros, low, high)), Store::Float);
    }
    if let Some(r) = requantization.filter(|_| late.is_none()) {
        (scale, addend, store) = (padded(r.scale), padded(r.addend), Store::Codes(r.codes));
    }
    let bytes = matches!(y, Results::Bytes { .. });
    let start = y.start();
    let first_of = |g: usize| match bytes {
        true => start.cast::<u8>().wrapping_add(g * cols).cast(),
        false => start.wrapping_add(g * cols),
    };
    let mut all: Vec<Group> = Vec::with_capacity(w.groups.len());
    for g in 0..w.groups.len() {
        let mut sums = vec![0i32; if w.zero.is_some() { count } else { 0 }];
        if let Some((_, ones)) = &w.zero {
            let integers = Integers {
                offset: zeros.as_ptr(),
                zero: std::ptr::null(),
                row_sums: std::ptr::null(),
                scale: std::ptr::null(),
                addend: std::ptr::null(),
                store: Store::Sums,
            };
            let finish = Epilogue::default().finish(1.0, count, 1)?;
            let plain = Group { rows: (rows.of)(g), integers, finish, quantized: None, _sums: Vec::new() };
            // SAFETY: the caller's contract for the rows; there is a sum for each.
            unsafe { indirect::run(pool, &plain.job(w, ones, count, (sums.as_mut_ptr().cast(), 1))) };
        }
        let integers = Integers {
            offset: offset.as_ptr(),
            zero: w.zero.as_ref().map_or(std::ptr::null(), |z| z.0.as_ptr()),
            row_sums: sums.as_ptr(),
            scale: scale.as_ptr(),
            addend: addend.as_ptr(),
            store,
        };
        let columns = g * cols..(g + 1) * cols;
        all.push(Group {
            rows: (rows.of)(g),
            integers: integers.starting_at_column(columns.start),
            finish: finish.starting_at_column(columns.start),
            quantized: late.as_ref().map(|&(ref by, ref zeros, low, high)| {
                ByColumn::new(by[columns.clone()].to_vec(), zeros[columns].to_vec(), low, high)
            }),
            _sums: sums,
        });
    }
    let jobs: Vec<Job> = all
        .iter()
        .zip(&w.groups)
        .enumerate()
        .map(|(g, (group, b))| group.job(w, b, count, (first_of(g), w.cols)))
        .collect();
    // SAFETY: the caller's contract for the rows; the result's length was checked, corrections and scales have whole vectors
    // from every column on.
    unsafe {
        if jobs.len() > 1 && cols <= NARROW {
            indirect::run_groups(pool, &jobs, rows.shift);
        } else {
            jobs.iter().for_each(|job| indirect::run(pool, job));
        }
    }
    Ok(())
}

/// One group of a contraction.
struct Group<'a> {
    rows: Box<dyn Rows + 'a>,
    integers: Integers,
    finish: Finish,
    quantized: Option<ByColumn>,
    /// What `integers` points to.
    _sums: Vec<i32>,
}

impl Group<'_> {
    fn job<'a>(
        &'a self,
        w: &PackedI8,
        b: &'a PackedB,
        count: usize,
        (c, c_step): (*mut f32, usize),
    ) -> Job<'a> {
        Job {
            tier: b.tier(),
            rows: self.rows.as_ref(),
            count,
            taps: w.taps,
            depth: b.k() / w.taps.max(1),
            skips: false,
            row_bytes: w.tap_bytes.saturating_mul(w.taps.min(4)),
            b: b.view(),
            c,
            c_step,
            finish: &self.finish,
            integers: Some(&self.integers),
            quantized: self.quantized.as_ref(),
        }
    }
}

/// The product of `x`, `m` rows of as many elements as a column of the weights has, with packed weights; results are
/// `m` rows of `w.n()`.
pub fn gemm_i8(
    pool: &dyn Pool,
    m: usize,
    x: &Activations,
    w: &PackedI8,
    y: &mut Results,
    epilogue: &Epilogue,
) -> Result<(), Error> {
    let k = w.tap_bytes;
    if w.taps != 1 || w.groups.len() != 1 {
        return Err(Error::Shape { what: "the weights are packed for a convolution" });
    }
    same_length("zero points of the activations", 0, x.zeros.len())?;
    same_length("activations", product("A leaves the address space", &[m, k])?, x.data.len())?;
    unsigned(x, k.is_multiple_of(4), |u| {
        let rows = |_| -> Box<dyn Rows> { Box::new(MatrixRows { a: u.data, step: k }) };
        let rows = GroupRows { of: &rows, shift: 0 };
        // SAFETY: the extents were checked; `unsigned` leaves room behind the last row.
        unsafe { contract(pool, &rows, m, (u.zero, x.scale), w, y, epilogue) }
    })
}

#[cfg(test)]
mod tests;
