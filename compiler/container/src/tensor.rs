//! One tensor: its element type, then its planes.

use crate::Error;
use crate::classes::Rows;
use crate::layout::Element;
use crate::plane;
use crate::reader::Reader;
use crate::trellis;

/// In the place of an element's code: bytes in chains.
const CHAINS: u8 = 64;

/// The coded tensor; `None` when its bytes are no whole elements.
pub fn encode(bytes: &[u8], element: Element, shape: &[usize]) -> Option<Vec<u8>> {
    let (planes, n) = element.planes(bytes.len())?;
    let axes = axes(shape, n);
    let mut out = vec![element as u8];
    for p in 0..planes {
        plane::encode(&element.plane(bytes, p), element.alphabet(), &axes, &mut out);
    }
    let mut along = axes.iter().filter(|_| element == Element::Byte);
    let chains = along.find_map(|&along| trellis::encode(bytes, along));
    match chains.filter(|c| c.len() + 1 < out.len()) {
        Some(c) => Some([&[CHAINS], &c[..]].concat()),
        None => Some(out),
    }
}

/// About how many bytes [`encode`] makes; the bytes themselves when it does not apply.
pub fn estimate(bytes: &[u8], element: Element, shape: &[usize]) -> usize {
    let Some((planes, n)) = element.planes(bytes.len()) else { return bytes.len() };
    let axes = axes(shape, n);
    let plain: usize =
        (0..planes).map(|p| plane::estimate(&element.plane(bytes, p), element.alphabet(), &axes)).sum();
    let mut along = axes.iter().filter(|_| element == Element::Byte);
    let chains = along.find_map(|&along| trellis::estimate(bytes, along));
    1 + chains.map_or(plain, |c| c.min(plain))
}

/// The bytes of a tensor that took `len` of them.
pub fn decode(payload: &[u8], len: usize) -> Result<Vec<u8>, Error> {
    let mut r = Reader::new(payload);
    let code = r.byte()?;
    if code == CHAINS {
        return trellis::decode(&mut r, len);
    }
    let element = Element::from_code(code)?;
    let (planes, n) = element.planes(len).ok_or(Error::Damaged("a tensor of broken elements"))?;
    let planes: Vec<Vec<u8>> =
        (0..planes).map(|_| plane::decode(&mut r, n, element.alphabet())).collect::<Result<_, _>>()?;
    if !r.is_empty() {
        return Err(Error::Damaged("bytes behind a tensor"));
    }
    Ok(element.join(&planes))
}

/// The first and the last axis, along which scales usually differ.
fn axes(shape: &[usize], n: usize) -> Vec<Rows> {
    let elements = shape.iter().try_fold(1usize, |p, &d| p.checked_mul(d));
    // Packed elements may leave a symbol over.
    if elements.is_none_or(|e| e == 0 || n < e || n - e > 3) {
        return Vec::new();
    }
    let axis = |a: usize| Rows { inner: shape[a + 1..].iter().product(), count: shape[a] };
    let last = shape.len().wrapping_sub(1);
    let mut axes: Vec<Rows> = [0, last].into_iter().filter(|&a| a < shape.len()).map(axis).collect();
    axes.dedup();
    axes
}
