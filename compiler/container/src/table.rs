//! One table of symbol frequencies: sixteen bits of a stream cost what the table says.

use crate::Error;
use crate::reader::{Reader, put_varint};
use constriction::stream::model::{ContiguousCategoricalEntropyModel, ContiguousLookupDecoderModel};

/// Frequencies add up to 2 to this power.
pub const PRECISION: usize = 12;
const TOTAL: u32 = 1 << PRECISION;
/// Fractional bits of a cost.
pub const COST_BITS: u32 = 12;
/// Costs more than any symbol that occurs.
const NEVER: u32 = 1 << 20;

pub type Encoder = ContiguousCategoricalEntropyModel<u16, Vec<u16>, PRECISION>;
pub type Decoder = ContiguousLookupDecoderModel<u16, Vec<u16>, Box<[u16]>, PRECISION>;

/// Frequencies of the symbols that occur: at least two, each at least 1, in all 2^[`PRECISION`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    symbols: Vec<u8>,
    frequencies: Vec<u16>,
}

impl Table {
    /// The table nearest to these counts of symbols.
    pub fn of(counts: &[u32]) -> Table {
        let mut used: Vec<usize> = (0..counts.len()).filter(|&s| counts[s] > 0).collect();
        // One symbol alone has no code; a neighbour that never comes costs next to nothing.
        for s in 0..counts.len() {
            if used.len() < 2 && !used.contains(&s) {
                used.push(s);
            }
        }
        used.sort_unstable();
        let total: u64 = counts.iter().map(|&c| u64::from(c)).sum::<u64>().max(1);
        let room = u64::from(TOTAL) - used.len() as u64;
        let mut f: Vec<u32> =
            used.iter().map(|&s| 1 + (u64::from(counts[s]) * room / total) as u32).collect();
        let missing = TOTAL - f.iter().sum::<u32>();
        // The rounded-off rest goes to the most frequent symbol, the first of equals.
        let most = (0..f.len()).rev().max_by_key(|&i| f[i]).unwrap_or(0);
        f[most] += missing;
        Table {
            symbols: used.iter().map(|&s| s as u8).collect(),
            frequencies: f.iter().map(|&x| x as u16).collect(),
        }
    }

    /// Cost of every symbol below `alphabet`, in bits × 2^[`COST_BITS`].
    pub fn costs(&self, alphabet: usize) -> Vec<u32> {
        let mut costs = vec![NEVER; alphabet];
        for (&s, &f) in self.symbols.iter().zip(&self.frequencies) {
            costs[usize::from(s)] = ((PRECISION as u32) << COST_BITS) - log2(u32::from(f));
        }
        costs
    }

    /// The place of every symbol in the table.
    pub fn places(&self) -> [u8; 256] {
        let mut places = [0; 256];
        self.symbols.iter().enumerate().for_each(|(i, &s)| places[usize::from(s)] = i as u8);
        places
    }

    pub fn symbols(&self) -> &[u8] {
        &self.symbols
    }

    pub fn encoder(&self) -> Option<Encoder> {
        Encoder::from_nonzero_fixed_point_probabilities(&self.frequencies, false).ok()
    }

    pub fn decoder(&self) -> Result<Decoder, Error> {
        Decoder::from_nonzero_fixed_point_probabilities(&self.frequencies, false)
            .map_err(|()| Error::Damaged("frequencies that do not add up"))
    }

    /// Appends the table: which symbols, then all frequencies.
    pub fn write(&self, alphabet: usize, out: &mut Vec<u8>) {
        let mut set = vec![0u8; alphabet.div_ceil(8)];
        self.symbols.iter().for_each(|&s| set[usize::from(s) / 8] |= 1 << (s % 8));
        out.extend_from_slice(&set);
        self.frequencies.iter().for_each(|&f| put_varint(u64::from(f), out));
    }

    pub fn read(r: &mut Reader, alphabet: usize) -> Result<Table, Error> {
        let set = r.take(alphabet.div_ceil(8))?;
        let symbols: Vec<u8> =
            (0..alphabet).filter(|&s| set[s / 8] >> (s % 8) & 1 == 1).map(|s| s as u8).collect();
        let mut frequencies = Vec::with_capacity(symbols.len());
        for _ in &symbols {
            frequencies.push(r.length(TOTAL as usize)? as u16);
        }
        let sum: u32 = frequencies.iter().map(|&f| u32::from(f)).sum();
        if symbols.len() < 2 || sum != TOTAL || frequencies.contains(&0) {
            return Err(Error::Damaged("frequencies that do not add up"));
        }
        Ok(Table { symbols, frequencies })
    }
}

/// Binary logarithm × 2^[`COST_BITS`], rounded down, of at least 1: integers only, so that it is the same everywhere.
pub fn log2(x: u32) -> u32 {
    let whole = x.max(1).ilog2();
    let mut m = u64::from(x.max(1)) << (31 - whole);
    let mut fraction = 0;
    for bit in (0..COST_BITS).rev() {
        m = (m * m) >> 31;
        if m >= 1 << 32 {
            m >>= 1;
            fraction |= 1 << bit;
        }
    }
    whole << COST_BITS | fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms() {
        for x in 1..=4096u32 {
            let exact = f64::from(x).log2() * f64::from(1 << COST_BITS);
            assert!((f64::from(log2(x)) - exact).abs() < 2.0, "{x}");
        }
    }

    #[test]
    fn tables_add_up_and_come_back() {
        for counts in [vec![7, 0, 1, 900_000], vec![0, 0, 5], vec![1; 256], vec![0; 4], vec![u32::MAX, 1]] {
            let t = Table::of(&counts);
            assert_eq!(t.frequencies.iter().map(|&f| u32::from(f)).sum::<u32>(), TOTAL, "{counts:?}");
            let mut bytes = Vec::new();
            t.write(counts.len(), &mut bytes);
            assert_eq!(Table::read(&mut Reader::new(&bytes), counts.len()).unwrap(), t);
            assert!(t.encoder().is_some() && t.decoder().is_ok());
        }
    }
}
