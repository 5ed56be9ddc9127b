//! A model ready to run.

use crate::Profile;
use ir::{Error, Evaluate, Feeds, Graph, Result, Value};

/// A model, optimised for this machine.
pub struct Session {
    graph: Graph,
}

impl Session {
    pub fn from_graph(graph: &Graph, _threads: usize) -> Result<Session> {
        Ok(Session { graph: graph.clone() })
    }
    /// Outputs in the graph's order.
    pub fn run(&self, inputs: &Feeds) -> Result<Vec<Value>> {
        Ok(ir::Reference.run(&self.graph, inputs, &[])?.outputs)
    }
    pub fn profile(&self, _inputs: &Feeds) -> Result<Profile> {
        Err(Error::unsupported("profile"))
    }
}
