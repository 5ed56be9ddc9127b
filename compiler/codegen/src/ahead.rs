//! A graph compiled ahead of time: the steps of a program as data, in an object that carries its kernels.

mod header;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod linked;
mod merge;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub use linked::Linked;

use crate::clif::{Assembler, Image};
use crate::lower::{Step, Work};
use crate::plan::{Place, Plan as Memory, plan, static_bytes};
use crate::{Packs, Precision, lowered};
use artefact::{Call, Operand, Plan, Port};
use ir::{Error, Graph, Result, Tensor, ValueId};
use kernels::Tier;
use kernels::stored::{ALIGN, Stored, Writer};
use std::collections::BTreeMap;

/// Constants that operands point to, each once.
#[derive(Default)]
struct Constants {
    tensors: Vec<Tensor>,
    at: BTreeMap<ValueId, usize>,
    bytes: usize,
}

impl Constants {
    fn place(&mut self, v: ValueId, t: Tensor) -> usize {
        *self.at.entry(v).or_insert_with(|| {
            let at = self.bytes.next_multiple_of(ALIGN);
            self.bytes = at + t.bytes().len();
            self.tensors.push(t);
            at
        })
    }
}

/// A model as an object file and the C header that declares it.
pub struct Artefact {
    pub object: Vec<u8>,
    pub header: String,
    /// Bytes of working memory that a run is given.
    pub workspace: usize,
    /// The exported symbols; the first runs the model.
    pub symbols: [String; 2],
}

/// What an artefact is made for.
pub struct Target<'a> {
    /// A C identifier.
    pub name: &'a str,
    /// The object of the crate `artefact` for this machine.
    pub kernels: &'a [u8],
    /// The narrowest CPU it runs on.
    pub tier: Tier,
    /// Inputs whose values were compiled in, as bytes.
    pub fixed: Vec<(usize, Vec<u8>)>,
}

/// Compiles a graph whose inputs have known shapes.
///
/// # Errors
/// `Unsupported` when some nodes have no call that an artefact can make; all are named.
pub fn build(graph: &Graph, target: Target) -> Result<Artefact> {
    let Made { graph, plan, object } = object(graph, target.name, target.tier, target.fixed)?;
    let header = header::header(&graph, target.name, &plan, target.tier)?;
    let object = merge::with_kernels(object, target.kernels)?;
    let symbols = ["run", "workspace_bytes"].map(|s| format!("{}_{s}", target.name));
    Ok(Artefact { object, header, workspace: plan.workspace, symbols })
}

/// An object that names the kernels without having them, and what it was made of.
struct Made {
    graph: Graph,
    plan: Plan,
    object: object::write::Object<'static>,
}

fn object(graph: &Graph, name: &str, tier: Tier, fixed: Vec<(usize, Vec<u8>)>) -> Result<Made> {
    let (graph, mut steps) = lowered(graph, tier, Precision::Automatic, &Packs::default())?;
    let memory = plan(&graph, &steps)?;
    refuse(&graph, &steps)?;
    let mut code = Assembler::object(name)?;
    let (mut constants, mut made) = (Constants::default(), Vec::new());
    for i in 0..steps.len() {
        let call = match std::mem::replace(&mut steps[i].work, Work::View) {
            Work::View => continue,
            Work::Rows(r) => r.call(code.add_loop(&r.body)?),
            Work::Typed(t) => t.call(code.add_typed(t.body())?),
            Work::Call(c) => *c,
            Work::Kernel(_) => return Err(Error::internal("a step without a call")),
        };
        let (inputs, all) = (steps[i].reads.len(), steps[i].reads.iter().chain(&steps[i].writes));
        let operands =
            all.map(|&v| operand(&graph, &steps, &memory, &mut constants, v)).collect::<Result<_>>()?;
        made.push(artefact::Step { call, inputs, operands });
    }
    for &(k, v) in &memory.copies {
        let from = operand(&graph, &steps, &memory, &mut constants, v)?;
        let bytes = static_bytes(&graph, graph.outputs()[k].value).unwrap_or(0);
        let operands = vec![from, Operand::Output { at: k, bytes }];
        made.push(artefact::Step { call: Call::Copy, inputs: 1, operands });
    }
    let port = |v: ValueId| Port {
        bytes: static_bytes(&graph, v).unwrap_or(0),
        align: graph.dtype(v).map_or(1, |d| (d.bits() / 8).clamp(1, 8)),
    };
    let workspace = memory.arena_bytes.max(1);
    let plan = Plan {
        inputs: graph.inputs().iter().map(|&v| port(v)).collect(),
        outputs: graph.outputs().iter().map(|o| port(o.value)).collect(),
        workspace,
        loops: code.loops(),
        fixed,
        steps: made,
    };
    let ports = plan.inputs.len() + plan.outputs.len();
    let mut written = Writer::default();
    // Constants first: their places are known already.
    for t in &constants.tensors {
        written.place(t.bytes());
    }
    plan.put(&mut written);
    let mut bytes: Vec<u8> = ir::budget::filled(written.bulk_len(), 0)?;
    written.bulk.iter().for_each(|(at, piece)| bytes[*at..*at + piece.len()].copy_from_slice(piece));
    let image = Image { constants: bytes, plan: written.stream, ports, workspace };
    let object = code.finish_object(name, image)?.object;
    Ok(Made { graph, plan, object })
}

/// An error that names what an artefact cannot do.
fn refuse(graph: &Graph, steps: &[Step]) -> Result<()> {
    let moving = |v: &ValueId| static_bytes(graph, *v).is_none();
    let mut bad: Vec<String> = Vec::new();
    for s in steps.iter().filter(|s| !matches!(s.work, Work::View)) {
        if matches!(s.work, Work::Kernel(_)) || s.reads.iter().chain(&s.writes).any(moving) {
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
            Operand::Constant { at: constants.place(v, t), bytes }
        }
        _ => return Err(Error::internal(format!("value '{}' has no place", graph.value_name(v)))),
    })
}
