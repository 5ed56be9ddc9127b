//! Where candidates wait until they are chosen: their constants are put away, so that memory does not grow with the
//! number of candidates.

use ir::{Bytes, DType, Error, Result, Tensor, ValueId};
use lossy::{Candidate, Common, Replaces};
use serde_json::json;
use std::sync::{Arc, Mutex};

/// Constants below this size stay in memory.
const SMALL: usize = 1 << 12;

/// A place for bytes that are not needed now.
pub trait Shelf: Send + Sync {
    /// Keeps `bytes` and tells where.
    fn put(&self, bytes: &[u8]) -> Result<u64>;
    /// The `len` bytes that were put at `at`.
    fn get(&self, at: u64, len: usize) -> Result<Arc<dyn Bytes>>;
    /// What an earlier run that was killed noted under `key`.
    fn noted(&self, _key: &str) -> Option<String> {
        None
    }
    /// Notes for a later run that continues this one. All that was put before is kept with it.
    fn note(&self, _key: &str, _text: &str) {}
}

/// A shelf in memory, for small models and tests.
#[derive(Default)]
pub struct Memory(Mutex<Vec<Arc<Vec<u8>>>>);

impl Shelf for Memory {
    fn put(&self, bytes: &[u8]) -> Result<u64> {
        let mut all = self.0.lock().unwrap_or_else(|e| e.into_inner());
        all.push(Arc::new(bytes.to_vec()));
        Ok(all.len() as u64 - 1)
    }

    fn get(&self, at: u64, len: usize) -> Result<Arc<dyn Bytes>> {
        let all = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let found = usize::try_from(at).ok().and_then(|i| all.get(i)).filter(|b| b.len() == len);
        found.map(|b| Arc::clone(b) as Arc<dyn Bytes>).ok_or_else(|| Error::internal("nothing was put there"))
    }
}

/// A constant of a fragment that was put away.
#[derive(Clone)]
struct Part {
    value: ValueId,
    dtype: DType,
    shape: Vec<usize>,
    at: u64,
    len: usize,
}

/// A candidate whose large constants lie on the shelf.
#[derive(Clone)]
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

    /// The candidate as text for [`Offer::read`]; its large constants stay where they are.
    pub fn print(&self) -> Result<serde_json::Value> {
        let c = &self.head;
        // Values have no numbers in the text: a constant is told by its place among all.
        let place = |v: ValueId| c.fragment.initializers().position(|(w, _)| w == v);
        let parts: Vec<serde_json::Value> = self
            .parts
            .iter()
            .map(|p| json!([place(p.value), p.dtype.onnx(), p.shape, p.at, p.len]))
            .collect();
        Ok(json!({
            "recipe": c.recipe,
            "method": c.method,
            "node": c.replaces == Replaces::Node,
            "fragment": ir::text::print(&c.fragment)?,
            "bias": c.bias.as_ref().map(|b| b.iter().map(|x| x.to_bits()).collect::<Vec<u32>>()),
            "bytes": c.bytes,
            "common": c.common.map(|c| json!([c.id, c.members, c.bytes])),
            "error": c.error.to_bits(),
            "parts": parts,
        }))
    }

    /// The inverse of [`Offer::print`]; `None` when the text is not of this program's version.
    pub fn read(text: &serde_json::Value, shelf: &dyn Shelf) -> Option<Offer> {
        let fragment = ir::text::parse(text["fragment"].as_str()?, &ops::Standard).ok()?;
        let places: Vec<ValueId> = fragment.initializers().map(|(v, _)| v).collect();
        let mut parts = Vec::new();
        for p in text["parts"].as_array()? {
            let number = |i: usize| p[i].as_u64();
            let narrow = |i: usize| number(i).and_then(|n| usize::try_from(n).ok());
            let shape = p[2].as_array()?.iter().map(|d| usize::try_from(d.as_u64()?).ok());
            let part = Part {
                value: *places.get(narrow(0)?)?,
                dtype: DType::from_onnx(i32::try_from(number(1)?).ok()?)?,
                shape: shape.collect::<Option<_>>()?,
                at: number(3)?,
                len: narrow(4)?,
            };
            shelf.get(part.at, part.len).ok()?;
            parts.push(part);
        }
        let bits = |b: &serde_json::Value| Some(f32::from_bits(u32::try_from(b.as_u64()?).ok()?));
        let bias = match &text["bias"] {
            serde_json::Value::Null => None,
            list => Some(list.as_array()?.iter().map(bits).collect::<Option<Vec<f32>>>()?),
        };
        let common = match &text["common"] {
            serde_json::Value::Null => None,
            c => Some(Common {
                id: c[0].as_u64()?,
                members: usize::try_from(c[1].as_u64()?).ok()?,
                bytes: c[2].as_u64()?,
            }),
        };
        let head = Candidate {
            method: lossy::methods::find(text["method"].as_str()?)?.name(),
            recipe: text["recipe"].as_str()?.to_string(),
            replaces: if text["node"].as_bool()? { Replaces::Node } else { Replaces::Weight },
            fragment,
            bias,
            bytes: text["bytes"].as_u64()?,
            common,
            error: f64::from_bits(text["error"].as_u64()?),
        };
        Some(Offer { head, parts })
    }

    /// The whole candidate.
    pub fn get(&self, shelf: &dyn Shelf) -> Result<Candidate> {
        let mut c = self.head.clone();
        for p in &self.parts {
            let t = Tensor::mapped(p.dtype, &p.shape, shelf.get(p.at, p.len)?, 0)?;
            c.fragment.set_constant(p.value, t);
        }
        Ok(c)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            common: Some(Common { id: u64::MAX, members: 3, bytes: 70 }),
            error: 0.5,
        };
        let shelf = Memory::default();
        let offer = Offer::put(c.clone(), &shelf);
        assert_eq!(offer.head.fragment.constant(big).unwrap().len(), 0);
        assert!(offer.get(&shelf).unwrap().fragment == c.fragment);
        assert!(shelf.get(7, 1).is_err());
        let text = serde_json::from_str(&offer.print().unwrap().to_string()).unwrap();
        let back = Offer::read(&text, &shelf).unwrap();
        assert!(back.get(&shelf).unwrap().fragment == c.fragment);
        assert_eq!((back.head.bytes, back.head.error, back.head.bias), (c.bytes, c.error, c.bias));
        assert_eq!(back.head.common, c.common);
        assert!(Offer::read(&text, &Memory::default()).is_none());
    }
}
