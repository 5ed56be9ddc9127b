//! Model-local functions, inlined where they are called.

use crate::import::{Builder, Report, Scope, domain};
use crate::proto::{AttributeProto, FunctionProto, Message, ModelProto, NodeProto};
use ir::{Error, Result};
use std::cell::Cell;
use std::collections::BTreeMap;

/// Most bytes of function bodies that calls may copy into the graph.
const MAX_INLINED: u64 = 128 << 20;
/// What a copied node takes besides its encoded content.
const NODE: u64 = 512;

/// The functions of one file and their own opset versions.
pub struct Functions<'a> {
    list: Vec<Function<'a>>,
    /// Position by domain, name and overload.
    index: BTreeMap<(&'a str, &'a str, &'a str), usize>,
    inlined: Cell<u64>,
}

struct Function<'a> {
    proto: &'a FunctionProto,
    versions: BTreeMap<String, i64>,
    /// Encoded bytes.
    size: u64,
}

impl<'a> Functions<'a> {
    pub fn new(model: &'a ModelProto) -> Functions<'a> {
        let versions = |f: &FunctionProto| {
            f.opset_import
                .iter()
                .map(|o| (domain(&o.domain).to_string(), o.version))
                .collect::<BTreeMap<_, _>>()
        };
        let function =
            |f: &'a FunctionProto| Function { proto: f, versions: versions(f), size: f.compute_size() };
        let key = |f: &'a FunctionProto| (domain(&f.domain), f.name.as_str(), f.overload.as_str());
        Functions {
            list: model.functions.iter().map(function).collect(),
            index: model.functions.iter().enumerate().map(|(i, f)| (key(f), i)).collect(),
            inlined: Cell::new(0),
        }
    }

    /// The function a node calls, if it calls one.
    pub fn find(&self, n: &NodeProto) -> Option<usize> {
        self.index.get(&(domain(&n.domain), n.op_type.as_str(), n.overload.as_str())).copied()
    }

    /// Copies the body of function `which` into the builder with the call's arguments.
    pub fn inline<'b>(
        &'b self,
        which: usize,
        call: &NodeProto,
        b: &mut Builder<'b>,
        report: &mut Report,
    ) -> Result<()> {
        let Some(Function { proto: f, versions, size }) = self.list.get(which) else { return Ok(()) };
        let per_node = NODE + call.name.len() as u64;
        let cost = self.inlined.get() + NODE + size + per_node.saturating_mul(f.node.len() as u64);
        self.inlined.set(cost);
        if cost > MAX_INLINED {
            return Err(Error::limit(format!("function calls expand to more than {MAX_INLINED} bytes")));
        }
        if call.input.len() > f.input.len() || call.output.len() > f.output.len() {
            return Err(Error::model(format!(
                "function {} is called with too many inputs or outputs",
                f.name
            )));
        }
        let before = b.graph.value_bound();
        let mut scope = BTreeMap::new();
        for (formal, actual) in f.input.iter().zip(&call.input) {
            if !actual.is_empty() {
                scope.insert(formal.clone(), b.resolve(actual)?);
            }
        }
        let absent: Vec<&str> =
            f.input.iter().map(String::as_str).filter(|i| !scope.contains_key(*i)).collect();
        let nodes: Vec<NodeProto> =
            f.node.iter().map(|n| bind(n, call, f, &absent)).collect::<Result<_>>()?;
        let outside = b.swap_scope(Scope { names: scope, outer: None });
        let outer_versions = b.swap_versions(versions);
        let result = b.nested(|b| {
            b.nodes(&nodes, &BTreeMap::new(), report)?;
            f.output.iter().zip(&call.output).map(|(o, _)| b.resolve(o)).collect::<Result<Vec<_>>>()
        });
        b.swap_versions(outer_versions);
        b.swap_scope(outside);
        for (name, v) in call.output.iter().zip(result?) {
            if !name.is_empty() {
                b.define(name, v)?;
                // A function may hand an argument back; that value has its name already.
                if v.index() >= before {
                    b.graph.rename_value(v, name);
                }
            }
        }
        Ok(())
    }
}

/// A body node with the call's attributes in place of references and absent inputs made empty.
fn bind(n: &NodeProto, call: &NodeProto, f: &FunctionProto, absent: &[&str]) -> Result<NodeProto> {
    let mut n = n.clone();
    n.name = format!("{}/{}", call.name, n.name);
    for i in n.input.iter_mut().filter(|i| absent.contains(&i.as_str())) {
        i.clear();
    }
    n.attribute = bind_attributes(&n.attribute, call, f, 0)?;
    Ok(n)
}

fn bind_attributes(
    list: &[AttributeProto],
    call: &NodeProto,
    f: &FunctionProto,
    depth: usize,
) -> Result<Vec<AttributeProto>> {
    if depth > 24 {
        return Err(Error::limit("subgraphs nest too deep in a function"));
    }
    let mut bound = Vec::new();
    for a in list {
        let mut a = a.clone();
        if !a.ref_attr_name.is_empty() {
            let given = call.attribute.iter().chain(&f.attribute_proto).find(|c| c.name == a.ref_attr_name);
            // An optional attribute that the call leaves out is left out here too.
            let Some(given) = given else { continue };
            let name = std::mem::take(&mut a.name);
            a = given.clone();
            a.name = name;
        }
        if let Some(g) = a.g.as_mut() {
            for n in &mut g.node {
                n.attribute = bind_attributes(&n.attribute, call, f, depth + 1)?;
            }
        }
        bound.push(a);
    }
    Ok(bound)
}
