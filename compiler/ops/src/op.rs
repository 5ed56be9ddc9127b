//! An operator as one row: a name, a signature and the functions that say what it does.

use crate::expr;
use ir::{
    Accuracy, Attrs, Dim, Error, EvalCx, Graph, InferCx, Kind, Lookup, NodeId, Operator, Result, Signature,
};
use ir::{Value, ValueId, ValueType};

/// Appends the meaning of a node in other operators; see [`Operator::expand`].
pub type Expand = fn(&mut Graph, NodeId, &dyn Lookup) -> Result<Option<Vec<Option<ValueId>>>>;

/// Element-wise known values of a shape-arithmetic output.
pub type ShapeValue = fn(&InferCx) -> Option<Vec<Dim>>;

/// Reference semantics of one node.
pub type Eval = fn(&EvalCx) -> Result<Vec<Value>>;

/// A row of an operator table. Build with [`Op::new`] and the `const` setters.
pub struct Op {
    name: &'static str,
    domain: &'static str,
    signature: &'static Signature,
    infer: fn(&InferCx) -> Result<Vec<ValueType>>,
    eval: Option<Eval>,
    shape_value: Option<ShapeValue>,
    kind: fn(&Attrs) -> Kind,
    expand: Option<Expand>,
    accuracy: Accuracy,
}

impl Op {
    /// An opaque operator of the standard domain.
    pub const fn new(
        name: &'static str,
        signature: &'static Signature,
        infer: fn(&InferCx) -> Result<Vec<ValueType>>,
        eval: fn(&EvalCx) -> Result<Vec<Value>>,
    ) -> Op {
        Op {
            name,
            domain: "",
            signature,
            infer,
            eval: Some(eval),
            shape_value: None,
            kind: |_| Kind::Opaque,
            expand: None,
            accuracy: Accuracy::Rounding,
        }
    }
    /// An element-wise operator, evaluated by interpreting its expression. The expression describes nodes that have all
    /// the inputs it mentions and no others.
    pub const fn elementwise(
        name: &'static str,
        signature: &'static Signature,
        infer: fn(&InferCx) -> Result<Vec<ValueType>>,
        kind: fn(&Attrs) -> Kind,
    ) -> Op {
        let op = Op::new(name, signature, infer, |_| Err(Error::internal("no semantics")));
        Op { eval: None, kind, ..op }
    }
    pub const fn domain(mut self, domain: &'static str) -> Op {
        self.domain = domain;
        self
    }
    pub const fn kind(mut self, kind: fn(&Attrs) -> Kind) -> Op {
        self.kind = kind;
        self
    }
    pub const fn accuracy(mut self, accuracy: Accuracy) -> Op {
        self.accuracy = accuracy;
        self
    }
    /// Element-wise known values of a shape-arithmetic output.
    pub const fn shape_value(mut self, f: ShapeValue) -> Op {
        self.shape_value = Some(f);
        self
    }
    pub const fn expand(mut self, f: Expand) -> Op {
        self.expand = Some(f);
        self
    }
}

impl Operator for Op {
    fn name(&self) -> &'static str {
        self.name
    }
    fn domain(&self) -> &'static str {
        self.domain
    }
    fn signature(&self) -> &'static Signature {
        self.signature
    }
    fn infer(&self, cx: &InferCx) -> Result<Vec<ValueType>> {
        (self.infer)(cx)
    }
    fn shape_value(&self, cx: &InferCx) -> Option<Vec<Dim>> {
        self.shape_value.and_then(|f| f(cx))
    }
    fn kind(&self, attrs: &Attrs) -> Kind {
        (self.kind)(attrs)
    }
    fn eval(&self, cx: &EvalCx) -> Result<Vec<Value>> {
        match (self.eval, (self.kind)(cx.attrs)) {
            (Some(f), _) => f(cx),
            (None, Kind::Elementwise(e)) => Ok(vec![Value::Tensor(expr::evaluate(&e, &cx.tensors()?)?)]),
            (None, _) => Err(Error::internal("an operator without semantics")),
        }
    }
    fn expand(&self, g: &mut Graph, n: NodeId, lookup: &dyn Lookup) -> Result<Option<Vec<Option<ValueId>>>> {
        self.expand.map_or(Ok(None), |f| f(g, n, lookup))
    }
    fn accuracy(&self) -> Accuracy {
        self.accuracy
    }
}
