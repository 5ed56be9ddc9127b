//! The operator trait: everything about one operator, described once.

use crate::{Attr, Attrs, DType, Dim, Error, Graph, Kind, NodeId, Result, Tensor, Value, ValueId, ValueType};
use std::fmt;

/// Most entries of a constant that shape arithmetic follows.
const LONGEST_SHAPE: usize = 4096;

/// Which element types a formal parameter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Types {
    /// Any value, sequences and optionals included.
    Any,
    Of(&'static [DType]),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arity {
    Required,
    Optional,
    /// Zero or more from here to the end.
    Variadic,
}

/// One formal input or output.
#[derive(Debug, Clone, Copy)]
pub struct Formal {
    pub name: &'static str,
    /// Type variable shared between formals of one type, such as "T".
    pub type_name: &'static str,
    pub types: Types,
    pub arity: Arity,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttrKind {
    Int,
    Float,
    Str,
    Tensor,
    Graph,
    Type,
    Ints,
    Floats,
    Strs,
    Tensors,
    Graphs,
}

#[derive(Debug, Clone, Copy)]
pub struct AttrFormal {
    pub name: &'static str,
    pub kind: AttrKind,
    pub required: bool,
}

/// Inputs, outputs and attributes of the newest version of an operator.
#[derive(Debug, Clone, Copy)]
pub struct Signature {
    /// Opset versions in which the operator's definition changed, ascending.
    pub since: &'static [u32],
    pub inputs: &'static [Formal],
    pub outputs: &'static [Formal],
    pub attrs: &'static [AttrFormal],
}

/// How closely two correct implementations must agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accuracy {
    /// Same bits.
    Exact,
    /// A few units in the last place.
    Rounding,
    /// Sums whose order may differ: error grows with the reduced length.
    Accumulated,
    /// Random results: only type and shape are comparable.
    Random,
}

/// Infers the output types of a subgraph from the types of its formal inputs.
pub type InferSubgraph<'a> = &'a dyn Fn(&Graph, &[ValueType]) -> Result<Vec<ValueType>>;
/// Runs a subgraph on its formal inputs.
pub type RunSubgraph<'a> = &'a dyn Fn(&Graph, Vec<Value>) -> Result<Vec<Value>>;

/// What shape inference knows about one node.
pub struct InferCx<'a> {
    pub attrs: &'a Attrs,
    pub inputs: &'a [Option<ValueType>],
    /// Values of inputs that are constant.
    pub consts: &'a [Option<Tensor>],
    /// Values of small integer inputs element by element, where known or named (rank 0 or 1, row-major).
    pub dims: &'a [Option<Vec<Dim>>],
    /// Number of outputs the node declares (trailing absent ones included).
    pub outputs: usize,
    /// Infers a subgraph given types of its formal inputs; captures are resolved by the caller.
    pub subgraph: InferSubgraph<'a>,
}

impl InferCx<'_> {
    pub fn has(&self, i: usize) -> bool {
        self.inputs.get(i).is_some_and(Option::is_some)
    }
    /// Type of a required input.
    pub fn input(&self, i: usize) -> Result<&ValueType> {
        self.inputs
            .get(i)
            .and_then(Option::as_ref)
            .ok_or_else(|| Error::model(format!("input {i} is missing")))
    }
    /// Element type of a required tensor input; an error when it is not a tensor, `None` when not known yet.
    pub fn dtype(&self, i: usize) -> Result<Option<DType>> {
        match self.input(i)? {
            ValueType::Tensor(t) => Ok(Some(t.dtype)),
            ValueType::Unknown => Ok(None),
            t => Err(Error::model(format!("input {i} must be a tensor, got {t}"))),
        }
    }
    pub fn shape(&self, i: usize) -> Option<&[Dim]> {
        self.inputs.get(i)?.as_ref()?.shape()
    }
    pub fn rank(&self, i: usize) -> Option<usize> {
        self.shape(i).map(<[Dim]>::len)
    }
    pub fn constant(&self, i: usize) -> Option<&Tensor> {
        self.consts.get(i)?.as_ref()
    }
    /// Constant integers of input `i`.
    pub fn ints(&self, i: usize) -> Option<Vec<i64>> {
        self.constant(i).and_then(|t| t.to_i64s().ok())
    }
    /// Element-wise known, named or unknown values of an integer input (shape arithmetic).
    pub fn dims(&self, i: usize) -> Option<Vec<Dim>> {
        if let Some(d) = self.dims.get(i).and_then(Option::as_ref) {
            return Some(d.clone());
        }
        // Longer constants are data, such as the codes of a weight.
        self.constant(i).filter(|t| t.len() <= LONGEST_SHAPE)?;
        let v = self.ints(i)?;
        Some(v.into_iter().map(|x| usize::try_from(x).map_or(Dim::Unknown, Dim::Known)).collect())
    }
}

/// What evaluation gets for one node.
pub struct EvalCx<'a> {
    pub node: &'a str,
    pub attrs: &'a Attrs,
    pub inputs: &'a [Option<Value>],
    pub captures: &'a [Value],
    pub outputs: usize,
    /// Runs a subgraph on formal inputs, with this node's captures.
    pub subgraph: RunSubgraph<'a>,
}

