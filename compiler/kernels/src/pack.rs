//! The packed right operand: panels of up to four vectors of columns, each stored row after row.
//!
//! A panel is what one register tile reads, from the first product to the last, in one stream. Columns past the
//! last are zero. Panels follow each other, so the panel that starts at column `c` starts at element `c·K`.

use crate::dispatch::Tier;
use crate::error::{Error, product, same_length};
use crate::memory::Memory;
use crate::simd::LANES;
use crate::stored::{Bulk, Reader, Stored, Writer};
use crate::tile::Tiles;
use crate::transpose;
use std::sync::Arc;

/// Floats, or cells of the same size, aligned to cache lines: its own, which copies share, or somebody else's.
#[derive(Clone)]
pub(crate) enum Aligned {
    Own(Arc<Memory>),
    Borrowed(Bulk),
}

impl Default for Aligned {
    fn default() -> Aligned {
        Aligned::Own(Arc::new(Memory::default()))
    }
}

/// Bytes of so many floats, up to a whole cache line.
fn whole_lines(len: usize) -> usize {
    len.next_multiple_of(LANES).saturating_mul(size_of::<f32>())
}

impl Aligned {
    /// At least `len` zeros.
    pub(crate) fn zeros(len: usize) -> Aligned {
        Aligned::Own(Arc::new(Memory::beside(whole_lines(len))))
    }

    pub(crate) fn as_ptr(&self) -> *const f32 {
        match self {
            Aligned::Own(memory) => memory.as_ptr().cast(),
            Aligned::Borrowed(b) => b.as_ptr().cast(),
        }
    }

    /// To be written; what is borrowed or shared is copied first.
    pub(crate) fn as_mut_slice(&mut self) -> &mut [f32] {
        if let Aligned::Borrowed(b) = self {
            let mut memory = Memory::beside(b.bytes().len());
            memory.as_mut_slice().copy_from_slice(b.bytes());
            *self = Aligned::Own(Arc::new(memory));
        }
        match self {
            Aligned::Own(memory) => bytemuck::cast_slice_mut(Arc::make_mut(memory).as_mut_slice()),
            Aligned::Borrowed(_) => &mut [],
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.as_bytes().len()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Aligned::Own(memory) => memory.as_slice(),
            Aligned::Borrowed(b) => b.bytes(),
        }
    }

    /// Holds what `zeros` of this length holds.
    pub(crate) fn holds(&self, len: usize) -> bool {
        self.bytes() == whole_lines(len)
    }
}

impl Stored for Aligned {
    fn put<'a>(&'a self, out: &mut Writer<'a>) {
        let bytes = self.as_bytes();
        let at = out.place(bytes) as u64;
        out.stream.extend([at, bytes.len() as u64].map(u64::to_le_bytes).concat());
    }
    fn take(from: &mut Reader) -> Option<Aligned> {
        let (at, len) = <(usize, usize)>::take(from)?;
        let part = from.bulk.part(at, len)?;
        (part.is_aligned() && len.is_multiple_of(size_of::<f32>() * LANES)).then_some(Aligned::Borrowed(part))
    }
}

/// How the columns fall into panels: first those of 4 vectors, then of 3, 2 and 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Panels {
    pub cols: usize,
    /// Panels of 4, 3, 2 and 1 vectors.
    counts: [usize; 4],
}

crate::fields! { Panels { cols, counts } }

/// One panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Panel {
    /// Its first column.
    pub col: usize,
    /// Its columns in vectors.
    pub width: usize,
}

impl Panels {
    /// Every width fills the registers of a tile equally but a single vector, which loads a row operand for each
    /// product, so a remainder of one is shared out over panels of three.
    pub(crate) fn of(tier: Tier, cols: usize) -> Panels {
        let vectors = cols.div_ceil(LANES);
        if Tiles::of(tier).widest() == 1 {
            return Panels { cols, counts: [0, 0, 0, vectors] };
        }
        let (fours, rest) = (vectors / 4, vectors % 4);
        let counts = match (fours, rest) {
            (_, 0) => [fours, 0, 0, 0],
            (_, 3) => [fours, 1, 0, 0],
            (0, 2) => [0, 0, 1, 0],
            (_, 2) => [fours - 1, 2, 0, 0],
            (0, _) => [0, 0, 0, 1],
            (1, _) => [0, 1, 1, 0],
            _ => [fours - 2, 3, 0, 0],
        };
        Panels { cols, counts }
    }

    pub(crate) fn count(&self) -> usize {
        self.counts.iter().sum()
    }

