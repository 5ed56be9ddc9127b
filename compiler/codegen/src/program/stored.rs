//! Programs as bytes, and back: what a later process maps instead of compiling.

use super::{Action, Operand, OutputSlot, Prepared, Program, spares};
use crate::clif::Code;
use artefact::{Operand as Place, Plan, Port};
use ir::{DType, Shape};
use kernels::stored::{Reader, Stored, Writer};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// Kinds of steps, so that a stored one is found again.
const KINDS: &[&str] = &[
    "attention",
    "bf16 convolution",
    "bf16 product",
    "convolution",
    "copy",
    "dequantization",
    "fused loop",
    "integer convolution",
    "integer product",
    "low-rank product",
    "matrix product",
    "movement",
    "normalisation",
    "packed product",
    "pooling",
    "quantization",
    "recurrence",
    "reduction",
    "resize",
    "softmax",
    "sparse product",
    "transposed convolution",
    "vector function",
];

/// What profiles say of a step.
struct Label {
    name: String,
    op: String,
    kind: String,
    flops: f64,
    held_bytes: f64,
}

kernels::fields! { Label { name, op, kind, flops, held_bytes } }

/// Puts a value that borrows nothing.
fn small<T: Stored>(x: &T, out: &mut Writer) {
    let mut own = Writer::default();
    x.put(&mut own);
    out.stream.extend(own.stream);
}

