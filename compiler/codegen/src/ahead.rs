//! A graph compiled ahead of time: the steps of a program as data, in an object that carries its kernels.

mod header;
mod merge;

use crate::clif::{Assembler, Image};
use crate::lower::{Step, Work, lower_ahead};
use crate::plan::{Place, Plan as Memory, plan, static_bytes};
use crate::{group, layout, stored};
use artefact::{Blob, Call, Field, Operand, Plan};
use ir::{Error, Graph, Result, Tensor, ValueId};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// Constants start at multiples of this.
const ALIGN: usize = 64;

/// Bytes that generated code and kernels read.
#[derive(Default)]
pub struct Constants {
    bytes: Vec<u8>,
    tensors: BTreeMap<ValueId, Blob>,
}

impl Constants {
    fn add(&mut self, bytes: &[u8]) -> Blob {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN), 0);
        let blob = Blob { offset: self.bytes.len(), bytes: bytes.len() };
        self.bytes.extend(bytes);
        blob
    }

    /// Weights of a kernel.
    pub fn floats(&mut self, x: &[f32]) -> Blob {
        self.add(bytemuck::cast_slice(x))
    }

    fn tensor(&mut self, v: ValueId, t: &Tensor) -> Blob {
        if let Some(b) = self.tensors.get(&v) {
            return *b;
        }
        let b = self.add(t.bytes());
        self.tensors.insert(v, b);
        b
    }
}

/// A model as an object file and the C header that declares it.
pub struct Artefact {
    pub object: Vec<u8>,
    pub header: String,
    /// Bytes of working memory that a run is given.
    pub workspace: usize,
    /// The one exported symbol.
    pub symbol: String,
}

/// Compiles a graph whose inputs have known shapes. `name` is a C identifier; `kernels` is the object of the crate
/// `artefact` for this machine.
///
/// # Errors
/// `Unsupported` when some nodes have no call that an artefact can make; all are named.
pub fn build(graph: &Graph, name: &str, kernels: &[u8]) -> Result<Artefact> {
    crate::countable(graph)?;
    let mut graph = layout::to_channels_last(graph)?;
    stored::settle_all(&mut graph)?;
    let groups = group::form(&graph, &BTreeSet::new())?;
    let constants = RefCell::new(Constants::default());
    let steps = lower_ahead(&graph, groups, &constants)?;
    let memory = plan(&graph, &steps)?;
    refuse(&graph, &steps)?;
    let mut constants = constants.into_inner();
    let mut code = Assembler::object(name)?;
    let rows = steps.iter().filter(|s| matches!(s.work, Work::Rows(_))).count();
    let mut made = Vec::new();
    for s in &steps {
        let call = match (&s.work, &s.call) {
            (Work::View, _) => continue,
            (Work::Rows(r), _) => r.call(code.add_loop(&r.body)?),
            (Work::Typed(t), _) => t.call(rows + code.add_typed(t.body())?),
            (Work::Kernel(_), Some(c)) => c.clone(),
            (Work::Kernel(_), None) => return Err(Error::internal("a step without a call")),
        };
        let all = s.reads.iter().chain(&s.writes);
        let operands =
            all.map(|&v| operand(&graph, &steps, &memory, &mut constants, v)).collect::<Result<_>>()?;
        made.push(artefact::Step { call, inputs: s.reads.len(), operands });
    }
    for &(k, v) in &memory.copies {
        let from = operand(&graph, &steps, &memory, &mut constants, v)?;
        let bytes = static_bytes(&graph, graph.outputs()[k].value).unwrap_or(0);
        let operands = vec![from, Operand::Output { at: k, bytes }];
        made.push(artefact::Step { call: Call::Copy, inputs: 1, operands });
    }
    let values = graph.inputs().iter().copied().chain(graph.outputs().iter().map(|o| o.value));
    let ports: Vec<usize> =
        values.map(|v| graph.dtype(v).map_or(1, |d| (d.bits() / 8).clamp(1, 8))).collect();
    let image = |plan: Plan| {
        let mut bytes = Vec::new();
        plan.put(&mut bytes);
        bytes
    };
    let count = ports.len();
    let plan = image(Plan { inputs: graph.inputs().len(), ports, steps: made });
    let product = code.finish_object(name, Image { constants: constants.bytes, plan, ports: count })?;
    let object = merge::with_kernels(product.object, kernels)?;
    let workspace = memory.arena_bytes.max(1);
    let header = header::header(&graph, name, workspace)?;
    Ok(Artefact { object, header, workspace, symbol: format!("{name}_run") })
}

/// An error that names what an artefact cannot do.
fn refuse(graph: &Graph, steps: &[Step]) -> Result<()> {
    let moving = |v: &ValueId| static_bytes(graph, *v).is_none();
    let mut bad: Vec<String> = Vec::new();
    for s in steps.iter().filter(|s| !matches!(s.work, Work::View)) {
        let callable = s.call.is_some() || !matches!(s.work, Work::Kernel(_));
        if !callable || s.writes.len() != 1 || s.reads.iter().chain(&s.writes).any(moving) {
            bad.push(format!("'{}' ({})", s.name, s.op));
        }
    }
    let ports = graph.inputs().iter().copied().chain(graph.outputs().iter().map(|o| o.value));
    bad.extend(ports.filter(moving).map(|v| format!("the value '{}' of unknown size", graph.value_name(v))));
    if bad.is_empty() {
        return Ok(());
    }
    let more = bad.len().saturating_sub(12);
    bad.truncate(12);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Err(Error::unsupported(format!("ahead of time: {}{more}; a session runs this model", bad.join(", "))))
}

fn operand(
    graph: &Graph,
    steps: &[Step],
    memory: &Memory,
    constants: &mut Constants,
    v: ValueId,
) -> Result<Operand> {
    let bytes = static_bytes(graph, v).unwrap_or(0);
    Ok(match memory.places.get(&v) {
        Some(&Place::Arena(at)) => Operand::Workspace { at, bytes },
        Some(&Place::Input(at)) => Operand::Input { at, bytes },
        Some(&Place::Output(at)) => Operand::Output { at, bytes },
        Some(Place::Constant) => {
            let t = crate::program::constant(graph, steps, v)?;
            Operand::Constant { at: constants.tensor(v, &t).offset, bytes }
        }
        _ => return Err(Error::internal(format!("value '{}' has no place", graph.value_name(v)))),
    })
}
