//! Rows of a tensor grouped by the distribution of their symbols.
//!
//! The channels of a layer differ in spread, so one table for all wastes bits. Rows are assigned to the table that codes
//! them shortest and tables are counted anew, in turns (k-means under code length).

use crate::table::{COST_BITS, Table, log2};

/// Most classes: a class number is four bits.
pub const MOST: usize = 16;
const ROUNDS: usize = 6;

/// Which row a symbol belongs to: number (i / inner) mod count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    pub inner: usize,
    pub count: usize,
}

impl Rows {
    pub const ONE: Rows = Rows { inner: 1, count: 1 };

    pub fn of(&self, i: usize) -> usize {
        i / self.inner % self.count
    }
}

/// A class for each row, and the table of each class.
pub struct Classes {
    pub of_row: Vec<u8>,
    pub tables: Vec<Table>,
    /// Bits × 2^[`COST_BITS`] of all symbols, tables and class numbers included.
    pub cost: u64,
}

/// Counts of symbols per row.
pub struct Histogram {
    pub alphabet: usize,
    pub rows: Vec<Vec<u32>>,
}

impl Histogram {
    pub fn of(symbols: &[u8], alphabet: usize, rows: Rows) -> Histogram {
        let mut counts = vec![vec![0u32; alphabet]; rows.count];
        // Runs of one row, so that the division happens once per run.
        for (run, chunk) in symbols.chunks(rows.inner).enumerate() {
            let row = &mut counts[run % rows.count];
            chunk.iter().for_each(|&s| row[usize::from(s)] += 1);
        }
        Histogram { alphabet, rows: counts }
    }

    fn sum<'a>(&self, rows: impl Iterator<Item = &'a Vec<u32>>) -> Vec<u32> {
        let mut total = vec![0u32; self.alphabet];
        rows.for_each(|r| total.iter_mut().zip(r).for_each(|(t, c)| *t += c));
        total
    }

    /// The best grouping into at most `k` classes.
    pub fn classes(&self, k: usize) -> Classes {
        let k = k.clamp(1, self.rows.len().clamp(1, MOST));
        let mut of_row = self.spread(k);
        for _ in 0..if k > 1 { ROUNDS } else { 0 } {
            let costs: Vec<Vec<u32>> =
                self.tables(&of_row, k).iter().map(|t| t.costs(self.alphabet)).collect();
            let next: Vec<u8> = self.rows.iter().map(|row| nearest(row, &costs)).collect();
            if next == of_row {
                break;
            }
            of_row = next;
        }
        let tables = self.tables(&of_row, k);
        let costs: Vec<Vec<u32>> = tables.iter().map(|t| t.costs(self.alphabet)).collect();
        let mut cost: u64 =
            self.rows.iter().zip(&of_row).map(|(r, &c)| price(r, &costs[usize::from(c)])).sum();
        let mut written = Vec::new();
        tables.iter().for_each(|t| t.write(self.alphabet, &mut written));
        let numbers = if k > 1 { self.rows.len().div_ceil(2) } else { 0 };
        cost += ((written.len() + numbers) as u64 * 8) << COST_BITS;
        Classes { of_row, tables, cost }
    }

    /// Rows by their entropy, in `k` parts of equal size: where the rounds start.
    fn spread(&self, k: usize) -> Vec<u8> {
        let mut order: Vec<(u64, usize)> =
            self.rows.iter().enumerate().map(|(i, r)| (entropy(r), i)).collect();
        order.sort_unstable();
        let mut of_row = vec![0; self.rows.len()];
        order
            .iter()
            .enumerate()
            .for_each(|(at, &(_, i))| of_row[i] = (at * k / self.rows.len().max(1)) as u8);
        of_row
    }

    fn tables(&self, of_row: &[u8], k: usize) -> Vec<Table> {
        let of = |class: usize| self.rows.iter().zip(of_row).filter(move |(_, c)| usize::from(**c) == class);
        (0..k).map(|class| Table::of(&self.sum(of(class).map(|(r, _)| r)))).collect()
    }
}

fn price(row: &[u32], costs: &[u32]) -> u64 {
    row.iter().zip(costs).map(|(&n, &c)| u64::from(n) * u64::from(c)).sum()
}

fn nearest(row: &[u32], costs: &[Vec<u32>]) -> u8 {
    (0..costs.len()).min_by_key(|&c| price(row, &costs[c])).unwrap_or(0) as u8
}

/// Bits per symbol × 2^[`COST_BITS`] of a row alone.
fn entropy(row: &[u32]) -> u64 {
    let total: u32 = row.iter().sum();
    let spent: u64 = row.iter().filter(|&&n| n > 0).map(|&n| u64::from(n) * u64::from(log2(n))).sum();
    u64::from(log2(total.max(1))).saturating_sub(spent / u64::from(total.max(1)))
}
