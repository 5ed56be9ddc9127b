//! Where candidates wait until they are chosen: their constants are put away, so that memory does not grow with the
//! number of candidates.

use ir::{DType, Error, Result, Tensor, ValueId};
use lossy::Candidate;
use std::sync::Mutex;

/// Constants below this size stay in memory.
const SMALL: usize = 1 << 12;

/// A place for bytes that are not needed now.
pub trait Shelf: Send + Sync {
    /// Keeps `bytes` and tells where.
    fn put(&self, bytes: &[u8]) -> Result<u64>;
    /// The `len` bytes that were put at `at`.
    fn get(&self, at: u64, len: usize) -> Result<Vec<u8>>;
}

/// A shelf in memory, for small models and tests.
#[derive(Default)]
pub struct Memory(Mutex<Vec<Vec<u8>>>);

impl Shelf for Memory {
    fn put(&self, bytes: &[u8]) -> Result<u64> {
        let mut all = self.0.lock().unwrap_or_else(|e| e.into_inner());
        all.push(bytes.to_vec());
        Ok(all.len() as u64 - 1)
    }

    fn get(&self, at: u64, len: usize) -> Result<Vec<u8>> {
        let all = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let found = usize::try_from(at).ok().and_then(|i| all.get(i)).filter(|b| b.len() == len);
        found.cloned().ok_or_else(|| Error::internal("nothing was put there"))
    }
}

/// A constant of a fragment that was put away.
struct Part {
    value: ValueId,
    dtype: DType,
    shape: Vec<usize>,
    at: u64,
    len: usize,
}

/// A candidate whose large constants lie on the shelf.
pub struct Offer {
    /// Everything but the large constants of the fragment, which are empty here.
    pub head: Candidate,
    parts: Vec<Part>,
}

impl Offer {
    /// Puts the constants away. Those the shelf does not take stay in memory.
    pub fn put(mut candidate: Candidate, shelf: &dyn Shelf) -> Offer {
        let large: Vec<(ValueId, Tensor)> = candidate
            .fragment
            .initializers()
            .filter(|(_, t)| t.dtype() != DType::String && t.stored_bytes() >= SMALL)
            .map(|(v, t)| (v, t.clone()))
            .collect();
        let mut parts = Vec::new();
        for (value, t) in large {
            let Ok(at) = shelf.put(t.bytes()) else { continue };
            parts.push(Part {
                value,
                dtype: t.dtype(),
                shape: t.shape().to_vec(),
                at,
                len: t.stored_bytes(),
            });
            candidate.fragment.set_constant(value, Tensor::vector::<u8>(Vec::new()));
        }
        Offer { head: candidate, parts }
    }

    /// The whole candidate.
    pub fn get(&self, shelf: &dyn Shelf) -> Result<Candidate> {
        let mut c = self.head.clone();
        for p in &self.parts {
            let t = Tensor::from_bytes(p.dtype, &p.shape, shelf.get(p.at, p.len)?)?;
            c.fragment.set_constant(p.value, t);
        }
        Ok(c)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lossy::Replaces;

    #[test]
    fn what_is_put_comes_back() {
        let mut fragment = ir::Graph::new("fragment");
        let big = fragment.add_initializer("w", Tensor::vector((0..5000).collect::<Vec<i32>>()));
        fragment.add_output("out", big);
        let c = Candidate {
            method: "int8",
            recipe: "int8".into(),
            replaces: Replaces::Weight,
            fragment,
            bias: None,
            bytes: 20_000,
            error: 0.5,
        };
        let shelf = Memory::default();
        let offer = Offer::put(c.clone(), &shelf);
        assert_eq!(offer.head.fragment.constant(big).unwrap().len(), 0);
        assert!(offer.get(&shelf).unwrap().fragment == c.fragment);
        assert!(shelf.get(7, 1).is_err());
    }
}
