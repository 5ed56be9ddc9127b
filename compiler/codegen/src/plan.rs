//! The memory plan: one arena, each value placed for its lifetime only, and a checker that knows nothing of how.

use crate::lower::Step;
use ir::{Def, Error, Graph, Result, ValueId, budget};
use std::collections::BTreeMap;

/// Every buffer starts at a cache line.
const ALIGN: usize = 64;

/// Where a value lives during a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Arena(usize),
    Input(usize),
    Output(usize),
    /// An initializer.
    Constant,
    /// Boxed, by number: its shape is known only when it is there.
    Boxed(usize),
}

/// Places of all values, and the copies that make up outputs which share memory with something else.
#[derive(Debug, Clone)]
pub struct Plan {
    pub places: BTreeMap<ValueId, Place>,
    /// (output number, value to copy from).
    pub copies: Vec<(usize, ValueId)>,
    pub arena_bytes: usize,
    pub boxes: usize,
    /// (input number, box): inputs of unknown shape.
    pub boxed_inputs: Vec<(usize, usize)>,
}

/// Bytes of a value of known shape and a type that is stored whole bytes an element; `None` is boxed.
pub fn static_bytes(graph: &Graph, v: ValueId) -> Option<usize> {
    let t = graph.ty(v);
    let (dtype, shape) = (t.dtype()?, t.concrete()?);
    let elements = shape.iter().fold(1usize, |n, &d| n.saturating_mul(d));
    // Sums of a few such sizes still fit.
    let bytes = elements.saturating_mul(dtype.bits() / 8).min(usize::MAX / 16);
    (dtype.bits() >= 8).then_some(bytes)
}

/// The value whose memory `v` shares.
pub fn root(aliases: &BTreeMap<ValueId, ValueId>, mut v: ValueId) -> ValueId {
    while let Some(&r) = aliases.get(&v) {
        v = r;
    }
    v
}

struct Life {
    value: ValueId,
    bytes: usize,
    birth: usize,
    death: usize,
}

/// Plans memory for steps in order.
pub fn plan(graph: &Graph, steps: &[Step]) -> Result<Plan> {
    let aliases: BTreeMap<ValueId, ValueId> = steps.iter().filter_map(|s| s.alias).collect();
    let mut places = BTreeMap::new();
    let mut boxes = 0;
    let mut boxed_inputs = Vec::new();
    for v in graph.values() {
        if root(&aliases, v) != v {
            continue;
        }
        let place = match graph.def(v) {
            Def::Input(i) if static_bytes(graph, v).is_none() => {
                boxed_inputs.push((*i, boxes));
                boxes += 1;
                Place::Boxed(boxes - 1)
            }
            Def::Input(i) => Place::Input(*i),
            Def::Initializer(_) => Place::Constant,
            _ if static_bytes(graph, v).is_none() => {
                boxes += 1;
                Place::Boxed(boxes - 1)
            }
            _ => continue,
        };
        places.insert(v, place);
    }
    let mut copies = Vec::new();
    for (k, o) in graph.outputs().iter().enumerate() {
        let r = root(&aliases, o.value);
        match places.get(&r) {
            None => drop(places.insert(r, Place::Output(k))),
            Some(Place::Boxed(_)) => {}
            // Given as it is.
            Some(Place::Constant) if static_bytes(graph, r).is_none() => {}
            Some(_) => copies.push((k, r)),
        }
    }
    let mut lives: Vec<Life> = Vec::new();
    let mut index: BTreeMap<ValueId, usize> = BTreeMap::new();
    for (i, s) in steps.iter().enumerate().filter(|(_, s)| s.alias.is_none()) {
        for &v in &s.writes {
            if !places.contains_key(&v) {
                index.insert(v, lives.len());
                lives.push(Life { value: v, bytes: static_bytes(graph, v).unwrap_or(0), birth: i, death: i });
            }
        }
        for &v in &s.reads {
            if let Some(&l) = index.get(&root(&aliases, v)) {
                lives[l].death = i;
            }
        }
    }
    let (offsets, arena_bytes) = place(&lives)?;
    check(&lives, &offsets)?;
    for (l, o) in lives.iter().zip(offsets) {
        places.insert(l.value, Place::Arena(o));
    }
    for &v in aliases.keys() {
        let r = root(&aliases, v);
        let place = *places.get(&r).ok_or_else(|| Error::internal("a view of nothing"))?;
        places.insert(v, place);
    }
    Ok(Plan { places, copies, arena_bytes, boxes, boxed_inputs })
}

/// Largest first, each at the lowest offset where it meets no buffer alive at the same time.
fn place(lives: &[Life]) -> Result<(Vec<usize>, usize)> {
    let mut order: Vec<usize> = (0..lives.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(lives[i].bytes), i));
    let mut offsets = vec![0; lives.len()];
    // In order of offsets, so that a step with thousands of outputs is no matter of sorting them for each.
    let mut placed: Vec<usize> = Vec::new();
    let mut total = 0usize;
    for i in order {
        let mut at = 0;
        for &j in &placed {
            if lives[j].birth > lives[i].death || lives[i].birth > lives[j].death {
                continue;
            }
            if at + lives[i].bytes <= offsets[j] {
                break;
            }
            at = at.max(offsets[j] + lives[j].bytes.next_multiple_of(ALIGN));
        }
        offsets[i] = at;
        total = total.max(at.checked_add(lives[i].bytes).ok_or_else(|| Error::limit("the arena overflows"))?);
        placed.insert(placed.partition_point(|&j| offsets[j] <= at), i);
    }
    budget::check_total(total)?;
    Ok((offsets, total))
}

/// No two buffers alive at once overlap.
fn check(lives: &[Life], offsets: &[usize]) -> Result<()> {
    if !cfg!(debug_assertions) {
        return Ok(());
    }
    for (i, a) in lives.iter().enumerate() {
        for (j, b) in lives.iter().enumerate().skip(i + 1) {
            let together = a.birth <= b.death && b.birth <= a.death;
            let overlap = offsets[i] < offsets[j] + b.bytes && offsets[j] < offsets[i] + a.bytes;
            if together && overlap {
                return Err(Error::internal("the memory plan lets two live values overlap"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn live_buffers_never_overlap(sizes in prop::collection::vec((0usize..5000, 0usize..20, 0usize..10), 1..40)) {
            let mut g = Graph::new("t");
            let lives: Vec<Life> = sizes
                .iter()
                .map(|&(bytes, birth, len)| {
                    let value = g.add_input("x", ir::ValueType::Unknown);
                    Life { value, bytes, birth, death: birth + len }
                })
                .collect();
            let (offsets, total) = place(&lives).unwrap();
            prop_assert!(check(&lives, &offsets).is_ok());
            prop_assert!(lives.iter().zip(&offsets).all(|(l, o)| o + l.bytes <= total && o % ALIGN == 0));
        }
    }
}
