//! A graph under extension: standard operators with little ceremony.

use ir::{Attrs, DType, Error, Graph, Result, Shape, Tensor, ValueId};

/// Names of what is appended start with this.
const PREFIX: &str = "gradient";

pub struct Build {
    pub graph: Graph,
}

impl Build {
    pub fn new(graph: Graph) -> Build {
        Build { graph }
    }

    /// The concrete shape of a value of the original graph.
    pub fn shape(&self, v: ValueId) -> Result<Shape> {
        self.graph.ty(v).concrete().ok_or_else(|| {
            let name = self.graph.value_name(v);
            Error::unsupported("a shape is open; infer types for concrete inputs first").tensor(name)
        })
    }

    pub fn dtype(&self, v: ValueId) -> Result<DType> {
        let name = self.graph.value_name(v);
        self.graph.dtype(v).ok_or_else(|| Error::unsupported("a type is not known").tensor(name))
    }

    pub fn op(&mut self, name: &str, inputs: &[ValueId]) -> Result<ValueId> {
        self.with(name, Attrs::new(), inputs)
    }

    pub fn with(&mut self, name: &str, attrs: Attrs, inputs: &[ValueId]) -> Result<ValueId> {
        Ok(self.graph.apply(&format!("{PREFIX}.{name}"), ops::standard(name)?, attrs, inputs))
    }

    pub fn constant(&mut self, t: Tensor) -> ValueId {
        self.graph.add_initializer(PREFIX, t)
    }

    pub fn ints(&mut self, v: &[i64]) -> ValueId {
        self.constant(Tensor::vector::<i64>(v.to_vec()))
    }

    pub fn sizes(&mut self, v: &[usize]) -> ValueId {
        let v: Vec<i64> = v.iter().map(|&d| d as i64).collect();
        self.ints(&v)
    }

    /// One number of the type of `like`.
    pub fn number(&mut self, like: ValueId, x: f64) -> Result<ValueId> {
        let t = Tensor::from_f64s(self.dtype(like)?, &[], vec![x])?;
        Ok(self.constant(t))
    }

    /// `shape` full of one number of the type of `like`, made when it is needed.
    pub fn fill(&mut self, like: ValueId, shape: &[usize], x: f64) -> Result<ValueId> {
        let x = self.number(like, x)?;
        let s = self.sizes(shape);
        self.op("Expand", &[x, s])
    }

    pub fn reshape(&mut self, x: ValueId, shape: &[usize]) -> Result<ValueId> {
        let s = self.sizes(shape);
        // A zero is a size here, not a copy of the input's.
        self.with("Reshape", Attrs::new().with("allowzero", 1i64), &[x, s])
    }

    pub fn expand(&mut self, x: ValueId, shape: &[usize]) -> Result<ValueId> {
        let s = self.sizes(shape);
        self.op("Expand", &[x, s])
    }

    pub fn transpose(&mut self, x: ValueId, perm: &[usize]) -> Result<ValueId> {
        let perm: Vec<i64> = perm.iter().map(|&p| p as i64).collect();
        self.with("Transpose", Attrs::new().with("perm", perm), &[x])
    }

    pub fn sum(&mut self, x: ValueId, axes: &[usize], keep: bool) -> Result<ValueId> {
        if axes.is_empty() {
            return Ok(x);
        }
        let axes = self.sizes(axes);
        self.with("ReduceSum", Attrs::new().with("keepdims", i64::from(keep)), &[x, axes])
    }

    /// Undoes a broadcast of `to` to `from` in a gradient.
    pub fn sum_to(&mut self, x: ValueId, from: &[usize], to: &[usize]) -> Result<ValueId> {
        if from == to {
            return Ok(x);
        }
        let lead = from.len().saturating_sub(to.len());
        let axes: Vec<usize> =
            (0..from.len()).filter(|&a| a < lead || (to[a - lead] == 1 && from[a] != 1)).collect();
        let x = self.sum(x, &axes, false)?;
        self.reshape(x, to)
    }

    /// Elements `start..end` along one axis.
    pub fn slice(&mut self, x: ValueId, axis: usize, start: usize, end: usize) -> Result<ValueId> {
        let bounds = [start, end, axis].map(|v| self.sizes(&[v]));
        self.op("Slice", &[x, bounds[0], bounds[1], bounds[2]])
    }

    /// Exchanges the last two axes.
    pub fn flipped(&mut self, x: ValueId, rank: usize) -> Result<ValueId> {
        let mut perm: Vec<usize> = (0..rank).collect();
        perm.swap(rank - 1, rank - 2);
        self.transpose(x, &perm)
    }
}
