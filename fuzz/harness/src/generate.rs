//! Typed, shape-correct graphs from bytes.

use arbitrary::{Result, Unstructured};
use ir::{Attrs, DType, Feeds, Graph, Tensor, ValueId, ValueType};

/// Most operators in one graph.
const MAX_NODES: usize = 14;
/// Sizes at the edges of vector widths, and small ones.
const SIZES: &[usize] = &[1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 33];

/// A graph and values for its inputs.
#[derive(Debug)]
pub struct Case {
    pub graph: Graph,
    pub feeds: Feeds,
}

struct Maker<'a, 'b> {
    u: &'a mut Unstructured<'b>,
    g: Graph,
    /// Float values made so far, with their shapes.
    made: Vec<(ValueId, Vec<usize>)>,
}

const UNARY: &[&str] = &[
    "Relu",
    "Sigmoid",
    "Tanh",
    "Neg",
    "Abs",
    "Exp",
    "Erf",
    "HardSwish",
    "HardSigmoid",
    "LeakyRelu",
    "Elu",
    "Softplus",
    "Gelu",
    "Swish",
    "Floor",
    "Identity",
];
const BINARY: &[&str] = &["Add", "Sub", "Mul", "Div", "Max", "Min"];

/// A case of one image-like input and a chain of operators with branches.
pub fn case(u: &mut Unstructured) -> Result<Case> {
    let rank = u.int_in_range(1..=4)?;
    let shape: Vec<usize> =
        (0..rank).map(|i| size(u, if i == 0 { 2 } else { SIZES.len() })).collect::<Result<_>>()?;
    let mut g = Graph::new("case");
    g.meta.opset = 21;
    let x = g.add_input("x", ValueType::known(DType::F32, &shape));
    let mut m = Maker { u, g, made: vec![(x, shape.clone())] };
    for _ in 0..m.u.int_in_range(1..=MAX_NODES)? {
        m.node()?;
    }
    let last = m.made.len() - 1;
    for i in [last, last / 2] {
        let name = format!("y{}", m.g.outputs().len());
        let v = m.made[i].0;
        m.g.add_output(&name, v);
    }
    let feeds = Feeds::from([("x".to_string(), m.tensor(&shape)?.into())]);
    Ok(Case { graph: m.g, feeds })
}

