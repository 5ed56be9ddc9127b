//! Every operator, described once: `ls` of this folder is the operator list, one family a file.
#![deny(unsafe_code)]

mod op;
#[allow(dead_code)] // one row per operator of the specification, including those without semantics here yet
mod schema;

pub use op::Op;

use ir::{Lookup, Operator};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// All operators, by family.
pub static FAMILIES: &[&[&dyn Operator]] = &[];

/// The operators of this crate, found by name.
pub struct Standard;

static INDEX: LazyLock<BTreeMap<(&'static str, &'static str), &'static dyn Operator>> =
    LazyLock::new(|| FAMILIES.iter().flat_map(|f| f.iter()).map(|&o| ((o.domain(), o.name()), o)).collect());

impl Lookup for Standard {
    fn operator(&self, domain: &str, name: &str) -> Option<&'static dyn Operator> {
        let domain = if domain == "ai.onnx" { "" } else { domain };
        INDEX.get(&(domain, name)).copied()
    }
}

/// A standard operator by name, for code that builds graphs.
pub fn standard(name: &str) -> ir::Result<&'static dyn Operator> {
    Standard.require("", name)
}

/// An internal operator ("ir." domain) by name.
pub fn internal(name: &str) -> ir::Result<&'static dyn Operator> {
    Standard.require("ir.", name)
}
