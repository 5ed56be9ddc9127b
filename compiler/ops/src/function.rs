//! Operators as functions: a row's meaning is what it appends to a graph.

use ir::{
    Accuracy, Attrs, DType, Dim, Error, EvalCx, Evaluate, Feeds, Graph, InferCx, Lookup, NodeId, Operator,
    Reference, Result, Signature, Tensor, Value, ValueId, ValueType,
};

/// A value for each output, or none where the output cannot be had this way.
pub type Outputs = Vec<Option<ValueId>>;

/// An operator described by its expansion into standard operators.
pub struct Function {
    pub domain: &'static str,
    pub name: &'static str,
    pub signature: &'static Signature,
    pub build: fn(&mut Body) -> Result<Outputs>,
}

impl Function {
    /// The expansion as a graph of its own, with numbered inputs; what is known is constant.
    fn graph(
        &self,
        attrs: &Attrs,
        types: &[Option<ValueType>],
        consts: &[Option<Tensor>],
        outputs: usize,
    ) -> Result<Graph> {
        let mut g = Graph::new(self.name);
        let inputs = types.iter().enumerate().map(|(i, t)| {
            let known = consts.get(i).and_then(Option::as_ref);
            match (t, known) {
                (Some(_), Some(c)) => Some(g.add_initializer(&i.to_string(), c.clone())),
                (Some(t), None) => Some(g.add_input(&i.to_string(), t.clone())),
                (None, _) => None,
            }
        });
        let inputs = inputs.collect();
        let lookup = &crate::Standard;
        let mut body = Body {
            g: &mut g,
            lookup,
            attrs: attrs.clone(),
            inputs,
            captures: Vec::new(),
            outputs,
            blind: false,
        };
        for (i, v) in (self.build)(&mut body)?.into_iter().enumerate() {
            if let Some(v) = v.filter(|_| i < outputs) {
                g.add_output(&format!("out{i}"), v);
            } else {
                // Keeps outputs in order; nothing reads what a row leaves out.
                let none = g.add_initializer("none", Tensor::vector(Vec::<f32>::new()));
                g.add_output(&format!("out{i}"), none);
            }
        }
        ir::infer(&mut g)?;
        Ok(g)
    }
}

impl Operator for Function {
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
        let g = self.graph(cx.attrs, cx.inputs, cx.consts, cx.outputs)?;
        Ok(g.outputs().iter().map(|o| g.ty(o.value).clone()).collect())
    }
    fn eval(&self, cx: &EvalCx) -> Result<Vec<Value>> {
        let types: Vec<_> = cx.inputs.iter().map(|v| v.as_ref().map(Value::value_type)).collect();
        let tensor = |v: &Option<Value>| v.as_ref().and_then(|v| v.tensor().ok()).cloned();
        let consts: Vec<_> = cx.inputs.iter().map(tensor).collect();
        let g = self.graph(cx.attrs, &types, &consts, cx.outputs)?;
        Ok(Reference.run(&g, &Feeds::new(), &[])?.outputs)
    }
    fn expand(&self, g: &mut Graph, n: NodeId, lookup: &dyn Lookup) -> Result<Option<Outputs>> {
        let node = g.node(n)?;
        let (attrs, inputs, outputs) = (node.attrs.clone(), node.inputs().to_vec(), node.outputs().len());
        let captures = node.captures().to_vec();
        let before = g.node_bound();
        let mut body = Body { g, lookup, attrs, inputs, captures, outputs, blind: false };
        match (self.build)(&mut body) {
            Ok(outputs) => Ok(Some(outputs)),
            // What depends on types nobody knows yet stays what it is until they are known.
            Err(_) if body.blind => {
                let added: Vec<NodeId> =
                    g.nodes().map(|(id, _)| id).filter(|id| id.index() >= before).collect();
                added.into_iter().rev().try_for_each(|id| g.remove_node(id).map(drop))?;
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Accumulated
    }
}

/// A graph being extended by the meaning of one node. Types are inferred on the way.
pub struct Body<'a> {
    pub g: &'a mut Graph,
    pub lookup: &'a dyn Lookup,
    pub attrs: Attrs,
    pub inputs: Vec<Option<ValueId>>,
    /// What the node's subgraphs read from around it.
    pub captures: Vec<ValueId>,
    /// Outputs the node names, trailing absent ones left out.
    pub outputs: usize,
    /// A type was asked for that is not known.
    pub blind: bool,
}