/// Columns of products: around the widths of tiles and of their panels.
const WIDTHS: &[usize] = &[1, 3, 8, 15, 16, 17, 32, 33, 48, 63, 64, 65, 80, 96, 97, 130];
/// What stands between a contraction and a sum, and behind it.
const ACTIVATIONS: &[&str] =
    &["Relu", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid", "LeakyRelu", "Gelu", "Swish", "Elu", "Neg"];

/// Blocks around which their input goes, as in residual nets and transformers: a contraction that keeps the shape, with or
/// without activations, and a sum.
pub fn blocks(u: &mut Unstructured) -> Result<Case> {
    let width = *u.choose(WIDTHS)?;
    let image = u.ratio(1, 2)?;
    let side = if width > 33 { 4 } else { 9 };
    let shape: Vec<usize> = if image {
        vec![1, width, u.int_in_range(1..=side)?, u.int_in_range(1..=side)?]
    } else {
        let rows = u.int_in_range(1..=19)?;
        if u.arbitrary()? { vec![rows, width] } else { vec![2, rows, width] }
    };
    let mut g = Graph::new("blocks");
    g.meta.opset = 21;
    let x = g.add_input("x", ValueType::known(DType::F32, &shape));
    let mut m = Maker { u, g, made: vec![(x, shape.clone())] };
    for _ in 0..m.u.int_in_range(1..=4)? {
        m.block(image)?;
    }
    let last = m.made.len() - 1;
    for i in if m.u.ratio(1, 3)? { vec![last, last - 1] } else { vec![last] } {
        let name = format!("y{}", m.g.outputs().len());
        let v = m.made[i].0;
        m.g.add_output(&name, v);
    }
    let feeds = Feeds::from([("x".to_string(), m.tensor(&shape)?.into())]);
    Ok(Case { graph: m.g, feeds })
}

fn size(u: &mut Unstructured, limit: usize) -> Result<usize> {
    Ok(SIZES[u.int_in_range(0..=limit.min(SIZES.len()) - 1)?])
}

impl Maker<'_, '_> {
    /// Values between −2 and 2, some of them exactly 0 or 1.
    fn tensor(&mut self, shape: &[usize]) -> Result<Tensor> {
        let n: usize = shape.iter().product();
        let seed = u64::from(self.u.arbitrary::<u32>()?);
        let value = |i: usize| {
            let h =
                (seed ^ (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            match h >> 60 {
                0 => 0.0,
                1 => 1.0,
                _ => ((h >> 20) & 0xffff) as f32 / 16384.0 - 2.0,
            }
        };
        Ok(Tensor::new(shape, (0..n).map(value).collect()).unwrap_or_else(|_| Tensor::scalar(0f32)))
    }

    fn pick(&mut self) -> Result<(ValueId, Vec<usize>)> {
        // Recent values more often: chains are where fusion happens.
        let n = self.made.len();
        let back = if self.u.ratio(3, 4)? { 0 } else { self.u.int_in_range(0..=n - 1)? };
        Ok(self.made[n - 1 - back].clone())
    }

    fn apply(&mut self, op: &str, attrs: Attrs, inputs: &[ValueId], shape: Vec<usize>) {
        if let Ok(o) = ops::standard(op) {
            let v = self.g.apply("", o, attrs, inputs);
            self.made.push((v, shape));
        }
    }

    /// A contraction of the last value to its own shape, activations, and the sum with an earlier value.
    fn block(&mut self, image: bool) -> Result<()> {
        let (from, shape) = self.made[self.made.len() - 1].clone();
        let earlier = self.made[self.u.int_in_range(0..=self.made.len() - 1)?].0;
        let width = shape[if image { 1 } else { shape.len() - 1 }];
        if image {
            let k = *self.u.choose(&[1usize, 3])?;
            let group = if self.u.ratio(1, 4)? { width } else { 1 };
            let w = self.tensor(&[width, width / group, k, k])?;
            let mut inputs = vec![from, self.g.add_initializer("w", w)];
            if self.u.arbitrary()? {
                let b = self.tensor(&[width])?;
                inputs.push(self.g.add_initializer("b", b));
            }
            let attrs = Attrs::new().with("group", group as i64).with("pads", vec![(k / 2) as i64; 4]);
            self.apply("Conv", attrs, &inputs, shape.clone());
        } else {
            let w = self.tensor(&[width, width])?;
            let w = self.g.add_initializer("w", w);
            self.apply("MatMul", Attrs::new(), &[from, w], shape.clone());
            if self.u.arbitrary()? {
                let b = self.tensor(&[width])?;
                let inputs = [self.made[self.made.len() - 1].0, self.g.add_initializer("b", b)];
                self.apply("Add", Attrs::new(), &inputs, shape.clone());
            }
        }
        self.norm(&shape, image)?;
        self.activation(&shape)?;
        if self.u.ratio(3, 4)? {
            let v = self.made[self.made.len() - 1].0;
            let inputs = if self.u.arbitrary()? { [v, earlier] } else { [earlier, v] };
            self.apply("Add", Attrs::new(), &inputs, shape.clone());
            self.activation(&shape)?;
        }
        Ok(())
    }

    /// A third of the time: what such nets normalise by.
    fn norm(&mut self, shape: &[usize], image: bool) -> Result<()> {
        if !self.u.ratio(1, 3)? {
            return Ok(());
        }
        let v = self.made[self.made.len() - 1].0;
        let n = shape[if image { 1 } else { shape.len() - 1 }];
        let mut inputs = vec![v];
        for i in 0..if image { 4 } else { 2 } {
            let mut t = self.tensor(&[n])?;
            if i == 3 {
                // A variance is not negative.
                let data = t.to_f32s().unwrap_or_default().into_iter().map(|x| x.abs() + 0.1).collect();
                t = Tensor::new(&[n], data).unwrap_or(t);
            }
            inputs.push(self.g.add_initializer("p", t));
        }
        let op = if image { "BatchNormalization" } else { "LayerNormalization" };
        self.apply(op, Attrs::new(), &inputs, shape.to_vec());
        Ok(())
    }

    /// Half of the time.
    fn activation(&mut self, shape: &[usize]) -> Result<()> {
        if self.u.arbitrary()? {
            let (op, v) = (*self.u.choose(ACTIVATIONS)?, self.made[self.made.len() - 1].0);
            self.apply(op, Attrs::new(), &[v], shape.to_vec());
        }
        Ok(())
    }

    fn node(&mut self) -> Result<()> {
        let (v, shape) = self.pick()?;
        match self.u.int_in_range(0..=11)? {
            0..=2 => {
                let op = *self.u.choose(UNARY)?;
                self.apply(op, Attrs::new(), &[v], shape);
            }
            3..=5 => self.binary(v, shape)?,
            6 if shape.len() == 4 => self.conv(v, &shape)?,
            6 | 7 => self.matmul(v, &shape)?,
            8 => {
                let mut perm: Vec<i64> = (0..shape.len() as i64).collect();
                for i in (1..perm.len()).rev() {
                    let j = self.u.int_in_range(0..=i)?;
                    perm.swap(i, j);
                }
                let out = perm.iter().map(|&p| shape[p as usize]).collect();
                self.apply("Transpose", Attrs::new().with("perm", perm), &[v], out);
            }
            9 => {
                let axis = self.u.int_in_range(0..=shape.len() - 1)?;
                let op = *self.u.choose(&["Softmax", "ReduceMean", "ReduceMax", "Concat"])?;
                self.along(op, v, shape, axis);
            }
            10 => {
                let n: usize = shape.iter().product();
                let first = shape[0] as i64;
                let target = self.g.add_initializer("shape", Tensor::vector(vec![first, -1]));
                self.apply("Reshape", Attrs::new(), &[v, target], vec![shape[0], n / shape[0].max(1)]);
            }
            _ if shape.len() == 4 => {
                let op = *self.u.choose(&["GlobalAveragePool", "MaxPool"])?;
                if op == "MaxPool" && shape[2] > 1 && shape[3] > 1 {
                    let attrs = Attrs::new().with("kernel_shape", vec![2, 2]);
                    let out = vec![shape[0], shape[1], shape[2] - 1, shape[3] - 1];
                    self.apply(op, attrs, &[v], out);
                } else {
                    self.apply("GlobalAveragePool", Attrs::new(), &[v], vec![shape[0], shape[1], 1, 1]);
                }
            }
            _ => self.apply("Relu", Attrs::new(), &[v], shape),
        }
        Ok(())
    }

    fn binary(&mut self, v: ValueId, shape: Vec<usize>) -> Result<()> {
        let op = *self.u.choose(BINARY)?;
        let peers: Vec<ValueId> = self.made.iter().filter(|(_, s)| *s == shape).map(|(v, _)| *v).collect();
        let other = match self.u.int_in_range(0..=3)? {
            0 => *self.u.choose(&peers)?,
            1 => {
                let t = self.tensor(&[])?;
                self.g.add_initializer("c", t)
            }
            k => {
                // A constant along one axis, or along the last.
                let axis = if k == 2 { shape.len() - 1 } else { self.u.int_in_range(0..=shape.len() - 1)? };
                let mut s = vec![1; shape.len() - axis];
                s[0] = shape[axis];
                let t = self.tensor(&s)?;
                self.g.add_initializer("c", t)
            }
        };
        let swap = self.u.ratio(1, 4)?;
        let inputs = if swap { [other, v] } else { [v, other] };
        self.apply(op, Attrs::new(), &inputs, shape);
        Ok(())
    }

    fn conv(&mut self, v: ValueId, shape: &[usize]) -> Result<()> {
        let k = self.u.int_in_range(1..=3usize)?.min(shape[2]).min(shape[3]);
        let depthwise = self.u.ratio(1, 3)?;
        let (group, cout) = if depthwise { (shape[1], shape[1]) } else { (1, size(self.u, SIZES.len())?) };
        let stride = self.u.int_in_range(1..=2usize)?;
        let pad = self.u.int_in_range(0..=k - 1)?;
        let w = self.tensor(&[cout, shape[1] / group, k, k])?;
        let w = self.g.add_initializer("w", w);
        let mut inputs = vec![v, w];
        if self.u.arbitrary()? {
            let b = self.tensor(&[cout])?;
            inputs.push(self.g.add_initializer("b", b));
        }
        let p = pad as i64;
        let attrs = Attrs::new()
            .with("group", group as i64)
            .with("strides", vec![stride as i64; 2])
            .with("pads", vec![p; 4]);
        let side = |n: usize| (n + 2 * pad - k) / stride + 1;
        self.apply("Conv", attrs, &inputs, vec![shape[0], cout, side(shape[2]), side(shape[3])]);
        Ok(())
    }

    fn matmul(&mut self, v: ValueId, shape: &[usize]) -> Result<()> {
        let (Some(&k), true) = (shape.last(), shape.len() >= 2) else { return Ok(()) };
        let n = size(self.u, SIZES.len())?;
        let w = self.tensor(&[k, n])?;
        let w = self.g.add_initializer("w", w);
        let mut out = shape.to_vec();
        out[shape.len() - 1] = n;
        self.apply("MatMul", Attrs::new(), &[v, w], out);
        Ok(())
    }

    fn along(&mut self, op: &str, v: ValueId, shape: Vec<usize>, axis: usize) {
        match op {
            "Softmax" => self.apply(op, Attrs::new().with("axis", axis as i64), &[v], shape),
            "Concat" => {
                let mut out = shape.clone();
                out[axis] *= 2;
                if out[axis] <= 66 {
                    self.apply(op, Attrs::new().with("axis", axis as i64), &[v, v], out);
                }
            }
            _ => {
                let axes = self.g.add_initializer("axes", Tensor::vector(vec![axis as i64]));
                let mut out = shape;
                out[axis] = 1;
                self.apply(op, Attrs::new(), &[v, axes], out);
            }
        }
    }
}
