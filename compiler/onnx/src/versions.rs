//! Which opset holds a node: what each version of a standard operator accepts, from opset 13 on (`versions.txt`), and the
//! few changes of meaning that a signature does not show.

use ir::{DType, Def, Graph, Node, ValueId, ValueType};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Oldest opset that is written: from here on operators mean what the IR's operators mean.
const OLDEST: i64 = 13;
/// Newest opset that is written.
const NEWEST: i64 = 28;

/// File format version for each opset from [`OLDEST`] on (onnx, Versioning.md).
const FORMATS: [i64; 16] = [7, 7, 8, 8, 8, 8, 9, 9, 10, 10, 11, 12, 13, 13, 13, 14];

/// One row of the table: operator, opset it came with, element types of inputs and outputs (bit n: ONNX type n, bit 0: not
/// a tensor; `*`: variadic) and attribute names.
struct Version {
    since: i64,
    inputs: Formals,
    outputs: Formals,
    attrs: Vec<&'static str>,
}

struct Formals {
    masks: Vec<u32>,
    variadic: bool,
}

static TABLE: LazyLock<BTreeMap<&'static str, Vec<Version>>> = LazyLock::new(|| {
    let mut table: BTreeMap<&str, Vec<Version>> = BTreeMap::new();
    for line in include_str!("versions.txt").lines() {
        let mut words = line.split(' ');
        let mut word = || words.next().filter(|w| *w != "-").unwrap_or_default();
        let name = word();
        let version = Version {
            since: word().parse().unwrap_or(i64::MAX),
            inputs: Formals::parse(word()),
            outputs: Formals::parse(word()),
            attrs: word().split(',').filter(|a| !a.is_empty()).collect(),
        };
        table.entry(name).or_default().push(version);
    }
    table
});

impl Formals {
    fn parse(s: &'static str) -> Formals {
        let masks = s.split(',').filter(|m| !m.is_empty());
        let masks = masks.map(|m| u32::from_str_radix(m.trim_end_matches('*'), 16).unwrap_or(0)).collect();
        Formals { masks, variadic: s.ends_with('*') }
    }

    fn accept(&self, graph: &Graph, values: &[Option<ValueId>]) -> bool {
        values.iter().enumerate().all(|(i, v)| {
            let last = self.masks.last().filter(|_| self.variadic);
            let Some(mask) = self.masks.get(i).or(last) else { return false };
            v.is_none_or(|v| match graph.ty(v) {
                ValueType::Unknown => true,
                ValueType::Tensor(t) => mask >> t.dtype.onnx() & 1 == 1,
                _ => mask & 1 == 1,
            })
        })
    }
}

/// True when attributes of `name` that the standard does not define have to go.
pub fn defines(op: &str, attr: &str) -> bool {
    TABLE.get(op).and_then(|v| v.last()).is_none_or(|v| v.attrs.contains(&attr))
}

/// The oldest opset, not before `from`, in which every standard node of `graph` is valid and means the same. Nodes that
/// no version accepts (some producers stretch the rules, and runtimes with them) have no say.
pub fn opset(graph: &Graph, from: i64) -> i64 {
    let from = from.clamp(OLDEST, NEWEST);
    (from..NEWEST).find(|&v| all_hold(graph, v)).unwrap_or(NEWEST)
}

/// File format version that an opset asks for, and element types may raise.
pub fn format(graph: &Graph, opset: i64) -> i64 {
    let index = usize::try_from(opset - OLDEST).unwrap_or(0);
    let by_opset = FORMATS.get(index).copied().unwrap_or(FORMATS[FORMATS.len() - 1]);
    types(graph).map(format_of_type).fold(by_opset, i64::max)
}

fn format_of_type(d: DType) -> i64 {
    use DType::*;
    match d {
        F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ => 9,
        U4 | I4 => 10,
        F4E2M1 => 11,
        F8E8M0 => 12,
        U2 | I2 => 13,
        _ => 0,
    }
}

fn types(graph: &Graph) -> Box<dyn Iterator<Item = DType> + '_> {
    let inner = graph.nodes().flat_map(|(_, n)| n.attrs.graphs()).flat_map(types);
    let counts = graph.use_counts();
    // Constants that nobody reads are not written.
    let written = move |v: &ValueId| counts[v.index()] > 0 || !matches!(graph.def(*v), Def::Initializer(_));
    Box::new(graph.values().filter(written).filter_map(|v| graph.dtype(v)).chain(inner))
}

