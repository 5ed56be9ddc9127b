//! Grows a graph node by node next to the values it computes: a node that the reference refuses is left out, so every case
//! runs, and shapes and element types are known without a second description of the operators.

use arbitrary::{Result, Unstructured};
use ir::{Attrs, DType, EvalCx, Feeds, Graph, Signature, Tensor, Types, Value, ValueId, ValueType};

/// Largest tensor of a case, elements.
const LARGEST: usize = 6_000;
/// Small sizes, primes, edges of vector widths.
const SIZES: &[usize] = &[1, 2, 3, 4, 5, 7, 8, 9, 16, 17];
/// Those of the float edges whose sums and products mostly stay finite.
const EDGES: &[f64] = crate::pair::EDGES.split_at(14).0;

/// A value of the graph and what it is in this case.
pub struct Made {
    pub value: ValueId,
    pub tensor: Tensor,
}

pub struct Build<'a, 'b> {
    pub u: &'a mut Unstructured<'b>,
    pub graph: Graph,
    pub feeds: Feeds,
    pub made: Vec<Made>,
    /// Operators placed.
    pub placed: usize,
}

impl<'a, 'b> Build<'a, 'b> {
    pub fn new(u: &'a mut Unstructured<'b>) -> Build<'a, 'b> {
        let mut graph = Graph::new("case");
        graph.meta.opset = 26;
        Build { u, graph, feeds: Feeds::new(), made: Vec::new(), placed: 0 }
    }

    /// Goes on with a graph that is there.
    pub fn over(u: &'a mut Unstructured<'b>, graph: Graph, made: Vec<Made>) -> Build<'a, 'b> {
        Build { u, graph, feeds: Feeds::new(), made, placed: 0 }
    }

    pub fn below(&mut self, n: usize) -> Result<usize> {
        self.u.int_in_range(0..=n.max(1) - 1)
    }
    pub fn flip(&mut self) -> Result<bool> {
        self.u.arbitrary()
    }
    pub fn one_of<T: Copy>(&mut self, all: &[T]) -> Result<T> {
        self.u.choose(all).copied()
    }
    /// Seldom 0.
    pub fn size(&mut self) -> Result<usize> {
        if self.u.ratio(1, 60)? { Ok(0) } else { self.one_of(SIZES) }
    }
    pub fn shape(&mut self, rank: usize) -> Result<Vec<usize>> {
        let mut shape = Vec::new();
        for i in 0..rank {
            let room = LARGEST / shape.iter().product::<usize>().max(1);
            let n = if rank > 2 && i == 0 { self.u.int_in_range(1..=2)? } else { self.size()? };
            shape.push(n.min(room));
        }
        Ok(shape)
    }