    pub(crate) fn get(&self, mut index: usize) -> Panel {
        let mut col = 0;
        for (count, width) in self.counts.into_iter().zip([4, 3, 2, 1]) {
            if index < count {
                return Panel { col: col + index * width * LANES, width };
            }
            col += count * width * LANES;
            index -= count;
        }
        Panel { col, width: 0 }
    }

    /// Elements of the packed form for `rows` products.
    pub(crate) fn len(&self, rows: usize) -> usize {
        self.cols.div_ceil(LANES) * LANES * rows
    }
}

/// A packed operand by reference.
#[derive(Clone, Copy)]
pub(crate) struct PackedRef {
    pub data: *const f32,
    pub rows: usize,
    pub panels: Panels,
    pub cells: Cells,
}

/// What an element of a packed operand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cells {
    /// A float32, or for [`crate::tile_i8`] four bytes.
    One,
    /// Two bfloat16, multiplied by the CPU's own instruction or as float32.
    Pairs { native: bool },
}

// SAFETY: read-only memory that outlives the kernel call the reference is made for.
unsafe impl Sync for PackedRef {}
// SAFETY: as above.
unsafe impl Send for PackedRef {}

/// Where the elements of an unpacked operand of `rows × cols` are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strides {
    /// Elements between two rows (along K).
    pub row: usize,
    /// Elements between two columns (along N).
    pub col: usize,
}

impl Strides {
    /// `[K, N]`, columns adjacent.
    pub fn kn(n: usize) -> Strides {
        Strides { row: n, col: 1 }
    }

    /// `[N, K]`, rows adjacent: a transposed operand.
    pub fn nk(k: usize) -> Strides {
        Strides { row: 1, col: k }
    }

    /// Checks that a `rows × cols` operand lies inside `len` elements.
    pub(crate) fn check(self, what: &'static str, len: usize, rows: usize, cols: usize) -> Result<(), Error> {
        if rows == 0 || cols == 0 {
            return Ok(());
        }
        let (r, c) = (product(what, &[rows - 1, self.row])?, product(what, &[cols - 1, self.col])?);
        match r.checked_add(c) {
            Some(last) if last < len => Ok(()),
            last => Err(Error::Length {
                what,
                expected: last.unwrap_or(usize::MAX).saturating_add(1),
                found: len,
            }),
        }
    }
}

/// A right operand, packed once, for one tier.
#[derive(Clone)]
pub struct PackedB {
    tier: Tier,
    rows: usize,
    panels: Panels,
    data: Aligned,
}

impl PackedB {
    /// Packs `b` of shape `[k, n]`.
    pub fn from_kn(tier: Tier, b: &[f32], k: usize, n: usize) -> Result<PackedB, Error> {
        same_length("B", product("K·N leaves the address space", &[k, n])?, b.len())?;
        PackedB::from_strided(tier, b, Strides::kn(n), k, n)
    }

    /// Packs `b` of shape `[n, k]`, a transposed operand.
    pub fn from_nk(tier: Tier, b: &[f32], n: usize, k: usize) -> Result<PackedB, Error> {
        same_length("B", product("K·N leaves the address space", &[k, n])?, b.len())?;
        PackedB::from_strided(tier, b, Strides::nk(k), k, n)
    }

    /// Packs an operand of `k × n` elements at `strides`.
    pub fn from_strided(
        tier: Tier,
        b: &[f32],
        strides: Strides,
        k: usize,
        n: usize,
    ) -> Result<PackedB, Error> {
        PackedB::from_unaligned(tier, bytemuck::cast_slice(b), strides, k, n)
    }

    /// As [`PackedB::from_strided`] for elements at any address, as they lie in a file.
    pub fn from_unaligned(
        tier: Tier,
        b: &[[u8; 4]],
        strides: Strides,
        k: usize,
        n: usize,
    ) -> Result<PackedB, Error> {
        strides.check("B", b.len(), k, n)?;
        let tier = tier.usable();
        let mut packed = PackedB { tier, rows: k, panels: Panels::of(tier, n), data: room(k, n)? };
        let to = &mut packed.data.as_mut_slice()[..packed.panels.len(k)];
        if strides.col == 1 {
            copy_rows(to, b, strides.row, k, packed.panels);
        } else {
            transpose_rows(to, b, strides, k, packed.panels);
        }
        Ok(packed)
    }