/// No attributes.
pub fn plain() -> Attrs {
    Attrs::new()
}

impl Body<'_> {
    pub fn get(&self, i: usize) -> Option<ValueId> {
        self.inputs.get(i).copied().flatten()
    }
    pub fn need(&self, i: usize) -> Result<ValueId> {
        self.get(i).ok_or_else(|| Error::model(format!("input {i} is missing")))
    }
    /// True when attribute `name` is set to something else than zero.
    pub fn flag(&self, name: &str) -> Result<bool> {
        Ok(self.attrs.int_or(name, 0)? != 0)
    }
    /// Attributes without those that only this operator has.
    pub fn attrs_without(&self, names: &[&str]) -> Attrs {
        let mut a = self.attrs.clone();
        for n in names {
            a.remove(n);
        }
        a
    }

    /// One more operator; optional inputs may be absent.
    pub fn node(
        &mut self,
        op: &str,
        attrs: Attrs,
        inputs: &[Option<ValueId>],
        outputs: usize,
    ) -> Result<Vec<ValueId>> {
        let operator = self.lookup.require("", op)?;
        let names = vec![op; outputs];
        let name = self.g.fresh_name(op);
        let id = self.g.add_node(&name, operator, attrs, inputs, &names);
        // Types as we go; errors surface in the inference after import.
        drop(ir::infer_node(self.g, id));
        Ok(self.g.node(id)?.outputs().iter().flatten().copied().collect())
    }
    pub fn op_with(&mut self, op: &str, attrs: Attrs, inputs: &[ValueId]) -> Result<ValueId> {
        let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
        self.opt(op, attrs, &inputs)
    }
    pub fn op(&mut self, op: &str, inputs: &[ValueId]) -> Result<ValueId> {
        self.op_with(op, plain(), inputs)
    }
    pub fn opt(&mut self, op: &str, attrs: Attrs, inputs: &[Option<ValueId>]) -> Result<ValueId> {
        let made = self.node(op, attrs, inputs, 1)?;
        made.first().copied().ok_or_else(|| Error::internal("a node without an output"))
    }

    pub fn constant(&mut self, t: Tensor) -> ValueId {
        self.g.add_initializer("constant", t)
    }
    pub fn ints(&mut self, v: &[i64]) -> ValueId {
        self.constant(Tensor::vector(v.to_vec()))
    }
    /// A scalar of the float type of `like`.
    pub fn number(&mut self, like: ValueId, x: f32) -> Result<ValueId> {
        let dtype = self.g.dtype(like).filter(|d| d.is_float()).unwrap_or(DType::F32);
        let t = Tensor::from_f32s(dtype, &[], vec![x])?;
        Ok(self.constant(t))
    }

    pub fn dtype(&mut self, v: ValueId) -> Result<DType> {
        let known = self.g.dtype(v);
        self.blind |= known.is_none();
        known.ok_or_else(|| Error::unsupported("an input of unknown element type"))
    }
    pub fn rank(&mut self, v: ValueId) -> Result<usize> {
        let known = self.g.ty(v).rank();
        self.blind |= known.is_none();
        known.ok_or_else(|| Error::unsupported("an input of unknown rank"))
    }
    /// A known size; `axis` counts from the end when negative.
    pub fn size(&self, v: ValueId, axis: i64) -> Option<usize> {
        let s = self.g.ty(v).shape()?;
        let i = if axis < 0 { s.len().checked_sub(axis.unsigned_abs() as usize)? } else { axis as usize };
        s.get(i).and_then(Dim::known)
    }

    pub fn transpose(&mut self, v: ValueId, perm: &[i64]) -> Result<ValueId> {
        self.op_with("Transpose", plain().with("perm", perm.to_vec()), &[v])
    }
    pub fn reshape(&mut self, v: ValueId, shape: &[i64]) -> Result<ValueId> {
        let s = self.ints(shape);
        self.op("Reshape", &[v, s])
    }
    pub fn concat(&mut self, axis: i64, parts: &[ValueId]) -> Result<ValueId> {
        self.op_with("Concat", plain().with("axis", axis), parts)
    }
    pub fn unsqueeze(&mut self, v: ValueId, axes: &[i64]) -> Result<ValueId> {
        let axes = self.ints(axes);
        self.op("Unsqueeze", &[v, axes])
    }
    pub fn squeeze(&mut self, v: ValueId, axes: &[i64]) -> Result<ValueId> {
        let axes = self.ints(axes);
        self.op("Squeeze", &[v, axes])
    }
    pub fn cast(&mut self, v: ValueId, to: DType) -> Result<ValueId> {
        if self.g.dtype(v) == Some(to) {
            return Ok(v);
        }
        self.op_with("Cast", plain().with("to", i64::from(to.onnx())), &[v])
    }
    /// Elements `from..to` along `axis`; both ends are one-element vectors.
    pub fn slice(&mut self, v: ValueId, from: ValueId, to: ValueId, axis: i64) -> Result<ValueId> {
        let axis = self.ints(&[axis]);
        self.op("Slice", &[v, from, to, axis])
    }
    /// A size as a one-element vector, read when the model runs unless it is known.
    pub fn dim(&mut self, v: ValueId, axis: i64) -> Result<ValueId> {
        if let Some(n) = self.size(v, axis) {
            return Ok(self.ints(&[n as i64]));
        }
        let axis = if axis < 0 { axis + self.rank(v)? as i64 } else { axis };
        self.op_with("Shape", plain().with("start", axis).with("end", axis + 1), &[v])
    }
    /// 0, 1, … below `n`, a one-element vector.
    pub fn range(&mut self, n: ValueId) -> Result<ValueId> {
        let (zero, one) = (self.constant(Tensor::scalar(0i64)), self.constant(Tensor::scalar(1i64)));
        let n = self.squeeze(n, &[0])?;
        self.op("Range", &[zero, n, one])
    }
    /// Channels-first as channels-last or the other way round.
    pub fn channels(&mut self, v: ValueId, last: bool) -> Result<ValueId> {
        let rank = self.rank(v)? as i64;
        let perm: Vec<i64> = if last {
            std::iter::once(0).chain(2..rank).chain([1]).collect()
        } else {
            [0, rank - 1].into_iter().chain(1..rank - 1).collect()
        };
        self.transpose(v, &perm)
    }
    /// What a graph attribute makes of one value; without the attribute, the value.
    pub fn modified(&mut self, attr: &str, x: ValueId) -> Result<ValueId> {
        let Some(body) = self.attrs.graph(attr)?.cloned() else { return Ok(x) };
        if body.inputs().len() != 1 || body.outputs().len() != 1 {
            return Err(Error::model(format!("attribute '{attr}' must take one value and give one")));
        }
        let before = self.g.node_bound();
        let made = body.inline_into(self.g, &[x], &self.captures.clone())?;
        let added: Vec<NodeId> = self.g.nodes().map(|(id, _)| id).filter(|id| id.index() >= before).collect();
        added.into_iter().for_each(|id| drop(ir::infer_node(self.g, id)));
        made.first().copied().ok_or_else(|| Error::internal("a graph without an output"))
    }
    /// `x + y`, or `x` where there is no `y`.
    pub fn plus(&mut self, x: ValueId, y: Option<ValueId>) -> Result<ValueId> {
        y.map_or(Ok(x), |y| self.op("Add", &[x, y]))
    }
}
