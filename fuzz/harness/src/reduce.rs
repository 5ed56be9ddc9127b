//! Makes a failing pair small: fewer passes, nodes, dims, attributes, and plainer constants, while the same oracle objects
//! after the same pass.

use crate::check::{Finding, check};
use crate::mutate::tensors::{resize, sizes};
use crate::mutate::{forget_types, scales_are_sane, tensors_of};
use crate::pair::Pair;
use crate::passes::{Pass, Pipeline};
use ir::{Graph, NodeId, Tensor, ValueId, ValueType};
use std::time::{Duration, Instant};

/// Longest text of a test that holds the graph inline.
const INLINE: usize = 24 << 10;

struct Reducer {
    pair: Pair,
    finding: Finding,
    until: Instant,
    fails: fn(&Pair) -> Option<Finding>,
}

/// The smallest pair found within `time` that fails as this one does, and what it fails with; `None` if nothing fails.
pub fn reduce(pair: Pair, time: Duration) -> Option<(Pair, Finding)> {
    reduce_by(pair, time, |p| check(p).err())
}

fn reduce_by(pair: Pair, time: Duration, fails: fn(&Pair) -> Option<Finding>) -> Option<(Pair, Finding)> {
    let finding = fails(&pair)?;
    let mut r = Reducer { pair, finding, until: Instant::now() + time, fails };
    r.run();
    Some((r.pair, r.finding))
}

/// Whether two findings are of one cause, as far as can be told: the same oracle and pass, and for panics the same place.
fn alike(a: &Finding, b: &Finding) -> bool {
    let place = |f: &Finding| f.message.rsplit_once(" at ").map(|(_, p)| p.to_string());
    (a.oracle, a.pass) == (b.oracle, b.pass) && (a.oracle != "panic" || place(a) == place(b))
}

impl Reducer {
    /// Takes the pair over if it still fails alike.
    fn accept(&mut self, pair: Pair) -> bool {
        if Instant::now() > self.until {
            return false;
        }
        match (self.fails)(&pair) {
            Some(f) if alike(&f, &self.finding) => {
                (self.pair, self.finding) = (pair, f);
                true
            }
            _ => false,
        }
    }

    fn accept_graph(&mut self, edit: impl FnOnce(&mut Graph) -> Option<()>) -> bool {
        let mut g = self.pair.graph.clone();
        if edit(&mut g).is_none() || g.order().is_err() {
            return false;
        }
        g.prune();
        forget_types(&mut g);
        let Ok(mut g) = g.compacted() else { return false };
        if ir::infer(&mut g).is_err() || g.node_count() == 0 || !scales_are_sane(&g) {
            return false;
        }
        let pipeline = self.pair.pipeline.clone();
        self.accept(Pair { graph: g, pipeline })
    }

    fn run(&mut self) {
        loop {
            let before = self.size();
            self.passes();
            self.outputs();
            self.nodes();
            self.inputs();
            self.attributes();
            self.dims();
            self.constants();
            if self.size() == before || Instant::now() > self.until {
                return;
            }
        }
    }

    fn size(&self) -> (usize, usize, usize, usize) {
        let g = &self.pair.graph;
        let attrs = g.nodes().map(|(_, n)| n.attrs.len()).sum();
        let elements =
            g.values().filter_map(|v| g.ty(v).concrete()).map(|s| s.iter().product::<usize>()).sum();
        (self.pair.pipeline.print().len(), g.node_count(), attrs, elements)
    }

    fn passes(&mut self) {
        let mut i = 0;
        while i < self.pair.pipeline.passes.len() {
            let mut p = self.pair.clone();
            p.pipeline.passes.remove(i);
            if !self.accept(p) {
                i += 1;
            }
        }
        for i in 0..self.pair.pipeline.passes.len() {
            let Pass::Exact { without, order, .. } = self.pair.pipeline.passes[i].clone() else { continue };
            let mut change = |edit: &dyn Fn(&mut Vec<String>, &mut u64)| {
                let mut p = self.pair.clone();
                if let Pass::Exact { without, order, .. } = &mut p.pipeline.passes[i] {
                    edit(without, order);
                }
                self.accept(p)
            };
            if order != 0 {
                change(&|_, o| *o = 0);
            }
            for name in &without {
                change(&|w, _| w.retain(|x| x != name));
            }
        }
        for seed in [1, 2] {
            if self.pair.pipeline.seed > seed {
                let mut p = self.pair.clone();
                p.pipeline.seed = seed;
                self.accept(p);
            }
        }
    }