    /// Packs a transposed operand, `[n, k]`, whose lines lie elsewhere: each vector of columns is that of the lines from
    /// `line(first column)` on.
    pub fn from_lines(
        tier: Tier,
        b: &[[u8; 4]],
        n: usize,
        k: usize,
        line: impl Fn(usize) -> usize,
    ) -> Result<PackedB, Error> {
        let tier = tier.usable();
        let mut packed = PackedB { tier, rows: k, panels: Panels::of(tier, n), data: room(k, n)? };
        let all = packed.data.as_mut_slice();
        for panel in (0..if k == 0 { 0 } else { packed.panels.count() }).map(|i| packed.panels.get(i)) {
            let width = panel.width * LANES;
            let to = &mut all[panel.col * k..][..width * k];
            for (v, col) in (panel.col..n.min(panel.col + width)).step_by(LANES).enumerate() {
                let lines = (n - col).min(LANES);
                let from = line(col).checked_mul(k).and_then(|at| b.get(at..)?.get(..lines.checked_mul(k)?));
                let from = from.ok_or(Error::Shape { what: "a line lies past the operand" })?;
                turn(&mut to[v * LANES..], width, from, k, lines, k);
            }
        }
        Ok(packed)
    }

    /// Packs weights `[n, cin, taps]` of a convolution; rows go through the channels of one tap after another.
    pub(crate) fn from_taps(
        tier: Tier,
        weights: &[[u8; 4]],
        n: usize,
        cin: usize,
        taps: usize,
    ) -> Result<PackedB, Error> {
        let k = product("K leaves the address space", &[cin, taps])?;
        if taps == 1 || cin == 1 || k == 0 {
            return PackedB::from_unaligned(tier, weights, Strides::nk(k), k, n);
        }
        same_length("B", product("K·N leaves the address space", &[k, n])?, weights.len())?;
        let tier = tier.usable();
        let mut packed = PackedB { tier, rows: k, panels: Panels::of(tier, n), data: room(k, n)? };
        let all = packed.data.as_mut_slice();
        for panel in (0..packed.panels.count()).map(|i| packed.panels.get(i)) {
            let width = panel.width * LANES;
            let to = &mut all[panel.col * k..][..width * k];
            for (v, col) in (panel.col..n.min(panel.col + width)).step_by(LANES).enumerate() {
                for c in 0..cin {
                    let (to, from) = (&mut to[c * width + v * LANES..], &weights[col * k + c * taps..]);
                    turn(to, cin * width, from, k, n - col, taps);
                }
            }
        }
        Ok(packed)
    }

    /// Packs the elements `f(row, col)`, or cells of four bytes.
    pub(crate) fn from_fn<T: bytemuck::Pod>(
        tier: Tier,
        k: usize,
        n: usize,
        f: impl Fn(usize, usize) -> T,
    ) -> Result<PackedB, Error> {
        PackedB::from_rows(tier, k, n, |row, col, to: &mut [T]| {
            to.iter_mut().enumerate().for_each(|(i, to)| *to = f(row, col + i));
        })
    }

    /// Packs what `f(row, first column, cells)` writes into pieces of rows.
    pub(crate) fn from_rows<T: bytemuck::Pod>(
        tier: Tier,
        k: usize,
        n: usize,
        f: impl FnMut(usize, usize, &mut [T]),
    ) -> Result<PackedB, Error> {
        const { assert!(size_of::<T>() == size_of::<f32>()) };
        let tier = tier.usable();
        let panels = Panels::of(tier, n);
        let mut data = room(k, n)?;
        fill(bytemuck::cast_slice_mut(data.as_mut_slice()), k, panels, f);
        Ok(PackedB { tier, rows: k, panels, data })
    }

    /// Products summed for each element of the result.
    pub fn k(&self) -> usize {
        self.rows
    }

    /// Columns of the result.
    pub fn n(&self) -> usize {
        self.panels.cols
    }

    /// The tier the layout is made for.
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.data.bytes()
    }

    pub(crate) fn view(&self) -> PackedRef {
        PackedRef { data: self.data.as_ptr(), rows: self.rows, panels: self.panels, cells: Cells::One }
    }
}

impl Stored for PackedB {
    fn put<'a>(&'a self, out: &mut Writer<'a>) {
        self.tier.put(out);
        self.rows.put(out);
        self.panels.cols.put(out);
        self.data.put(out);
    }
    fn take(from: &mut Reader) -> Option<PackedB> {
        let (tier, rows, cols) = <(Tier, usize, usize)>::take(from)?;
        let (panels, data) = (Panels::of(tier, cols), Aligned::take(from)?);
        let len = cols.checked_next_multiple_of(LANES)?.checked_mul(rows)?;
        data.holds(len).then_some(PackedB { tier, rows, panels, data })
    }
}