impl Program {
    /// Writes the program; false, with nothing of use written, when some of its steps are no kernel calls, or its values
    /// have sizes that only a run knows.
    pub fn store<'a>(&'a self, out: &mut Writer<'a>) -> bool {
        let Some(texts) = self.code.texts() else { return false };
        let calls = self.steps.iter().all(|s| matches!(s.action, Action::Call(_)));
        if !calls || self.boxes > 0 || !self.boxed_inputs.is_empty() {
            return false;
        }
        let mut at: BTreeMap<usize, usize> = BTreeMap::new();
        for t in &self.constants {
            at.entry(t.bytes().as_ptr() as usize).or_insert_with(|| out.place(t.bytes()));
        }
        let place = |o: &Operand| -> Option<Place> {
            Some(match *o {
                Operand::Arena(at, bytes) => Place::Workspace { at, bytes },
                Operand::Input(at, bytes) => Place::Input { at, bytes },
                Operand::Output(at, bytes) => Place::Output { at, bytes },
                Operand::Constant(address, bytes) => Place::Constant { at: *at.get(&address)?, bytes },
                Operand::Boxed(_) => return None,
            })
        };
        let mut inputs: Vec<Port> = self.inputs.iter().map(|&bytes| Port { bytes, align: 1 }).collect();
        let mut results = Vec::new();
        for o in &self.outputs {
            let OutputSlot::Static(d, shape, bytes) = o else { return false };
            results.push((d.onnx(), shape.to_vec()));
            inputs.push(Port { bytes: *bytes, align: 1 });
        }
        let outputs = inputs.split_off(self.inputs.len());
        small(&results, out);
        out.stream.extend((self.steps.len() as u64).to_le_bytes());
        for s in &self.steps {
            s.name.put(out);
            s.op.put(out);
            small(&s.kind.to_string(), out);
            s.flops.put(out);
            s.held_bytes.put(out);
        }
        small(texts, out);
        // The fields of a plan, in its order.
        small(&inputs, out);
        small(&outputs, out);
        self.arena_bytes.put(out);
        small(&texts.len(), out);
        small(&Vec::<(usize, Vec<u8>)>::new(), out);
        out.stream.extend((self.steps.len() as u64).to_le_bytes());
        for s in &self.steps {
            let Action::Call(call) = &s.action else { return false };
            let Some(places) = s.operands.iter().map(place).collect::<Option<Vec<_>>>() else { return false };
            call.put(out);
            s.inputs.put(out);
            small(&places, out);
        }
        true
    }

    /// Reads a program for inputs of these many bytes. `None` for bytes that no program was stored as.
    pub fn load(from: &mut Reader, inputs: &[usize]) -> Option<Program> {
        let results = Vec::<(i32, Vec<usize>)>::take(from)?;
        let labels = Vec::<Label>::take(from)?;
        let texts = Vec::<Vec<u8>>::take(from)?;
        let constants = from.bulk.clone();
        let plan = Plan::take(from)?;
        let fits = plan.inputs.iter().map(|p| p.bytes).eq(inputs.iter().copied())
            && plan.is_sound(constants.bytes().len())
            && plan.loops == texts.len()
            && plan.steps.len() == labels.len()
            && plan.outputs.len() == results.len()
            && plan.fixed.is_empty()
            && from.stream.is_empty();
        if !fits || ir::budget::check(plan.workspace).is_err() {
            return None;
        }
        let mut outputs = Vec::new();
        for ((d, shape), port) in results.into_iter().zip(&plan.outputs) {
            let dtype = DType::from_onnx(d).filter(|d| d.bits() >= 8)?;
            let bytes = ir::budget::bytes(dtype, &shape).ok()?;
            if bytes != port.bytes {
                return None;
            }
            outputs.push(OutputSlot::Static(dtype, Shape::from_vec(shape), bytes));
        }
        let operand = |p: Place| match p {
            Place::Workspace { at, bytes } => Operand::Arena(at, bytes),
            Place::Input { at, bytes } => Operand::Input(at, bytes),
            Place::Output { at, bytes } => Operand::Output(at, bytes),
            Place::Constant { at, bytes } => Operand::Constant(constants.as_ptr() as usize + at, bytes),
        };
        let prepare = |(s, l): (artefact::Step, Label)| Prepared {
            kind: KINDS.iter().find(|k| **k == l.kind).copied().unwrap_or("kernel"),
            name: l.name,
            op: l.op,
            action: Action::Call(Box::new(s.call)),
            operands: s.operands.into_iter().map(operand).collect(),
            inputs: s.inputs,
            flops: l.flops,
            held_bytes: l.held_bytes,
        };
        Some(Program {
            inputs: plan.inputs.iter().map(|p| p.bytes).collect(),
            steps: plan.steps.into_iter().zip(labels).map(prepare).collect(),
            schedule: None,
            code: Code::mapped(texts)?,
            constants: Vec::new(),
            _bulk: Some(constants),
            arena_bytes: plan.workspace,
            boxes: 0,
            boxed_inputs: Vec::new(),
            spares: spares(&outputs),
            outputs,
            states: Mutex::new(Vec::new()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ir::{Attrs, Graph, Tensor, Value, ValueType};
    use kernels::Serial;

    /// A product, a generated loop over floats and one over integers, a table and two outputs.
    fn model() -> Graph {
        let op = |n: &str| ops::standard(n).unwrap();
        let mut g = Graph::new("g");
        let x = g.add_input("x", ValueType::known(DType::F32, &[2, 20]));
        let i = g.add_input("i", ValueType::known(DType::I64, &[2]));
        let w = Tensor::new(&[20, 33], (0..660).map(|i| (i % 7) as f32 - 3.0).collect()).unwrap();
        let w = g.add_initializer("w", w);
        let y = g.apply("y", op("MatMul"), Attrs::new(), &[x, w]);
        let z = g.apply("z", op("Mul"), Attrs::new(), &[y, y]);
        let z = g.apply("z2", op("Sub"), Attrs::new(), &[z, y]);
        let j = g.apply("j", op("Add"), Attrs::new(), &[i, i]);
        let t = g.add_initializer("t", Tensor::new(&[9, 17], (0..153).map(|i| i as f32).collect()).unwrap());
        let p = g.apply("p", op("Gather"), Attrs::new(), &[t, j]);
        for (n, v) in [("z", z), ("p", p)] {
            g.add_output(n, v);
        }
        ir::infer(&mut g).unwrap();
        g
    }

    fn run(p: &Program) -> Vec<Value> {
        let x = Tensor::new(&[2, 20], (0..40).map(|i| i as f32 / 8.0).collect()).unwrap();
        let i = Tensor::vector(vec![1i64, 4]);
        p.run(&[Value::Tensor(x), Value::Tensor(i)], &Serial).unwrap()
    }

    #[test]
    fn a_stored_program_gives_the_same() {
        let p = crate::compile(&model()).unwrap();
        let mut w = Writer::default();
        assert!(p.store(&mut w));
        let sizes = [2 * 20 * 4, 2 * 8];
        let read = Program::load(&mut Reader { stream: &w.stream, bulk: w.copied() }, &sizes).unwrap();
        assert_eq!(run(&read), run(&p));
        assert_eq!(read.steps().len(), p.steps().len());
        for (a, b) in read.steps().iter().zip(p.steps()) {
            assert_eq!((&a.name, a.kind, a.bytes), (&b.name, b.kind, b.bytes));
        }
        for cut in (0..w.stream.len()).step_by(7) {
            let stream = &w.stream[..cut];
            assert!(Program::load(&mut Reader { stream, bulk: w.copied() }, &sizes).is_none());
        }
        assert!(Program::load(&mut Reader { stream: &w.stream, bulk: w.copied() }, &[160, 24]).is_none());
        let short = w.copied().part(0, w.bulk_len() - 4).unwrap();
        assert!(Program::load(&mut Reader { stream: &w.stream, bulk: short }, &sizes).is_none());
    }

    #[test]
    fn what_runs_by_reference_is_not_stored() {
        let mut g = Graph::new("g");
        let x = g.add_input("x", ValueType::known(DType::F32, &[4]));
        let y = g.apply("y", ops::standard("NonZero").unwrap(), Attrs::new(), &[x]);
        g.add_output("y", y);
        ir::infer(&mut g).unwrap();
        assert!(!crate::compile(&g).unwrap().store(&mut Writer::default()));
    }
}
