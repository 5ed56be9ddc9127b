//! The entries of a table as integers of one or three bytes.

use crate::dispatch::Tier;
use crate::stored::{Reader, Stored, Writer};

/// Entries as multiples of a unit, in bytes of which the highest counts from 128.
#[derive(Clone)]
pub(super) struct Entries {
    unit: f32,
    /// Bytes of an entry: 1 or 3.
    parts: usize,
    /// Lowest bytes first, each part 16 or 256 long.
    bytes: Vec<u8>,
    len: usize,
}

impl Stored for Entries {
    fn put<'a>(&'a self, out: &mut Writer<'a>) {
        self.unit.put(out);
        self.parts.put(out);
        self.bytes.put(out);
    }
    fn take(from: &mut Reader) -> Option<Entries> {
        let (unit, parts, bytes) = <(f32, usize, Vec<u8>)>::take(from)?;
        let whole = matches!(parts, 1 | 3) && bytes.len() % parts == 0;
        whole.then(|| Entries { unit, parts, len: bytes.len() / parts, bytes })
    }
}

/// As a fraction of a unit, what an entry of one byte may be off.
const SLACK: f32 = 1.0 / 65536.0;

impl Entries {
    /// `None` where entries are not finite.
    pub(super) fn of(table: &[f32]) -> Option<Entries> {
        let most = table.iter().fold(0f32, |m, x| m.max(x.abs()));
        if !table.iter().all(|x| x.is_finite()) {
            return None;
        }
        let few = (1..=127).map(|m| most / m as f32).find(|unit| {
            let whole = |x: &f32| (x / unit - (x / unit).round()).abs() <= SLACK;
            *unit > 0.0 && table.iter().all(whole)
        });
        let (unit, parts) = match few {
            Some(unit) => (unit, 1),
            None => (most / 8_388_607.0, 3),
        };
        let unit = if unit > 0.0 { unit } else { 1.0 };
        let whole = |x: f32| (f64::from(x) / f64::from(unit)).round() as i32;
        let top = 8 * (parts - 1);
        let byte = |x: f32, part: usize| ((whole(x) + (128 << top)) >> (8 * part)) as u8;
        let bytes = (0..parts).flat_map(|p| table.iter().map(move |&x| byte(x, p))).collect();
        Some(Entries { unit, parts, bytes, len: table.len() })
    }

    pub(super) fn unit(&self) -> f32 {
        self.unit
    }

    /// How many there are.
    pub(super) fn entries(&self) -> usize {
        self.len
    }

    pub(super) fn parts(&self) -> usize {
        self.parts
    }

    pub(super) fn part(&self, part: usize) -> &[u8] {
        &self.bytes[part * self.len..(part + 1) * self.len]
    }

    /// An entry in units.
    pub(super) fn value(&self, code: u8) -> f32 {
        let sum =
            (0..self.parts).fold(0i32, |s, p| s + (i32::from(self.part(p)[usize::from(code)]) << (8 * p)));
        (sum - (128 << (8 * (self.parts - 1)))) as f32
    }

    /// Whether the tier looks up tables of this size without reading memory for each weight.
    pub(super) fn readable(&self, tier: Tier) -> bool {
        self.len == 16 || tier == Tier::Portable || tier == Tier::Avx512 && crate::dispatch::has_vbmi()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_what_the_table_holds() {
        let whole: Vec<f32> = [-127, -90, -33, 0, 1, 64, 127].iter().map(|&i| i as f32 * 0.013).collect();
        let other: Vec<f32> = (0..16).map(|i| ((i * i) as f32).sin() * 0.7).collect();
        for (t, parts) in [(&whole, 1), (&other, 3), (&vec![0.0; 16], 3)] {
            let e = Entries::of(t).unwrap();
            assert_eq!(e.parts(), parts);
            for (i, x) in t.iter().enumerate() {
                assert!((e.value(i as u8) * e.unit() - x).abs() <= 2f32.powi(-22), "{x}");
            }
        }
        assert!(Entries::of(&[f32::NAN]).is_none());
    }
}
