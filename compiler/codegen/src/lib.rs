//! IR of concrete shapes to machine code: layout, fusion, memory plan, kernels and the generated schedule.
//!
//! `compile` is the pipeline on one page. What has no lowering runs its reference semantics from the generated schedule,
//! right if slow, so that coverage never waits for code generation.

mod ahead;
mod bands;
mod channels_last;
mod clif;
mod dag;
mod group;
mod kernel;
mod layout;
mod lower;
mod packs;
mod plan;
mod precision;
mod program;
mod stored;
mod unsigned;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub use ahead::Linked;
pub use ahead::{Artefact, Target, build};
pub use lower::little::Loops;
pub use packs::Packs;
pub use precision::Precision;
pub use program::{Program, Run, Side, StepInfo};

use ir::{Error, Graph, Result};
use kernels::Tier;

/// Compiles a graph whose inputs have known types. Values of unknown shape are kept boxed.
pub fn compile(graph: &Graph) -> Result<Program> {
    compile_with(graph, Tier::best(), Precision::default())
}

/// As [`compile`] for a chosen kernel tier and precision.
pub fn compile_with(graph: &Graph, tier: Tier, precision: Precision) -> Result<Program> {
    compile_sharing(graph, tier, precision, Loops::Generated, &Packs::default())
}

/// As [`compile_with`] for one of several programs of a model, which share packed weights.
pub fn compile_sharing(
    graph: &Graph,
    tier: Tier,
    precision: Precision,
    loops: Loops,
    packs: &Packs,
) -> Result<Program> {
    let (graph, mut steps) = lowered(graph, tier, precision, packs)?;
    if loops == Loops::WherePaying {
        lower::little::to_chains(&mut steps, tier);
    }
    let plan = plan::plan(&graph, &steps)?;
    program::assemble(graph, steps, plan)
}

/// The steps of a graph, and the graph they refer to.
fn lowered(
    graph: &Graph,
    tier: Tier,
    precision: Precision,
    packs: &Packs,
) -> Result<(Graph, Vec<lower::Step>)> {
    countable(graph)?;
    let mut graph = layout::to_channels_last(graph)?;
    unsigned::to_unsigned(&mut graph)?;
    loop {
        let decoders = stored::decoders(&graph)?;
        let steps = lower::lower(&graph, group::form(&graph, &decoders)?, tier, precision, packs)?;
        let missing = stored::missing(&graph, &decoders, &steps);
        if missing.is_empty() {
            let steps = bands::merge(&graph, steps, &bands::SMALL)?;
            return Ok((graph, steps));
        }
        stored::settle(&mut graph, &missing)?;
    }
}

/// Whether all sizes fit a number, so that what follows may multiply them. Those beside a zero may be of any size: such
/// graphs are left to the definition of their operators.
fn countable(graph: &Graph) -> Result<()> {
    let check = |v: ir::ValueId| -> Result<()> {
        let Some(shape) = graph.ty(v).concrete() else { return Ok(()) };
        ir::budget::elements(&shape)?;
        let others: Vec<usize> = shape.iter().map(|&d| d.max(1)).collect();
        let unsupported = |_| Error::unsupported(format!("an empty value of shape {shape:?}"));
        ir::budget::elements(&others).map(drop).map_err(unsupported)
    };
    for (_, n) in graph.nodes() {
        for &v in n.inputs().iter().chain(n.outputs()).flatten() {
            check(v).map_err(|e| e.at(&n.name, n.op.name()))?;
        }
    }
    Ok(())
}