fn all_hold(graph: &Graph, v: i64) -> bool {
    graph.nodes().all(|(_, n)| {
        let stretched = || !holds(graph, n, NEWEST) && (form_holds(n, v) || !form_holds(n, NEWEST));
        (holds(graph, n, v) || stretched()) && n.attrs.graphs().into_iter().all(|g| all_hold(g, v))
    })
}

fn row(n: &Node, v: i64) -> Option<&'static Version> {
    TABLE.get(n.op.name())?.iter().rev().find(|r| r.since <= v)
}

fn holds(graph: &Graph, n: &Node, v: i64) -> bool {
    if !n.op.domain().is_empty() {
        return true;
    }
    let Some(row) = row(n, v) else { return false };
    form_holds(n, v) && row.inputs.accept(graph, n.inputs()) && row.outputs.accept(graph, n.outputs())
}

/// As [`holds`], whatever the element types: an older form would be read as something else.
fn form_holds(n: &Node, v: i64) -> bool {
    if !n.op.domain().is_empty() {
        return true;
    }
    let Some(row) = row(n, v) else { return false };
    let known = |a: &str| row.attrs.contains(&a) || !defines(n.op.name(), a);
    let fits = |f: &Formals, n: usize| f.variadic || n <= f.masks.len();
    n.attrs.iter().all(|(a, _)| known(a))
        && fits(&row.inputs, n.inputs().len())
        && fits(&row.outputs, n.outputs().len())
        && v >= meaning_since(n)
}

/// Changes of meaning or of attribute values behind an unchanged signature.
fn meaning_since(n: &Node) -> i64 {
    let text = |a: &str| n.attrs.str(a).ok().flatten().unwrap_or_default();
    match n.op.name() {
        "BatchNormalization" if n.outputs().len() > 1 => 14,
        // The default was another before.
        "RoiAlign" => 16,
        "DFT" => 20,
        "GridSample" if matches!(text("mode"), "linear" | "cubic") => 20,
        "Resize" if text("coordinate_transformation_mode") == "half_pixel_symmetric" => 19,
        "Pad" if text("mode") == "wrap" => 19,
        "ScatterElements" | "ScatterND" if matches!(text("reduction"), "max" | "min") => 18,
        _ => OLDEST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_complete() {
        assert!(TABLE.len() > 190);
        for (name, rows) in TABLE.iter() {
            assert!(rows.iter().all(|r| r.since <= NEWEST), "{name}");
            assert!(rows.windows(2).all(|w| w[0].since < w[1].since), "{name}");
            let masks = rows.iter().flat_map(|r| r.inputs.masks.iter().chain(&r.outputs.masks));
            assert!(masks.copied().all(|m| m != 0), "{name}");
        }
    }

    #[test]
    fn tensors_that_are_not_written_ask_for_no_version() {
        let mut g = Graph::new("g");
        let x = g.add_input("x", ValueType::known(DType::F32, &[2]));
        g.add_output("y", x);
        g.add_initializer("unread", ir::Tensor::zeros(DType::F8E5M2, &[1]).unwrap());
        assert_eq!(format(&g, OLDEST), FORMATS[0]);
    }

    /// An operator of types that no version takes was written in an opset where its third input had another form.
    #[test]
    fn stretched_types_do_not_change_the_form() {
        let mut g = Graph::new("g");
        let x = g.add_input("x", ValueType::known(DType::I32, &[1, 8, 1]));
        let axis = g.add_initializer("axis", ir::Tensor::scalar(1i64));
        let op = ir::Lookup::require(&ops::Standard, "", "DFT").unwrap();
        let id = g.add_node("", op, ir::Attrs::new(), &[Some(x), None, Some(axis)], &["y"]);
        let y = g.get(id).and_then(|n| n.output(0)).unwrap();
        g.add_output("y", y);
        assert_eq!(opset(&g, OLDEST), 20);
    }

    #[test]
    fn formats_cover_every_opset() {
        assert_eq!(FORMATS.len() as i64, NEWEST - OLDEST + 1);
    }
}
