//! Packed codes as bytes, and back.

use super::entries::Entries;
use super::source::{Kept, VECTOR};
use super::{LONGEST, PackedCodes, Scales, depth};
use crate::dispatch::{Tier, has_vbmi2};
use crate::pack::Aligned;
use crate::simd::LANES;
use crate::stored::{Reader, Stored, Writer};

crate::variants! { Scales { 0 = Half(all), 1 = Single(all) } }

impl Scales {
    fn len(&self) -> usize {
        match self {
            Scales::Half(all) => all.len(),
            Scales::Single(all) => all.len(),
        }
    }
}

impl Stored for PackedCodes {
    fn put<'a>(&'a self, out: &mut Writer<'a>) {
        self.tier.put(out);
        self.bits.put(out);
        for x in [self.k, self.n, self.block, self.blocks] {
            out.stream.extend((x as u64).to_le_bytes());
        }
        self.zero.put(out);
        self.data.put(out);
        self.scales.put(out);
        self.offsets.put(out);
        self.entries.put(out);
        out.stream.push(u8::from(self.kept.is_some()));
        if let Some(kept) = &self.kept {
            kept.masks.put(out);
            kept.values.put(out);
        }
    }

    fn take(from: &mut Reader) -> Option<PackedCodes> {
        let (tier, bits) = <(Tier, u32)>::take(from)?;
        let [k, n, block, blocks] = <[usize; 4]>::take(from)?;
        let zero = i32::take(from)?;
        let (data, scales) = <(Aligned, Scales)>::take(from)?;
        let (offsets, entries) = <(Option<Vec<f32>>, Option<Entries>)>::take(from)?;
        let kept = <Option<(Vec<u64>, Vec<u8>)> as Stored>::take(from)?;
        k.checked_next_multiple_of(8)?;
        if k == 0 || n == 0 || !matches!(bits, 4 | 8) || block % 8 != 0 || !(8..=LONGEST).contains(&block) {
            return None;
        }
        let columns = n.checked_next_multiple_of(LANES)?;
        let cells = columns.checked_mul(depth(k, bits))?.checked_mul(bits as usize)?;
        let each = columns.checked_mul(blocks)?;
        let mut packed =
            PackedCodes { tier, k, n, bits, block, blocks, data, kept: None, scales, offsets, zero, entries };
        let readable = match &packed.entries {
            Some(e) => e.entries() == 1 << bits && e.readable(tier) && zero == 128,
            None => (-1024..=1024).contains(&zero),
        };
        let fits = (blocks == 1 || blocks == k.div_ceil(block))
            && packed.scales.len() == each
            && packed.offsets.as_ref().is_none_or(|o| o.len() == each)
            && packed.data.holds(if kept.is_some() { 0 } else { cells.div_ceil(32) });
        if !(readable && fits) {
            return None;
        }
        if let Some((masks, values)) = kept {
            let vectors = packed.vectors();
            let expands = tier == Tier::Portable || tier == Tier::Avx512 && has_vbmi2();
            let one = bits == 8 && packed.zero_code().is_some_and(|z| (0..=255).contains(&z));
            if !(expands && one) || masks.len() != columns / LANES * vectors {
                return None;
            }
            let (mut starts, mut end) = (Vec::new(), 0);
            for panel in masks.chunks(vectors) {
                starts.push(end);
                end += panel.iter().map(|m| m.count_ones() as usize).sum::<usize>();
            }
            if values.len() != end + VECTOR {
                return None;
            }
            packed.kept = Some(Kept { masks, values, starts });
        }
        Some(packed)
    }
}