    /// One output, as early as possible.
    fn outputs(&mut self) {
        let Ok(order) = self.pair.graph.order() else { return };
        let values: Vec<ValueId> = order
            .iter()
            .filter_map(|&n| self.pair.graph.get(n))
            .flat_map(|n| n.outputs())
            .flatten()
            .copied()
            .collect();
        let names: Vec<String> = values.iter().map(|&v| self.pair.graph.value_name(v).to_string()).collect();
        for name in names {
            let done = self.accept_graph(|g| {
                let v = g.find(&name)?;
                let before = g.outputs().to_vec();
                g.set_outputs(Vec::new());
                g.add_output("y", v);
                (before.len() > 1 || before.first().is_none_or(|o| o.value != v)).then_some(())
            });
            if done {
                return;
            }
        }
    }

    /// Each node goes, last ones first: what it gave is one of its inputs, a constant, or an input of the graph.
    fn nodes(&mut self) {
        let names = |g: &Graph| -> Vec<String> {
            let order = g.order().unwrap_or_default();
            order.iter().filter_map(|&n| g.get(n)?.output(0)).map(|v| g.value_name(v).to_string()).collect()
        };
        for name in names(&self.pair.graph).into_iter().rev() {
            let known = tensors_of(&self.pair.graph, &self.pair.feeds());
            let find = |g: &Graph| -> Option<(ValueId, NodeId)> {
                let v = g.find(&name)?;
                Some((v, g.producer(v)?))
            };
            let inputs = find(&self.pair.graph)
                .and_then(|(_, n)| Some(self.pair.graph.get(n)?.inputs().len()))
                .unwrap_or(0);
            let mut gone = false;
            for i in 0..inputs {
                gone = gone
                    || self.accept_graph(|g| {
                        let (v, n) = find(g)?;
                        let x = g.get(n)?.input(i)?;
                        (g.ty(x) == g.ty(v)).then(|| g.replace_uses(v, x))
                    });
            }
            gone = gone
                || self.accept_graph(|g| {
                    let (v, _) = find(g)?;
                    let ty = g.ty(v).clone();
                    ty.concrete()?;
                    let x = g.add_input("x", ty);
                    g.replace_uses(v, x);
                    Some(())
                });
            if !gone {
                self.accept_graph(|g| {
                    let (v, _) = find(g)?;
                    let t = known.iter().find(|(k, _)| *k == v)?.1.clone();
                    let c = g.add_initializer("c", t);
                    g.replace_uses(v, c);
                    Some(())
                });
            }
        }
    }

    /// Inputs that nothing reads go.
    fn inputs(&mut self) {
        self.accept_graph(|g| {
            let unread = g.inputs().iter().any(|&v| g.uses(v).is_empty());
            unread.then(|| crate::mutate::drop_unread_inputs(g))
        });
    }

    fn attributes(&mut self) {
        let all: Vec<(NodeId, String)> = self
            .pair
            .graph
            .nodes()
            .flat_map(|(id, n)| n.attrs.iter().map(move |(a, _)| (id, a.to_string())).collect::<Vec<_>>())
            .collect();
        for (id, name) in all {
            self.accept_graph(|g| g.node_mut(id).ok()?.1.remove(&name).map(drop));
        }
    }

    fn dims(&mut self) {
        for from in sizes(&self.pair.graph).into_iter().rev() {
            for to in [1, 2, 3, from / 2, from.saturating_sub(1)] {
                if to < from && to > 0 && self.accept_graph(|g| resize(g, from, to)) {
                    break;
                }
            }
        }
    }

    /// Zeros, ones, small whole numbers, one value everywhere.
    fn constants(&mut self) {
        let names: Vec<String> =
            self.pair.graph.initializers().map(|(v, _)| self.pair.graph.value_name(v).to_string()).collect();
        for name in names {
            for simpler in 0..4 {
                let done = self.accept_graph(|g| {
                    let v = g.find(&name)?;
                    let t = g.constant(v)?.clone();
                    let new = plainer(&t, simpler)?;
                    (new != t).then(|| g.set_constant(v, new))
                });
                if done {
                    break;
                }
            }
        }
    }
}

