//! One plane of symbols: constant, plain, or coded by asymmetric numeral systems.

use crate::Error;
use crate::classes::{Classes, Histogram, MOST, Rows};
use crate::reader::{Reader, put_varint};
use crate::table::{COST_BITS, Table};
use constriction::stream::Decode;
use constriction::stream::stack::SmallAnsCoder;
use rayon::prelude::*;

/// Symbols of one stream: streams are coded at the same time.
const CHUNK: usize = 1 << 18;
/// More rows than this are not told apart.
const MOST_ROWS: usize = 1 << 15;
const COUNTS: [usize; 4] = [2, 4, 8, MOST];

const CONSTANT: u8 = 0;
const PLAIN: u8 = 1;
const CODED: u8 = 2;

/// The best way found to code a plane.
struct Choice {
    rows: Rows,
    classes: Classes,
}

fn choose(symbols: &[u8], alphabet: usize, axes: &[Rows]) -> Choice {
    let all = Histogram::of(symbols, alphabet, Rows { inner: symbols.len().max(1), count: 1 });
    let mut best = Choice { rows: Rows::ONE, classes: all.classes(1) };
    // Where one table is no better than plain bits, several are hardly.
    if best.classes.cost >= plain_cost(symbols.len(), alphabet).saturating_mul(255) / 256 && alphabet == 256 {
        return best;
    }
    for &rows in axes.iter().filter(|r| (2..=MOST_ROWS).contains(&r.count)) {
        let h = Histogram::of(symbols, alphabet, rows);
        for k in COUNTS {
            let classes = h.classes(k);
            let better = classes.cost < best.classes.cost;
            if better {
                best = Choice { rows, classes };
            } else if k > 4 {
                break;
            }
        }
    }
    best
}

fn plain_cost(symbols: usize, alphabet: usize) -> u64 {
    (symbols as u64 * u64::from(alphabet.ilog2())) << COST_BITS
}

/// About how many bytes [`encode`] makes.
pub fn estimate(symbols: &[u8], alphabet: usize, axes: &[Rows]) -> usize {
    if symbols.iter().all(|s| Some(s) == symbols.first()) {
        return 2;
    }
    let coded = choose(symbols, alphabet, axes).classes.cost;
    let streams = symbols.len().div_ceil(CHUNK) * 5 + 8;
    (coded.min(plain_cost(symbols.len(), alphabet)) >> (COST_BITS + 3)) as usize + streams
}

/// Appends a plane; symbols are below `alphabet`.
pub fn encode(symbols: &[u8], alphabet: usize, axes: &[Rows], out: &mut Vec<u8>) {
    if let Some(&first) = symbols.first()
        && symbols.iter().all(|&s| s == first)
    {
        out.extend([CONSTANT, first]);
        return;
    }
    let choice = choose(symbols, alphabet, axes);
    let gains = choice.classes.cost < plain_cost(symbols.len(), alphabet);
    match gains.then(|| streams(symbols, &choice)).flatten() {
        Some(streams) => {
            out.push(CODED);
            put_choice(&choice, alphabet, out);
            streams.iter().for_each(|s| put_varint(s.len() as u64, out));
            streams.iter().flatten().for_each(|w| out.extend_from_slice(&w.to_le_bytes()));
        }
        None => {
            out.push(PLAIN);
            out.extend(plain(symbols, alphabet));
        }
    }
}

/// The symbols of a plane of `n`.
pub fn decode(r: &mut Reader, n: usize, alphabet: usize) -> Result<Vec<u8>, Error> {
    match r.byte()? {
        CONSTANT => {
            let s = r.byte()?;
            if usize::from(s) >= alphabet {
                return Err(Error::Damaged("a symbol out of range"));
            }
            Ok(vec![s; n])
        }
        PLAIN => {
            let per = 8 / alphabet.ilog2() as usize;
            Ok(unplain(r.take(n.div_ceil(per))?, n, alphabet))
        }
        CODED => {
            let (rows, of_row, tables) = choice(r, n, alphabet)?;
            let mut lengths = Vec::new();
            for _ in 0..n.div_ceil(CHUNK) {
                lengths.push(r.length(usize::MAX / 4)?);
            }
            let streams: Vec<&[u8]> = lengths.iter().map(|&l| r.take(l * 2)).collect::<Result<_, _>>()?;
            let parts: Vec<Vec<u8>> = streams
                .par_iter()
                .enumerate()
                .map(|(i, s)| {
                    let start = i * CHUNK;
                    unstream(s, start..n.min(start + CHUNK), rows, &of_row, &tables)
                })
                .collect::<Result<_, _>>()?;
            Ok(parts.concat())
        }
        _ => Err(Error::Damaged("an unknown form of a plane")),
    }
}