    /// Values near 0, whole ranges of bytes, and now and then the edges.
    pub fn tensor(&mut self, dtype: DType, shape: &[usize]) -> Result<Tensor> {
        let seed = u64::from(self.u.arbitrary::<u32>()?);
        let edges = self.u.ratio(1, 12)?;
        let hash = |i: usize| {
            let z = (seed << 20 ^ i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (z ^ (z >> 27)) >> 8
        };
        let n: usize = shape.iter().product();
        let made = if dtype.is_float() {
            let f = |i: usize| {
                let h = hash(i);
                match h & 15 {
                    0 if edges => EDGES[(h >> 8) as usize % EDGES.len()],
                    1 => 0.0,
                    2 => 1.0,
                    _ => ((h >> 16) & 0xffff) as f64 / 16384.0 - 2.0,
                }
            };
            Tensor::from_f64s(dtype, shape, (0..n).map(f).collect())
        } else {
            let (low, high) = match dtype {
                DType::Bool => (0, 1),
                DType::U8 | DType::U16 => (0, 255),
                DType::U32 | DType::U64 => (0, 20),
                DType::I8 => (-128, 127),
                _ => (-9, 9),
            };
            let f = |i: usize| low + (hash(i) % (high - low + 1) as u64) as i64;
            Tensor::from_i64s(dtype, shape, (0..n).map(f).collect())
        };
        made.map_err(|_| arbitrary::Error::IncorrectFormat)
    }

    pub fn constant(&mut self, t: Tensor) -> ValueId {
        let value = self.graph.add_initializer("c", t.clone());
        self.made.push(Made { value, tensor: t });
        value
    }
    pub fn ints(&mut self, v: Vec<i64>) -> ValueId {
        // Not offered to later operators: it would be read as data.
        self.graph.add_initializer("i", Tensor::vector(v))
    }
    pub fn scalar(&mut self, dtype: DType, x: f64) -> Result<ValueId> {
        let t = Tensor::from_f64s(dtype, &[], vec![x])
            .or_else(|_| Tensor::from_i64s(dtype, &[], vec![x as i64]))
            .map_err(|_| arbitrary::Error::IncorrectFormat)?;
        Ok(self.graph.add_initializer("s", t))
    }
    pub fn input(&mut self, t: Tensor) -> ValueId {
        let name = format!("x{}", self.feeds.len());
        let value = self.graph.add_input(&name, ValueType::of(&t));
        self.feeds.insert(name, t.clone().into());
        self.made.push(Made { value, tensor: t });
        value
    }
    /// A constant or an input.
    pub fn fresh(&mut self, dtype: DType, shape: &[usize]) -> Result<ValueId> {
        let t = self.tensor(dtype, shape)?;
        Ok(if self.u.ratio(2, 3)? { self.constant(t) } else { self.input(t) })
    }

    /// Weights of a window: padding times an infinite weight has no defined value.
    pub fn finite(&mut self, shape: &[usize]) -> Result<ValueId> {
        let t = self.tensor(DType::F32, shape)?;
        let data = t.to_f32s().map_err(|_| arbitrary::Error::IncorrectFormat)?;
        let data = data.into_iter().map(|x| if x.is_finite() { x.clamp(-4.0, 4.0) } else { 1.0 }).collect();
        let t = Tensor::new(shape, data).map_err(|_| arbitrary::Error::IncorrectFormat)?;
        Ok(if self.u.ratio(2, 3)? { self.constant(t) } else { self.input(t) })
    }

    pub fn known(&self, v: ValueId) -> Option<&Tensor> {
        self.made.iter().find(|m| m.value == v).map(|m| &m.tensor).or_else(|| self.graph.constant(v))
    }
    pub fn dims(&self, v: ValueId) -> Vec<usize> {
        self.known(v).map(|t| t.shape().to_vec()).unwrap_or_default()
    }
    pub fn dtype(&self, v: ValueId) -> DType {
        self.known(v).map_or(DType::F32, Tensor::dtype)
    }

    /// A value made before that `fits`, recent ones more often.
    pub fn find(&mut self, fits: impl Fn(&Tensor) -> bool) -> Result<Option<ValueId>> {
        let all: Vec<ValueId> = self.made.iter().filter(|m| fits(&m.tensor)).map(|m| m.value).collect();
        let Some(&last) = all.last() else { return Ok(None) };
        Ok(Some(if self.u.ratio(2, 3)? { last } else { *self.u.choose(&all)? }))
    }
    /// A value of this type and rank, made before or now.
    pub fn need(&mut self, dtype: DType, rank: usize) -> Result<ValueId> {
        match self.find(|t| t.dtype() == dtype && t.rank() == rank)? {
            Some(v) => Ok(v),
            None => {
                let s = self.shape(rank)?;
                self.fresh(dtype, &s)
            }
        }
    }
    /// A float value of at least `rank`.
    pub fn float(&mut self, rank: usize) -> Result<ValueId> {
        match self.find(|t| t.dtype() == DType::F32 && t.rank() >= rank)? {
            Some(v) => Ok(v),
            None => self.need(DType::F32, rank.max(2)),
        }
    }
    /// A tensor that broadcasts with `shape`: the same, a suffix, some dims 1, or one element.
    pub fn peer(&mut self, dtype: DType, shape: &[usize]) -> Result<ValueId> {
        if self.u.ratio(1, 3)?
            && let Some(v) = self.find(|t| t.dtype() == dtype && t.shape() == shape)?
        {
            return Ok(v);
        }
        let from = self.below(shape.len() + 1)?;
        let mut s = shape[from..].to_vec();
        for d in &mut s {
            if self.u.ratio(1, 3)? {
                *d = 1;
            }
        }
        self.fresh(dtype, &s)
    }

    /// Places a node with these inputs unless the reference refuses it or its result is too large.
    pub fn place(&mut self, op: &str, attrs: Attrs, inputs: &[Option<ValueId>], outputs: usize) {
        let Ok(op) = ops::standard(op) else { return };
        let values: Vec<Option<Value>> =
            inputs.iter().map(|v| v.and_then(|v| self.known(v).cloned().map(Value::from))).collect();
        if !typed(op.signature(), &values) || ir::check_form(op, &attrs, inputs, outputs).is_err() {
            return;
        }
        let none = |_: &Graph, _: Vec<Value>| Err(ir::Error::internal("no subgraph"));
        let cx = EvalCx { node: "", attrs: &attrs, inputs: &values, captures: &[], outputs, subgraph: &none };
        let Ok(results) = op.eval(&cx) else { return };
        if results.iter().any(|r| r.tensor().is_ok_and(|t| t.len() > LARGEST)) {
            return;
        }
        let hints = vec![op.name(); outputs];
        let id = self.graph.add_node("", op, attrs, inputs, &hints);
        ir::infer_node(&mut self.graph, id)
            .unwrap_or_else(|e| panic!("inference refuses what the reference runs: {}: {e}", op.name()));
        let out: Vec<ValueId> =
            self.graph.get(id).map(|n| n.outputs().iter().flatten().copied().collect()).unwrap_or_default();
        for (value, r) in out.into_iter().zip(results) {
            if let Err(e) = self.graph.ty(value).merge(&r.value_type()) {
                panic!("{} gives {}, inferred {}: {e}", op.name(), r.value_type(), self.graph.ty(value));
            }
            if let Value::Tensor(tensor) = r {
                self.made.push(Made { value, tensor });
            }
        }
        self.placed += 1;
    }
    pub fn plain(&mut self, op: &str, attrs: Attrs, inputs: &[ValueId]) {
        let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
        self.place(op, attrs, &inputs, 1);
    }
}

/// Whether the element types are those of the specification, type variables included.
fn typed(s: &Signature, values: &[Option<Value>]) -> bool {
    let dtype = |v: &Option<Value>| if let Some(Value::Tensor(t)) = v { Some(t.dtype()) } else { None };
    allowed(s, values.iter().map(dtype))
}

/// The same for types alone; `None` is absent or no tensor.
pub fn allowed(s: &Signature, inputs: impl Iterator<Item = Option<DType>>) -> bool {
    let mut bound: Vec<(&str, DType)> = Vec::new();
    inputs.enumerate().all(|(i, d)| {
        let (Some(d), Some(f)) = (d, s.inputs.get(i).or(s.inputs.last())) else { return true };
        let Types::Of(all) = f.types else { return true };
        let same = bound.iter().all(|(n, b)| *n != f.type_name || *b == d);
        bound.push((f.type_name, d));
        same && all.contains(&d)
    })
}
