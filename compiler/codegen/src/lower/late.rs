//! Nodes whose sizes follow from values, such as how many boxes were found: each becomes a program of its own once its
//! operands are there, where that is worth compiling.
//!
//! The program depends on the operands' types alone (and on values that decide the sizes of results), never on runs before,
//! so that a run gives the same bits whatever came before it.

use crate::packs::Packs;
use crate::program::Program;
use crate::{Loops, Precision, compile_sharing};
use ir::{DType, Graph, Node, Tensor, Value, ValueType};
use kernels::{Pool, Tier};
use std::sync::{Arc, Mutex};

/// Elements of operands and results below which the reference is done before a program is compiled.
const WORTH: usize = 1 << 14;
/// Programs kept for a node, those of the sets of sizes met last: each holds memory for a run.
const KEPT: usize = 2;
/// Longest list of integers that may decide sizes.
const LIST: usize = 16;

/// A node that may become a program when it runs.
pub struct Late {
    /// The node alone, its constants as initializers.
    graph: Graph,
    packs: Packs,
    how: (Tier, Precision),
    /// The last used first.
    made: Mutex<Vec<Made>>,
}

struct Made {
    types: Vec<ValueType>,
    lists: Vec<Option<Tensor>>,
    /// `None` where no kernel takes the node.
    program: Option<Arc<Program>>,
}