fn put_choice(c: &Choice, alphabet: usize, out: &mut Vec<u8>) {
    put_varint(c.classes.tables.len() as u64, out);
    c.classes.tables.iter().for_each(|t| t.write(alphabet, out));
    if c.classes.tables.len() > 1 {
        put_varint(c.rows.inner as u64, out);
        put_varint(c.rows.count as u64, out);
        out.extend(c.classes.of_row.chunks(2).map(|p| p[0] | p.get(1).unwrap_or(&0) << 4));
    }
}

fn choice(r: &mut Reader, n: usize, alphabet: usize) -> Result<(Rows, Vec<u8>, Vec<Table>), Error> {
    let k = r.length(MOST)?;
    let tables: Vec<Table> = (0..k).map(|_| Table::read(r, alphabet)).collect::<Result<_, _>>()?;
    if k < 2 {
        return if k == 1 {
            Ok((Rows::ONE, vec![0], tables))
        } else {
            Err(Error::Damaged("a plane without a table"))
        };
    }
    let rows = Rows { inner: r.length(n)?, count: r.length(MOST_ROWS)? };
    let packed = r.take(rows.count.div_ceil(2))?;
    let of_row: Vec<u8> = packed.iter().flat_map(|b| [b & 15, b >> 4]).take(rows.count).collect();
    if rows.inner == 0 || rows.count == 0 || of_row.iter().any(|&c| usize::from(c) >= k) {
        return Err(Error::Damaged("classes out of range"));
    }
    Ok((rows, of_row, tables))
}

/// The coded chunks; `None` when a symbol has no code, which a table of its own counts rules out.
fn streams(symbols: &[u8], c: &Choice) -> Option<Vec<Vec<u16>>> {
    let encoders: Vec<_> =
        c.classes.tables.iter().map(|t| Some((t.encoder()?, t.places()))).collect::<Option<_>>()?;
    symbols
        .par_chunks(CHUNK)
        .enumerate()
        .map(|(chunk, part)| {
            let mut coder = SmallAnsCoder::new();
            let coded = part.iter().enumerate().map(|(i, &s)| {
                let row = c.rows.of(chunk * CHUNK + i);
                let (model, places) = &encoders[usize::from(c.classes.of_row[row])];
                (usize::from(places[usize::from(s)]), model)
            });
            coder.encode_symbols_reverse(coded).ok()?;
            coder.into_compressed().ok()
        })
        .collect()
}

fn unstream(
    bytes: &[u8],
    range: std::ops::Range<usize>,
    rows: Rows,
    of_row: &[u8],
    tables: &[Table],
) -> Result<Vec<u8>, Error> {
    let words: Vec<u16> = bytes.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]])).collect();
    let bad = || Error::Damaged("a stream that does not decode");
    let mut coder = SmallAnsCoder::from_compressed(words).map_err(|_| bad())?;
    let decoders: Vec<_> =
        tables.iter().map(|t| Ok((t.decoder()?, t.symbols()))).collect::<Result<_, Error>>()?;
    let mut out = Vec::with_capacity(range.len());
    for i in range {
        let (model, symbols) = &decoders[usize::from(of_row[rows.of(i)])];
        let place = coder.decode_symbol(model.as_view()).map_err(|_| bad())?;
        out.push(symbols[place]);
    }
    Ok(out)
}

fn plain(symbols: &[u8], alphabet: usize) -> Vec<u8> {
    let bits = alphabet.ilog2();
    let join = |c: &[u8]| c.iter().rev().fold(0u32, |b, &s| b << bits | u32::from(s)) as u8;
    symbols.chunks(8 / bits as usize).map(join).collect()
}

fn unplain(bytes: &[u8], n: usize, alphabet: usize) -> Vec<u8> {
    let (bits, mask) = (alphabet.ilog2(), (alphabet - 1) as u8);
    let split = |b: &u8| {
        let b = *b;
        (0..8 / bits).map(move |i| (b >> (i * bits)) & mask)
    };
    bytes.iter().flat_map(split).take(n).collect()
}
