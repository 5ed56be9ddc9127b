//! Packed weights that the programs of one model share: only the first for a set of shapes packs them.

use ir::{Attr, Graph, Tensor, ValueId};
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard};

/// Where the bytes of a tensor lie, and how many.
type Place = (usize, usize);

fn place(t: &Tensor) -> Place {
    (t.bytes().as_ptr() as usize, t.bytes().len())
}

/// What was packed of the weights of a model, by weight and form.
///
/// A weight is told by where its bytes lie, so only those of graphs that outlive this are kept, and none that rewriting
/// made for one program.
#[derive(Default)]
pub struct Packs {
    known: Mutex<BTreeSet<Place>>,
    made: Mutex<BTreeMap<(String, String), Box<dyn Any + Send>>>,
}

fn open<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(|e| e.into_inner())
}

impl Packs {
    /// From now on the weights of `graph` may be shared. It has to live as long as `self`.
    pub fn learn(&self, graph: &Graph) {
        open(&self.known).extend(graph.initializers().map(|(_, t)| place(t)).filter(|p| p.1 > 0));
    }

    /// What tells a weight, an initializer or an expression of some, from all others; `None` where it may not be shared.
    fn name(&self, graph: &Graph, v: ValueId) -> Option<String> {
        let known = open(&self.known);
        let of = |t: &Tensor| {
            Some(place(t))
                .filter(|p| known.contains(p))
                .map(|p| format!("{p:?}{:?}{:?}", t.dtype(), t.shape()))
        };
        if let Some(t) = graph.constant(v) {
            return of(t);
        }
        let mut name = String::new();
        let mut made: Vec<ValueId> = Vec::new();
        for id in graph.expression(v)? {
            let n = graph.get(id)?;
            if n.attrs.iter().any(|(_, a)| {
                matches!(a, Attr::Tensor(_) | Attr::Tensors(_) | Attr::Graph(_) | Attr::Graphs(_))
            }) {
                return None;
            }
            name += &format!("{}{:?}(", ir::qualified(n.op), n.attrs);
            for x in n.inputs() {
                name += &match x {
                    None => "-".to_string(),
                    Some(x) => match made.iter().position(|m| m == x) {
                        Some(i) => format!("%{i}"),
                        None => of(graph.constant(*x)?)?,
                    },
                };
                name.push(',');
            }
            name.push(')');
            made.extend(n.outputs().iter().flatten());
        }
        Some(name)
    }

    /// What `pack` makes of a weight in a form, or made of it for another program.
    pub(crate) fn get<T: Clone + Send + 'static>(
        &self,
        (graph, v): (&Graph, ValueId),
        form: &dyn Debug,
        pack: impl FnOnce() -> Option<T>,
    ) -> Option<T> {
        let Some(name) = self.name(graph, v) else { return pack() };
        let key = (name, format!("{}{form:?}", std::any::type_name::<T>()));
        if let Some(made) = open(&self.made).get(&key).and_then(|m| m.downcast_ref::<T>()) {
            return Some(made.clone());
        }
        let packed = pack()?;
        open(&self.made).insert(key, Box::new(packed.clone()));
        Some(packed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Loops, Precision, compile_sharing};
    use ir::{Value, ValueType};
    use kernels::{Serial, Tier};

    const MODEL: &str = r#"case (float[?, 4] x) => (float[?, 3] y) <
   float[4, 8] a = {1,2,3,4,5,6,7,8,-1,-2,-3,-4,-5,-6,-7,-8,2,1,2,1,2,1,2,1,0,1,0,1,0,1,0,1},
   uint8[8, 3] q = {1,2,3,4,5,6,7,8,9,9,8,7,6,5,4,3,2,1,1,2,3,4,5,6}, float scale = {0.5}, uint8 zero = {4}> {
   h = MatMul (x, a)
   w = DequantizeLinear (q, scale, zero)
   y = MatMul (h, w)
}
"#;

    fn of_rows(graph: &Graph, rows: usize, packs: &Packs) -> Vec<f32> {
        let mut g = graph.clone();
        ir::forget_shapes(&mut g);
        g.set_type(g.inputs()[0], ValueType::known(ir::DType::F32, &[rows, 4]));
        ir::infer(&mut g).unwrap();
        let program = compile_sharing(&g, Tier::best(), Precision::Float32, Loops::Generated, packs).unwrap();
        let x = Tensor::new(&[rows, 4], (0..4 * rows).map(|i| i as f32 - 3.0).collect::<Vec<_>>()).unwrap();
        let y = program.run(&[Value::Tensor(x)], &Serial).unwrap();
        y[0].tensor().unwrap().to_f32s().unwrap()
    }

    /// Each weight is packed for the first shape alone, and the answers are those of programs by themselves.
    #[test]
    fn programs_for_other_shapes_share_packed_weights() {
        let graph = ir::text::parse(MODEL, &ops::Standard).unwrap();
        let packs = Packs::default();
        packs.learn(&graph);
        for rows in [9, 17, 33, 9] {
            assert_eq!(of_rows(&graph, rows, &packs), of_rows(&graph, rows, &Packs::default()));
            assert_eq!(open(&packs.made).len(), 2);
        }
    }

    #[test]
    fn weights_of_other_graphs_are_packed_each_time() {
        let graph = ir::text::parse(MODEL, &ops::Standard).unwrap();
        let packs = Packs::default();
        of_rows(&graph, 9, &packs);
        assert!(open(&packs.made).is_empty());
    }

    #[test]
    fn forms_and_kinds_are_told_apart() {
        let graph = ir::text::parse(MODEL, &ops::Standard).unwrap();
        let packs = Packs::default();
        packs.learn(&graph);
        let (a, _) = graph.initializers().find(|(v, _)| graph.value_name(*v) == "a").unwrap();
        let mut made = 0;
        let mut get = |form: &str, x: u8| {
            packs.get((&graph, a), &form, || {
                made += 1;
                Some(x)
            })
        };
        assert_eq!([get("one", 1), get("one", 2), get("two", 3)], [Some(1), Some(1), Some(3)]);
        assert_eq!(made, 2);
        assert_eq!(packs.get((&graph, a), &"one", || Some('c')), Some('c'));
        assert_eq!(packs.get((&graph, a), &"none", || None::<u8>), None);
    }
}