fn plainer(t: &Tensor, step: usize) -> Option<Tensor> {
    let same = |x: f64| -> Option<Tensor> {
        let n = t.len();
        Tensor::from_f64s(t.dtype(), t.shape(), vec![x; n])
            .or_else(|_| Tensor::from_i64s(t.dtype(), t.shape(), vec![x as i64; n]))
            .ok()
    };
    match step {
        0 => same(0.0),
        1 => same(1.0),
        2 => same(*t.to_f64s().ok()?.first()?),
        _ if t.dtype().is_float() => {
            let data =
                t.to_f64s().ok()?.into_iter().map(|x| if x.is_finite() { x.round() } else { x }).collect();
            Tensor::from_f64s(t.dtype(), t.shape(), data).ok()
        }
        _ => None,
    }
}

/// A test that fails as long as the pair does. A graph whose text is long is read from `file` instead.
pub fn regression(pair: &Pair, finding: &Finding, name: &str, file: &str) -> String {
    let passes = pair.pipeline.print();
    let graph = match ir::text::print(&pair.graph) {
        Ok(t) if t.len() <= INLINE && !t.contains("\"##") => format!("r##\"{t}\"##"),
        _ => format!("harness::reduce::text(include_bytes!(\"{file}\"))"),
    };
    format!(
        "/// {}\n#[test]\nfn {name}() {{\n    harness::reduce::replay(\n        {graph},\n        r#\"{}\"#,\n    );\n}}\n",
        finding.to_string().replace('\n', " "),
        passes.trim_end()
    )
}

/// The text of a model file.
///
/// # Panics
/// When it is none.
pub fn text(model: &[u8]) -> String {
    let graph = onnx::from_bytes(model.to_vec(), &ops::Standard).unwrap_or_else(|e| panic!("{e}")).graph;
    ir::text::print(&graph).unwrap_or_else(|e| panic!("{e}"))
}

/// Runs a pair that was found once.
///
/// # Panics
/// With the finding if it is back, and when the pair does not run at all.
pub fn replay(graph: impl AsRef<str>, passes: &str) {
    crate::check::set_limits();
    let graph = ir::text::parse(graph.as_ref(), &ops::Standard).unwrap_or_else(|e| panic!("{e}"));
    let pipeline = Pipeline::parse(passes).unwrap_or_else(|e| panic!("{e}"));
    let ran = check(&Pair { graph, pipeline }).unwrap_or_else(|f| panic!("{f}"));
    assert!(ran.valid, "the graph does not run");
}

/// Whether a graph has an input without a type, which fuzzing cannot feed.
pub fn untyped(g: &Graph) -> Option<&str> {
    let bad = |v: &&ValueId| !matches!(g.ty(**v), ValueType::Tensor(t) if t.shape.is_some());
    g.inputs().iter().find(bad).map(|&v| g.value_name(v))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::{Growth, Level};

    /// A made-up bug: whoever sees a Relu of a MatMul objects.
    fn objects(p: &Pair) -> Option<Finding> {
        let g = &p.graph;
        let bad = g.nodes().any(|(_, n)| {
            n.is("Relu") && n.input(0).and_then(|v| g.get(g.producer(v)?)).is_some_and(|m| m.is("MatMul"))
        });
        let at = p.pipeline.passes.iter().position(|x| matches!(x, Pass::Fold))?;
        bad.then(|| Finding { oracle: "answers", at, pass: "fold", message: "1 against 2".into() })
    }

    #[test]
    fn a_failing_pair_becomes_minimal() {
        let text = r#"g (float[5,16] x) => (a, b) <float[16,7] w = ["location": "fill:normal:1"], float[7] c = ["location": "fill:normal:2"]> {
            s = Sigmoid (x)
            m = MatMul (s, w)
            r = Relu (m)
            a = Add (r, c)
            t = Tanh (x)
            b = Softmax <axis = 1> (t)
        }"#;
        let mut graph = ir::text::parse(text, &ops::Standard).unwrap();
        ir::infer(&mut graph).unwrap();
        let passes = vec![Pass::File, Pass::exact(Level::Portable, Growth::Never), Pass::Fold, Pass::RUN];
        let pair = Pair { graph, pipeline: Pipeline::new(9, passes) };
        let (small, f) = reduce_by(pair, Duration::from_secs(30), objects).unwrap();
        assert_eq!(small.pipeline.passes, [Pass::Fold]);
        assert_eq!(small.graph.node_count(), 2);
        assert_eq!(sizes(&small.graph), [1]);
        let test = regression(&small, &f, "relu_of_a_product", "x.onnx");
        assert!(test.contains("Relu") && test.contains("name = \"fold\""), "{test}");
    }
}