/// Zeros for a packed operand of `k × n` elements.
fn room(k: usize, n: usize) -> Result<Aligned, Error> {
    let bytes = [n.saturating_add(LANES), k, size_of::<f32>()];
    product("the packed operand leaves the address space", &bytes)?;
    Ok(Aligned::zeros(n.div_ceil(LANES) * LANES * k))
}

/// Calls `f(row, first column, live cells)` for each row of each panel; cells past the last column are zero already.
fn fill<T>(to: &mut [T], k: usize, panels: Panels, mut f: impl FnMut(usize, usize, &mut [T])) {
    for index in 0..panels.count() {
        let panel = panels.get(index);
        let width = panel.width * LANES;
        let live = width.min(panels.cols - panel.col);
        for (row, to) in to[panel.col * k..][..width * k].chunks_exact_mut(width).enumerate() {
            f(row, panel.col, &mut to[..live]);
        }
    }
}

/// `f32` of scratch that [`pack_into`] needs: the packed operand and room to align it.
pub(crate) fn scratch_len(k: usize, n: usize) -> Option<usize> {
    n.checked_next_multiple_of(LANES)?.checked_mul(k)?.checked_add(LANES)
}

/// The part of `scratch` that starts on a cache line.
pub(crate) fn align(scratch: &mut [f32]) -> &mut [f32] {
    let skip = scratch.as_ptr().align_offset(64).min(scratch.len());
    &mut scratch[skip..]
}

/// Packs an operand into scratch. The reference lives as long as the scratch, which the caller keeps.
pub(crate) fn pack_into(
    tier: Tier,
    scratch: &mut [f32],
    b: &[f32],
    strides: Strides,
    k: usize,
    n: usize,
) -> PackedRef {
    let panels = Panels::of(tier, n);
    let to = &mut align(scratch)[..panels.len(k)];
    let b: &[[u8; 4]] = bytemuck::cast_slice(b);
    if strides.col == 1 {
        copy_rows(to, b, strides.row, k, panels);
    } else {
        transpose_rows(to, b, strides, k, panels);
    }
    PackedRef { data: to.as_ptr(), rows: k, panels, cells: Cells::One }
}

fn copy_rows(to: &mut [f32], b: &[[u8; 4]], step: usize, k: usize, panels: Panels) {
    for index in 0..panels.count() {
        let panel = panels.get(index);
        let width = panel.width * LANES;
        let live = width.min(panels.cols - panel.col);
        let to = &mut to[panel.col * k..][..width * k];
        for (row, to) in to.chunks_exact_mut(width).enumerate() {
            let from = &b[row * step + panel.col..][..live];
            bytemuck::cast_slice_mut(&mut to[..live]).copy_from_slice(from);
            to[live..].fill(0.0);
        }
    }
}

/// Turns `lines` lines of `columns` elements, `from_step` apart, into `columns` groups of a vector, `to_step` apart; cells of a
/// group past the lines become zero.
pub(crate) fn turn(
    to: &mut [f32],
    to_step: usize,
    from: &[[u8; 4]],
    from_step: usize,
    lines: usize,
    columns: usize,
) {
    if columns == 0 {
        return;
    }
    let lines = lines.min(LANES);
    if lines < LANES {
        (0..columns).for_each(|c| to[c * to_step..][lines..LANES].fill(0.0));
    }
    if lines == 0 {
        return;
    }
    assert!((columns - 1) * to_step + lines <= to.len());
    assert!((lines - 1) * from_step + columns <= from.len());
    let size = size_of::<f32>();
    // SAFETY: every line and every group lies in its slice, as the assertions say; slices are shorter than `isize::MAX`.
    unsafe {
        transpose::turn::<4>(
            from.as_ptr().cast(),
            (from_step * size) as isize,
            to.as_mut_ptr().cast(),
            (to_step * size) as isize,
            lines,
            columns,
        );
    }
}