impl Late {
    /// `None` for what can be no program: nodes with subgraphs or operands of other kinds than tensors.
    pub fn of(graph: &Graph, node: &Node, how: (Tier, Precision)) -> Option<Late> {
        if !node.captures().is_empty() || !node.attrs.graphs().is_empty() {
            return None;
        }
        let mut g = Graph::new(&node.name);
        g.meta = graph.meta.clone();
        let mut inputs = Vec::new();
        for (i, v) in node.inputs().iter().enumerate() {
            let Some(v) = *v else {
                inputs.push(None);
                continue;
            };
            let name = format!("{i}");
            inputs.push(Some(match (graph.constant(v), graph.ty(v)) {
                (Some(t), _) => g.add_initializer(&name, t.clone()),
                (None, ValueType::Tensor(_)) => g.add_input(&name, ValueType::Unknown),
                _ => return None,
            }));
        }
        let names: Vec<String> = (0..node.outputs().len()).map(|i| format!("y{i}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let id = g.add_node(&node.name, node.op, node.attrs.clone(), &inputs, &names);
        let outputs = g.get(id)?.outputs().to_vec();
        for (i, o) in outputs.into_iter().enumerate() {
            g.add_output(&format!("y{i}"), o?);
        }
        let packs = Packs::default();
        packs.learn(&g);
        Some(Late { graph: g, packs, how, made: Mutex::default() })
    }

    /// The node's results, where a program gives them; the reference tells what is wrong with the values.
    pub fn run(&self, inputs: &[Option<Value>], pool: &dyn Pool) -> Option<Vec<Value>> {
        // The operands that are no constants, in their order.
        let node = self.graph.nodes().next()?.1;
        let open = node.inputs().iter().zip(inputs);
        let open = open.filter(|(v, _)| v.is_some_and(|v| self.graph.constant(v).is_none()));
        let tensors: Vec<&Tensor> = open.map(|(_, x)| x.as_ref()?.tensor().ok()).collect::<Option<_>>()?;
        if reach(tensors.iter().copied().chain(self.graph.initializers().map(|(_, t)| t))) < WORTH {
            return None;
        }
        let program = self.program(&tensors)?;
        let list = |t: &&&Tensor| program.1 && is_list(t);
        let values: Vec<Value> =
            tensors.iter().filter(|t| !list(t)).map(|t| Value::Tensor((*t).clone())).collect();
        program.0.run(&values, pool).ok()
    }

    /// The program for such operands, and whether lists of integers are compiled into it.
    fn program(&self, tensors: &[&Tensor]) -> Option<(Arc<Program>, bool)> {
        let types: Vec<ValueType> = tensors.iter().map(|t| ValueType::of(t)).collect();
        let mut made = self.made.lock().unwrap_or_else(|e| e.into_inner());
        let same = |m: &Made| {
            let list =
                |(l, t): (&Option<Tensor>, &&Tensor)| l.as_ref().is_none_or(|l| l.bytes() == t.bytes());
            m.types == types && m.lists.iter().zip(tensors).all(list)
        };
        if let Some(i) = made.iter().position(same) {
            let m = made.remove(i);
            made.insert(0, m);
        } else {
            let (program, listed) = match self.compiled(&types, &vec![None; types.len()]) {
                Ok(p) => (p, false),
                Err(Unsettled) => {
                    let lists: Vec<_> = tensors.iter().map(|t| is_list(t).then(|| (*t).clone())).collect();
                    (self.compiled(&types, &lists).ok().flatten(), true)
                }
            };
            let lists = tensors.iter().map(|t| (listed && is_list(t)).then(|| (*t).clone())).collect();
            made.insert(0, Made { types, lists, program });
            made.truncate(KEPT);
        }
        let m = made.first()?;
        Some((m.program.clone()?, m.lists.iter().any(Option::is_some)))
    }

    /// `None` where no kernel takes it or little is to do.
    fn compiled(
        &self,
        types: &[ValueType],
        lists: &[Option<Tensor>],
    ) -> Result<Option<Arc<Program>>, Unsettled> {
        let mut g = self.graph.clone();
        for (i, (t, l)) in types.iter().zip(lists).enumerate().rev() {
            let v = g.inputs()[i];
            g.set_type(v, t.clone());
            if let Some(l) = l {
                let k = g.add_initializer("list", l.clone());
                g.replace_uses(v, k);
                g.remove_input(i).map_err(|_| Unsettled)?;
            }
        }
        if ir::infer(&mut g).is_err() {
            return Ok(None);
        }
        let mut shapes = Vec::new();
        for t in g.outputs().iter().map(|o| g.ty(o.value)).chain(types) {
            shapes.push(t.concrete().ok_or(Unsettled)?);
        }
        let elements = shapes.iter().map(|s| ir::budget::elements(s));
        let Ok(elements) = elements.collect::<ir::Result<Vec<usize>>>() else { return Ok(None) };
        let constants = self.graph.initializers().map(|(_, t)| t.len());
        if elements.into_iter().chain(constants).fold(0, usize::saturating_add) < WORTH {
            return Ok(None);
        }
        let program = compile_sharing(&g, self.how.0, self.how.1, Loops::Generated, &self.packs).ok();
        // The reference gives values another shape without a copy.
        let kernels = |p: &Program| {
            let steps = p.steps();
            steps.iter().all(|s| s.is_sized()) && steps.iter().any(|s| s.kind != "view")
        };
        Ok(program.filter(kernels).map(Arc::new))
    }
}

/// The sizes of results follow from more than the operands' types.
struct Unsettled;

/// What the elements of operands and results may come to.
fn reach<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> usize {
    let (mut sum, mut largest, mut listed) = (0usize, [1usize; 2], 0usize);
    for t in tensors {
        sum = sum.saturating_add(t.len());
        largest = [largest[0].max(t.len()), largest[1].max(t.len().min(largest[0]))];
        if is_list(t) {
            let sizes =
                t.to_i64s().unwrap_or_default().into_iter().map(|x| usize::try_from(x).unwrap_or(1).max(1));
            listed = listed.max(sizes.fold(1, usize::saturating_mul));
        }
    }
    sum.max(listed).max(largest[0].saturating_mul(largest[1]))
}

/// Whether sizes may follow from a tensor's values.
fn is_list(t: &Tensor) -> bool {
    matches!(t.dtype(), DType::I64 | DType::I32) && t.len() <= LIST
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile;
    use ir::{Attrs, Evaluate, Feeds, ValueId};
    use kernels::Serial;

    fn op(name: &str) -> &'static dyn ir::Operator {
        ops::standard(name).unwrap()
    }

    fn filled(shape: &[usize], step: f32) -> Tensor {
        let n = shape.iter().product::<usize>();
        Tensor::new(shape, (0..n).map(|i| (i as f32 * step).sin()).collect()).unwrap()
    }

    /// Chosen rows of `x`, what `rest` makes of them.
    fn graph(rest: impl Fn(&mut Graph, ValueId) -> ValueId) -> Graph {
        let mut g = Graph::new("g");
        g.meta.opset = 21;
        let x = g.add_input("x", ValueType::known(DType::F32, &[400, 64]));
        let keep = g.add_input("keep", ValueType::known(DType::Bool, &[400]));
        let rows = g.apply("rows", op("Compress"), Attrs::new().with("axis", 0), &[x, keep]);
        let y = rest(&mut g, rows);
        g.add_output("y", y);
        ir::infer(&mut g).unwrap();
        g
    }

    fn product(g: &mut Graph, rows: ValueId) -> ValueId {
        let w = g.add_initializer("w", filled(&[64, 48], 0.37));
        g.apply("product", op("MatMul"), Attrs::new(), &[rows, w])
    }

    fn inputs(kept: usize) -> [Value; 2] {
        let keep = Tensor::new(&[400], (0..400).map(|i| i < kept).collect()).unwrap();
        [filled(&[400, 64], 0.11).into(), keep.into()]
    }

    /// Programs of any number of rows give what the reference does, whichever came before.
    #[test]
    fn what_was_chosen_runs_as_by_reference() {
        let reshaped = |g: &mut Graph, rows: ValueId| {
            let to = g.add_initializer("to", Tensor::vector(vec![8i64, -1]));
            let turned = g.apply("turned", op("Reshape"), Attrs::new(), &[rows, to]);
            g.apply("exp", op("Exp"), Attrs::new(), &[turned])
        };
        let expanded = |g: &mut Graph, rows: ValueId| {
            let sizes = g.apply("sizes", op("Shape"), Attrs::new(), &[rows]);
            let thrice = g.add_initializer("thrice", Tensor::vector(vec![3i64]));
            let to = g.apply("to", op("Concat"), Attrs::new().with("axis", 0), &[thrice, sizes]);
            g.apply("expanded", op("Expand"), Attrs::new(), &[rows, to])
        };
        for g in [graph(product), graph(reshaped), graph(expanded)] {
            let program = compile(&g).unwrap();
            assert!(program.steps().iter().any(|s| s.kind == crate::kernel::LATE));
            for kept in [400, 0, 296, 1, 400, 304] {
                let values = inputs(kept);
                let got = program.run(&values, &Serial).unwrap();
                let feeds =
                    Feeds::from([("x".into(), values[0].clone()), ("keep".into(), values[1].clone())]);
                let want = ir::Reference.run(&g, &feeds, &[]).unwrap().outputs;
                let (got, want) = (got[0].tensor().unwrap(), want[0].tensor().unwrap());
                assert_eq!(got.shape(), want.shape());
                let pairs = got.to_f32s().unwrap().into_iter().zip(want.to_f32s().unwrap());
                assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() <= 1e-4), "{kept}");
            }
        }
    }

    #[test]
    fn what_is_small_is_left_to_the_reference() {
        let g = graph(product);
        let (_, node) = g.nodes().find(|(_, n)| n.is("MatMul")).unwrap();
        let late = Late::of(&g, node, (Tier::best(), Precision::default())).unwrap();
        let rows = |n: usize| [Some(filled(&[n, 64], 0.2).into()), Some(filled(&[64, 48], 0.37).into())];
        let weights = 64 * 48;
        assert!(late.run(&rows(300), &Serial).is_some());
        assert!(late.run(&rows((WORTH - weights) / 112 - 1), &Serial).is_none());
        // Rows of another width fit no weight: the reference says so.
        assert!(late.run(&[Some(filled(&[300, 65], 0.2).into()), None], &Serial).is_none());
    }

    /// Sizes whose numbers of elements overflow are refused by the reference, in the same words.
    #[test]
    fn sizes_beyond_all_bounds_are_left_to_the_reference() {
        let mut g = Graph::new("g");
        g.meta.opset = 21;
        let x = g.add_input("x", ValueType::known(DType::F32, &[1]));
        let to = g.add_input("to", ValueType::known(DType::I64, &[3]));
        let y = g.apply("expanded", op("Expand"), Attrs::new(), &[x, to]);
        g.add_output("y", y);
        ir::infer(&mut g).unwrap();
        let inputs: [Value; 2] = [filled(&[1], 1.0).into(), Tensor::vector(vec![1i64 << 31; 3]).into()];
        let feeds = Feeds::from([("x".into(), inputs[0].clone()), ("to".into(), inputs[1].clone())]);
        let want = ir::Reference.run(&g, &feeds, &[]).err().map(|e| (e.blame, e.to_string()));
        let got = compile(&g).unwrap().run(&inputs, &Serial).err().map(|e| (e.blame, e.to_string()));
        assert!(want.is_some() && got == want, "{got:?} {want:?}");
    }

    #[test]
    fn programs_of_the_sizes_met_last_are_kept() {
        let g = graph(product);
        let (_, node) = g.nodes().find(|(_, n)| n.is("MatMul")).unwrap();
        let late = Late::of(&g, node, (Tier::best(), Precision::default())).unwrap();
        for n in 300..330 {
            let rows: Value = filled(&[n, 64], 0.2).into();
            let first = late.run(&[Some(rows.clone()), None], &Serial).unwrap();
            let again = late.run(&[Some(rows), None], &Serial).unwrap();
            assert_eq!(first[0].tensor().unwrap().bytes(), again[0].tensor().unwrap().bytes());
        }
        assert_eq!(late.made.lock().unwrap().len(), KEPT);
        let size = |m: &Made| m.types[0].concrete().unwrap()[0];
        assert_eq!(
            late.made.lock().unwrap().iter().map(size).collect::<Vec<_>>(),
            (330 - KEPT..330).rev().collect::<Vec<_>>()
        );
    }
}
