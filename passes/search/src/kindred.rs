//! Factors that layers of one shape may share, made before the candidates of each.

use crate::goal::{Options, Progress, check, late};
use crate::table::{HURRY, Pass};
use ir::Result;
use lossy::{Basis, Layer, Stats, joint};
use std::sync::Arc;

/// Bytes for each number of a group's kernels, and the part of the memory that one group may take.
const BYTES: u64 = 40;
const PART: u64 = 4;

/// By group of layers; and the group of each layer.
pub struct Kindred {
    bases: Vec<Vec<Basis>>,
    of: Vec<Option<usize>>,
}

impl Kindred {
    /// Those that the methods of this pass, or of the layers that the user chose, need.
    pub fn find(
        layers: &[Layer],
        stats: &[Option<Arc<Stats>>],
        pass: Pass,
        options: &Options,
        progress: &dyn Progress,
    ) -> Result<Kindred> {
        let named = |name: &str| lossy::methods::find(name).is_some_and(|m| m.shares());
        let chosen = !pass.second && options.overrides.iter().any(|o| named(o.method()));
        let mut found = Kindred { bases: Vec::new(), of: vec![None; layers.len()] };
        let searched = pass.methods.iter().any(|m| m.shares()) && !late(progress, HURRY);
        if !chosen && !searched {
            return Ok(found);
        }
        for group in joint::groups(layers) {
            check(progress)?;
            let numbers: usize = group.iter().map(|&i| layers[i].tensor.len()).sum();
            if options.memory.is_some_and(|m| numbers as u64 * BYTES > m / PART) {
                continue;
            }
            let members: Vec<joint::Member> =
                group.iter().map(|&i| (&layers[i], stats.get(i).and_then(|s| s.as_deref()))).collect();
            group.iter().for_each(|&i| found.of[i] = Some(found.bases.len()));
            found.bases.push(joint::bases(&members)?);
        }
        Ok(found)
    }

    /// What the layer at this place may share.
    pub fn of(&self, layer: usize) -> &[Basis] {
        self.of.get(layer).copied().flatten().and_then(|g| self.bases.get(g)).map_or(&[], |b| b)
    }
}