fn transpose_rows(to: &mut [f32], b: &[[u8; 4]], strides: Strides, k: usize, panels: Panels) {
    if k == 0 {
        return;
    }
    for index in 0..panels.count() {
        let panel = panels.get(index);
        let width = panel.width * LANES;
        let live = width.min(panels.cols - panel.col);
        let to = &mut to[panel.col * k..][..width * k];
        for v in (0..width).step_by(LANES) {
            let cols = live.saturating_sub(v).min(LANES);
            let first = (panel.col + v) * strides.col;
            if strides.row == 1 {
                turn(&mut to[v..], width, b.get(first..).unwrap_or_default(), strides.col, cols, k);
                continue;
            }
            for k0 in (0..k).step_by(LANES) {
                for row in k0..k.min(k0 + LANES) {
                    let to = &mut to[row * width + v..][..LANES];
                    let from = row * strides.row + first;
                    for (i, to) in to.iter_mut().enumerate() {
                        *to = if i < cols { f32::from_ne_bytes(b[from + i * strides.col]) } else { 0.0 };
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_cover_every_column_once() {
        for &tier in Tier::available() {
            for cols in 0..400 {
                let panels = Panels::of(tier, cols);
                let mut next = 0;
                for i in 0..panels.count() {
                    let p = panels.get(i);
                    assert_eq!(p.col, next);
                    assert!((1..=Tiles::of(tier).widest()).contains(&p.width));
                    next += p.width * LANES;
                }
                assert_eq!(next, cols.next_multiple_of(LANES));
            }
        }
    }

    #[test]
    fn both_ways_of_packing_agree() {
        let (k, n) = (19, 87);
        let b: Vec<f32> = (0..k * n).map(|i| i as f32).collect();
        let t: Vec<f32> = (0..n * k).map(|i| b[(i % k) * n + i / k]).collect();
        for &tier in Tier::available() {
            let p = PackedB::from_kn(tier, &b, k, n).unwrap();
            let q = PackedB::from_nk(tier, &t, n, k).unwrap();
            let mut scratch = vec![f32::NAN; scratch_len(k, n).unwrap()];
            for (b, strides) in [(&b, Strides::kn(n)), (&t, Strides::nk(k))] {
                let r = pack_into(tier, &mut scratch, b, strides, k, n);
                for i in 0..r.panels.len(k) {
                    // SAFETY: all three hold `len` elements.
                    unsafe {
                        assert_eq!(*p.view().data.add(i), *r.data.add(i));
                        assert_eq!(*q.view().data.add(i), *r.data.add(i));
                    }
                }
            }
        }
    }

    #[test]
    fn lines_from_elsewhere_are_packed_in_their_order() {
        for (n, k) in [(16, 3), (64, 20), (40, 1), (48, 0)] {
            let b: Vec<f32> = (0..n * k).map(|i| i as f32).collect();
            // Whole vectors of columns in reverse.
            let line = |col: usize| (n - col).saturating_sub(LANES);
            let turned: Vec<f32> = (0..n.next_multiple_of(LANES))
                .step_by(LANES)
                .flat_map(|col| b[line(col) * k..][..(n - col).min(LANES) * k].to_vec())
                .collect();
            let bytes = [&[0u8], bytemuck::cast_slice(&b)].concat();
            let cells: &[[u8; 4]] = bytemuck::cast_slice(&bytes[1..]);
            for &tier in Tier::available() {
                let want = PackedB::from_nk(tier, &turned, n, k).unwrap();
                let found = PackedB::from_lines(tier, cells, n, k, line).unwrap();
                assert_eq!(found.data.as_bytes(), want.data.as_bytes(), "{n} {k}");
                assert!(k == 0 || PackedB::from_lines(tier, cells, n, k, |col| col + 1).is_err());
            }
        }
    }

    #[test]
    fn taps_and_elements_at_any_address_are_packed_as_by_definition() {
        for (n, cin, taps) in
            [(1, 1, 1), (20, 3, 0), (40, 0, 9), (3, 5, 9), (16, 1, 25), (37, 7, 4), (70, 3, 2), (64, 16, 9)]
        {
            let k = cin * taps;
            let w: Vec<f32> = (0..n * k).map(|i| i as f32).collect();
            let mut bytes = vec![0u8];
            bytes.extend_from_slice(bytemuck::cast_slice(&w));
            for &tier in Tier::available() {
                let at = |row: usize, col: usize| w[col * k + row % cin * taps + row / cin];
                let want = PackedB::from_fn(tier, k, n, at);
                let found =
                    PackedB::from_taps(tier, bytemuck::cast_slice(&bytes[1..]), n, cin, taps).unwrap();
                assert_eq!(found.data.as_bytes(), want.unwrap().data.as_bytes(), "{n} {cin} {taps}");
                let want = PackedB::from_nk(tier, &w, n, k).unwrap();
                let cells = bytemuck::cast_slice(&bytes[1..]);
                let found = PackedB::from_unaligned(tier, cells, Strides::nk(k), k, n).unwrap();
                assert_eq!(found.data.as_bytes(), want.data.as_bytes(), "{n} {k}");
            }
        }
    }
}
