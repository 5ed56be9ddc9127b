//! Containers: whatever the bytes, an error or a file; and what is packed comes back bit for bit.

use crate::random::Random;
use container::{Element, Region, pack, unpack};

/// Largest file that a container under test may stand for.
const LIMIT: u64 = 1 << 20;
const ELEMENTS: &[(Element, usize)] = &[
    (Element::Byte, 1),
    (Element::Nibble, 1),
    (Element::BFloat16, 2),
    (Element::Float16, 2),
    (Element::Float32, 4),
    (Element::Float64, 8),
    (Element::Int16, 2),
    (Element::Int32, 4),
    (Element::Int64, 8),
    (Element::Crumb, 1),
];

/// The bytes as a container; and as a file with tensors at places that the bytes choose.
pub fn container(bytes: &[u8]) {
    crate::limits::set_limits();
    if let Ok(file) = unpack(bytes, LIMIT) {
        // Another writer may have coded it otherwise; the file is what counts.
        assert_eq!(unpack(&pack(&file, &[]), LIMIT).as_deref(), Ok(&file[..]), "packed again, another file");
    }
    let Some((seed, file)) = bytes.split_first_chunk::<8>() else { return };
    let mut r = Random(u64::from_le_bytes(*seed));
    let regions: Vec<Region> = (0..r.below(5)).map(|_| region(&mut r, file.len())).collect();
    let packed = pack(file, &regions);
    assert_eq!(unpack(&packed, LIMIT).as_deref(), Ok(file), "{regions:?}");
    // Damage is noticed: one changed byte is an error, or the same file where the byte meant nothing.
    let mut damaged = packed;
    let at = r.below(damaged.len());
    damaged[at] ^= 1 << r.below(8);
    if let Ok(other) = unpack(&damaged, LIMIT) {
        assert_eq!(other, file, "damage at byte {at} gives another file");
    }
}

/// A tensor somewhere in the file, at times beyond its end or over another.
fn region(r: &mut Random, len: usize) -> Region {
    let (element, size) = r.one(ELEMENTS, ELEMENTS[0]);
    let (rows, cols) = (1 + r.below(40), 1 + r.below(40));
    let shape = if r.chance(1, 3) { vec![rows * cols] } else { vec![rows, cols] };
    let bytes = if r.chance(1, 8) { r.below(len + 9) } else { (rows * cols * size).min(len) };
    Region { offset: r.below(len + 1), len: bytes, element, shape }
}

/// A container of made-up weights, to start from.
pub fn example(seed: u64) -> Vec<u8> {
    let mut r = Random(seed);
    let (element, size) = r.one(ELEMENTS, ELEMENTS[0]);
    let (rows, cols) = (1 + r.below(24), 1 + r.below(24));
    let mut file = r.bytes(16);
    // Few distinct values, so that coding pays.
    file.extend(
        (0..rows * cols * size).map(|i| if i % size == 0 { r.below(4) as u8 } else { (i % size) as u8 }),
    );
    let region = Region { offset: 16, len: rows * cols * size, element, shape: vec![rows, cols] };
    pack(&file, &[region])
}