impl EvalCx<'_> {
    pub fn has(&self, i: usize) -> bool {
        self.inputs.get(i).is_some_and(Option::is_some)
    }
    pub fn value(&self, i: usize) -> Result<&Value> {
        self.inputs
            .get(i)
            .and_then(Option::as_ref)
            .ok_or_else(|| Error::model(format!("input {i} is missing")))
    }
    pub fn tensor(&self, i: usize) -> Result<&Tensor> {
        self.value(i)?.tensor()
    }
    pub fn optional(&self, i: usize) -> Result<Option<&Tensor>> {
        self.inputs.get(i).and_then(Option::as_ref).map(Value::tensor).transpose()
    }
    /// Integers of a required input.
    pub fn ints(&self, i: usize) -> Result<Vec<i64>> {
        self.tensor(i)?.to_i64s()
    }
    pub fn optional_ints(&self, i: usize) -> Result<Option<Vec<i64>>> {
        self.optional(i)?.map(Tensor::to_i64s).transpose()
    }
    /// All present inputs as tensors.
    pub fn tensors(&self) -> Result<Vec<&Tensor>> {
        self.inputs.iter().flatten().map(Value::tensor).collect()
    }
}

/// One operator. Its ONNX name and domain are its IR name; semantics are those of the newest opset, older models are
/// upgraded on import.
pub trait Operator: Sync + Send {
    fn name(&self) -> &'static str;
    /// "" is the ONNX standard domain; "ir." is internal to this compiler.
    fn domain(&self) -> &'static str {
        ""
    }
    fn signature(&self) -> &'static Signature;
    /// Output types, one per formal output in use (at most `cx.outputs`, missing ones count as unknown).
    fn infer(&self, cx: &InferCx) -> Result<Vec<ValueType>>;
    /// Element-wise values of the first output when it is shape arithmetic; default: none.
    fn shape_value(&self, _cx: &InferCx) -> Option<Vec<Dim>> {
        None
    }
    fn kind(&self, _attrs: &Attrs) -> Kind {
        Kind::Opaque
    }
    /// Reference semantics; default: interprets an element-wise [`Kind`] or evaluates [`Operator::expand`].
    fn eval(&self, cx: &EvalCx) -> Result<Vec<Value>>;
    /// The same meaning in terms of other operators, appended to `graph`; outputs in order, `None` where this node form
    /// has no expansion. Operators of domain "ir." must expand: it is how they are exported.
    fn expand(
        &self,
        _graph: &mut Graph,
        _node: NodeId,
        _lookup: &dyn Lookup,
    ) -> Result<Option<Vec<Option<ValueId>>>> {
        Ok(None)
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Rounding
    }
}

/// Finds operators by domain and name.
pub trait Lookup: Sync {
    fn operator(&self, domain: &str, name: &str) -> Option<&'static dyn Operator>;
    /// The operator, or an `Unsupported` error naming it.
    fn require(&self, domain: &str, name: &str) -> Result<&'static dyn Operator> {
        self.operator(domain, name).ok_or_else(|| {
            let full = if domain.is_empty() { name.to_string() } else { format!("{domain}.{name}") };
            Error::unsupported(format!("operator {full} is not known"))
        })
    }
}

/// Full name of an operator: the bare name in the standard domain, else "domain.Name" ("ir.Name" for internal ones).
pub fn qualified(op: &dyn Operator) -> String {
    match op.domain() {
        "" => op.name().to_string(),
        d => format!("{}.{}", d.trim_end_matches('.'), op.name()),
    }
}

impl fmt::Debug for dyn Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&qualified(self))
    }
}

impl PartialEq for dyn Operator {
    fn eq(&self, o: &dyn Operator) -> bool {
        self.name() == o.name() && self.domain() == o.domain()
    }
}

/// Checks attribute names, kinds and presence and the input count against the signature.
pub fn check_form(
    op: &dyn Operator,
    attrs: &Attrs,
    inputs: &[Option<ValueId>],
    outputs: usize,
) -> Result<()> {
    let s = op.signature();
    for f in s.attrs {
        match attrs.get(f.name) {
            None if f.required => return Err(Error::model(format!("attribute '{}' is missing", f.name))),
            Some(a) if !kind_matches(a, f.kind) => {
                return Err(Error::model(format!("attribute '{}' must be of kind {:?}", f.name, f.kind)));
            }
            _ => {}
        }
    }
    for (i, f) in s.inputs.iter().enumerate() {
        if f.arity == Arity::Required && inputs.get(i).copied().flatten().is_none() {
            return Err(Error::model(format!("input {i} ('{}') is missing", f.name)));
        }
    }
    let room = |f: &[Formal]| {
        if f.last().is_some_and(|l| l.arity == Arity::Variadic) { usize::MAX } else { f.len() }
    };
    if inputs.len() > room(s.inputs) {
        return Err(Error::model(format!("takes at most {} inputs, got {}", s.inputs.len(), inputs.len())));
    }
    if outputs > room(s.outputs) {
        return Err(Error::model(format!("gives at most {} outputs, {outputs} are named", s.outputs.len())));
    }
    Ok(())
}

fn kind_matches(a: &Attr, k: AttrKind) -> bool {
    use AttrKind as K;
    match (a, k) {
        (Attr::Int(_), K::Int)
        | (Attr::Float(_), K::Float)
        | (Attr::Str(_), K::Str)
        | (Attr::Tensor(_), K::Tensor)
        | (Attr::Graph(_), K::Graph)
        | (Attr::Type(_), K::Type)
        | (Attr::Ints(_), K::Ints)
        | (Attr::Floats(_), K::Floats)
        | (Attr::Strs(_), K::Strs)
        | (Attr::Tensors(_), K::Tensors)
        | (Attr::Graphs(_), K::Graphs) => true,
        (Attr::Ints(v), K::Floats | K::Strs) => v.is_empty(),
        (Attr::Floats(v), K::Ints | K::Strs) => v.is_empty(),
        _ => false,
    }
}
