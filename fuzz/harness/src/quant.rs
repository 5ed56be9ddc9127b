//! Quantized graphs on integer kernels of every tier.
//!
//! Scales are powers of two and sums stay below 2²⁴, so that the reference's floats are exact: its answer is the one
//! answer, and every tier has to give it bit for bit. Odd scales are in the cases too; there the tiers have to agree with
//! each other, and with the reference up to one step of the result.

use crate::check::{Stop, found, identical};
use crate::generate::Case;
use crate::random::Random;
use ir::{Attrs, DType, Evaluate, Feeds, Graph, Reference, Tensor, Value, ValueId, ValueType};

/// Sizes around the widths of registers and of their halves, and small ones.
const SIZES: &[usize] = &[1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65];

struct Maker {
    r: Random,
    g: Graph,
    feeds: Feeds,
    exact: bool,
}

/// A quantized layer or two, the answer of which is exact for `Case` and true.
pub fn quantized(seed: u64) -> Option<(Case, bool)> {
    let mut r = Random(seed);
    let exact = !r.chance(1, 5);
    let mut g = Graph::new("quantized");
    g.meta.opset = 21;
    let mut m = Maker { r, g, feeds: Feeds::new(), exact };
    m.build()?;
    let mut graph = m.g;
    ir::infer(&mut graph).ok()?;
    Some((Case { graph, feeds: m.feeds }, m.exact))
}

impl Maker {
    fn op(&mut self, op: &str, attrs: Attrs, inputs: &[ValueId]) -> Option<ValueId> {
        Some(self.g.apply("", ops::standard(op).ok()?, attrs, inputs))
    }
    fn scale(&mut self, n: Option<usize>) -> Tensor {
        let r = &mut self.r;
        let exact = self.exact;
        let mut one = || {
            let p = 2f32.powi(-(r.below(4) as i32) - 3);
            if exact { p } else { p * (1.0 + r.below(1000) as f32 / 1000.0) }
        };
        match n {
            None => Tensor::scalar(one()),
            Some(n) => Tensor::vector((0..n).map(|_| one()).collect()),
        }
    }
    fn zero(&mut self, d: DType, n: Option<usize>, symmetric: bool) -> Option<Tensor> {
        let r = &mut self.r;
        let mut one = || match (symmetric, d) {
            (true, _) => 0,
            (_, DType::U8) => [0, 1, 127, 128, 200, 255][r.below(6)],
            _ => [0, 1, -1, 5, -128, 127][r.below(6)],
        };
        let shape: Vec<usize> = n.into_iter().collect();
        Tensor::from_i64s(d, &shape, (0..n.unwrap_or(1)).map(|_| one()).collect()).ok()
    }
    fn codes(&mut self, d: DType, shape: &[usize], few: bool) -> Option<Tensor> {
        let n: usize = shape.iter().product();
        let edges = self.r.chance(1, 4);
        let (lo, span) = if d == DType::U8 { (0, 256) } else { (-128, 256) };
        let r = &mut self.r;
        let one = |r: &mut Random| match (edges, few) {
            (true, _) => lo + [0, 255, 128, 127][r.below(4)],
            (_, true) => lo + 128 - 8 + r.below(16) as i64,
            _ => lo + r.below(span) as i64,
        };
        Tensor::from_i64s(d, shape, (0..n).map(|_| one(r)).collect()).ok()
    }

    fn build(&mut self) -> Option<()> {
        let da = self.r.one(&[DType::U8, DType::I8], DType::U8);
        let dw = self.r.one(&[DType::I8, DType::I8, DType::U8], DType::I8);
        let dy = self.r.one(&[DType::U8, DType::I8], DType::U8);
        let conv = self.r.chance(1, 2);
        let size = |r: &mut Random| r.one(SIZES, 1);
        let (x_shape, w_shape, attrs, rows): (Vec<usize>, Vec<usize>, Attrs, usize) = if conv {
            let depthwise = self.r.chance(1, 3);
            let (c, k) = (size(&mut self.r).min(40), 1 + self.r.below(3));
            let n = if depthwise { c } else { size(&mut self.r).min(40) };
            let side = k + self.r.below(9);
            let (group, per) = if depthwise { (c, 1) } else { (1, c) };
            let pads = vec![self.r.below(k) as i64; 4];
            let attrs = Attrs::new()
                .with("group", group as i64)
                .with("pads", pads)
                .with("strides", vec![1 + self.r.below(2) as i64; 2]);
            (vec![1, c, side, side + self.r.below(3)], vec![n, per, k, k], attrs, n)
        } else {
            let (m, k, n) = (size(&mut self.r).min(33), size(&mut self.r), size(&mut self.r));
            (vec![m, k], vec![k, n], Attrs::new(), n)
        };
        // 255 · 255 · depth below 2²⁴.
        let depth: usize = if conv { w_shape[1..].iter().product() } else { w_shape[0] };
        self.exact &= depth <= 250;
        let x = self.codes(da, &x_shape, false)?;
        let xv = self.g.add_input("x", ValueType::of(&x));
        self.feeds.insert("x".into(), x.into());
        match self.r.below(4) {
            0 => self.integer(conv, xv, [da, dw], &w_shape, attrs, rows),
            1 => self.linear(conv, xv, [da, dw, dy], &w_shape, attrs, rows),
            _ => self.between(conv, xv, [da, dw, dy], &w_shape, attrs, rows),
        }
    }

    /// ConvInteger or MatMulInteger.
    fn integer(
        &mut self,
        conv: bool,
        x: ValueId,
        d: [DType; 2],
        w: &[usize],
        attrs: Attrs,
        rows: usize,
    ) -> Option<()> {
        let per = if !conv && self.r.chance(1, 3) { Some(rows) } else { None };
        let (w, za, zw) =
            (self.codes(d[1], w, false)?, self.zero(d[0], None, false)?, self.zero(d[1], per, false)?);
        let parts = [w, za, zw].map(|t| self.g.add_initializer("q", t));
        let inputs = [&[x][..], &parts].concat();
        let y = self.op(if conv { "ConvInteger" } else { "MatMulInteger" }, attrs, &inputs)?;
        self.exact = true;
        self.g.add_output("y", y);
        Some(())
    }

    /// QLinearConv or QLinearMatMul.
    fn linear(
        &mut self,
        conv: bool,
        x: ValueId,
        d: [DType; 3],
        w: &[usize],
        attrs: Attrs,
        rows: usize,
    ) -> Option<()> {
        let per = if self.r.chance(1, 2) { Some(rows) } else { None };
        let w = self.codes(d[1], w, false)?;
        let w = self.g.add_initializer("q", w);
        let [sa, za, sw, zw, sy, zy] = self.parameters(d, per, true)?;
        let mut inputs = vec![x, sa, za, w, sw, zw, sy, zy];
        if conv && self.r.chance(1, 2) {
            let b: Vec<i32> = (0..rows).map(|_| self.r.below(2001) as i32 - 1000).collect();
            inputs.push(self.g.add_initializer("b", Tensor::vector(b)));
        }
        let y = self.op(if conv { "QLinearConv" } else { "QLinearMatMul" }, attrs, &inputs)?;
        self.g.add_output("y", y);
        Some(())
    }

    /// Scale and zero point of input, weights (`per` of them, or one) and result.
    fn parameters(&mut self, d: [DType; 3], per: Option<usize>, symmetric: bool) -> Option<[ValueId; 6]> {
        let (sa, za) = (self.scale(None), self.zero(d[0], None, false)?);
        let (sw, zw) = (self.scale(per), self.zero(d[1], per, symmetric)?);
        let (sy, zy) = (self.result(), self.zero(d[2], None, false)?);
        Some([sa, za, sw, zw, sy, zy].map(|t| self.g.add_initializer("q", t)))
    }

    /// The scale of a result, large enough that not all saturates.
    fn result(&mut self) -> Tensor {
        let p = 2f32.powi(self.r.below(5) as i32 - 1);
        Tensor::scalar(if self.exact { p } else { p * (1.0 + self.r.below(1000) as f32 / 1000.0) })
    }

    /// Between quantization and dequantization, with bias, activation and residual.
    fn between(
        &mut self,
        conv: bool,
        x: ValueId,
        d: [DType; 3],
        w: &[usize],
        attrs: Attrs,
        rows: usize,
    ) -> Option<()> {
        let per = if self.r.chance(1, 2) { Some(rows) } else { None };
        let few = self.r.chance(1, 4);
        let codes = self.codes(d[1], w, few)?;
        let symmetric = d[1] == DType::I8;
        let codes = self.g.add_initializer("q", codes);
        let [sa, za, sw, zw, sy, zy] = self.parameters(d, per, symmetric)?;
        let axis = if conv { 0i64 } else { 1 };
        let x = self.op("DequantizeLinear", Attrs::new(), &[x, sa, za])?;
        let w = self.op("DequantizeLinear", Attrs::new().with("axis", axis), &[codes, sw, zw])?;
        let mut y = self.op(if conv { "Conv" } else { "MatMul" }, attrs, &[x, w])?;
        if self.r.chance(1, 2) {
            // Multiples of the smallest product of two scales, so that sums stay exact.
            let b: Vec<f32> = (0..rows).map(|_| (self.r.below(4001) as f32 - 2000.0) / 4096.0).collect();
            let shape: &[usize] = if conv { &[1, rows, 1, 1] } else { &[rows] };
            let b = self.g.add_initializer("b", Tensor::new(shape, b).ok()?);
            y = self.op("Add", Attrs::new(), &[y, b])?;
        }
        y = self.bent(y, if conv { vec![1, rows, 1, 1] } else { vec![rows] })?;
        if self.r.chance(3, 4) {
            y = self.op("QuantizeLinear", Attrs::new(), &[y, sy, zy])?;
            if self.r.chance(1, 3) {
                y = self.op("DequantizeLinear", Attrs::new(), &[y, sy, zy])?;
            }
        }
        self.g.add_output("y", y);
        Some(())
    }
}

impl Maker {
    /// An activation, and factors and addends behind it: one of each, or one for each column of `shape`.
    fn bent(&mut self, mut y: ValueId, shape: Vec<usize>) -> Option<ValueId> {
        match self.r.below(6) {
            0 | 1 => y = self.op("Relu", Attrs::new(), &[y])?,
            2 => y = self.op("LeakyRelu", Attrs::new().with("alpha", 0.25f32), &[y])?,
            3 => {
                let bounds = [-2f32, 6.0].map(|b| self.g.add_initializer("c", Tensor::scalar(b)));
                y = self.op("Clip", Attrs::new(), &[y, bounds[0], bounds[1]])?;
            }
            4 if !self.exact => y = self.op("HardSwish", Attrs::new(), &[y])?,
            _ => {}
        }
        for op in ["Mul", "Add"] {
            if !self.r.chance(1, 3) {
                continue;
            }
            let shape = if self.r.chance(1, 2) { vec![] } else { shape.clone() };
            let one = |r: &mut Random| match op {
                "Mul" => r.one(&[0.5f32, -0.5, 1.0, 2.0], 1.0),
                _ => (r.below(401) as f32 - 200.0) / 64.0,
            };
            let c: Vec<f32> = (0..shape.iter().product()).map(|_| one(&mut self.r)).collect();
            let c = self.g.add_initializer("c", Tensor::new(&shape, c).ok()?);
            y = self.op(op, Attrs::new(), &[y, c])?;
        }
        Some(y)
    }
}

/// Every tier gives the reference's bits; one step of the result apart where the reference itself rounds.
pub fn check(case: &Case, exact: bool) -> Result<(), Stop> {
    let Ok(expected) = Reference.run(&case.graph, &case.feeds, &[]) else { return Ok(()) };
    let (ready, _) = exact::optimize(&case.graph, exact::Options::RUNTIME)?;
    let values: Vec<Value> = ready
        .inputs()
        .iter()
        .map(|&v| case.feeds.get(ready.value_name(v)).cloned())
        .collect::<Option<_>>()
        .ok_or(Stop::Refused)?;
    let mut first: Option<Vec<Value>> = None;
    let packs = codegen::Packs::default();
    packs.learn(&ready);
    for &tier in kernels::Tier::available() {
        let program = codegen::compile_sharing(
            &ready,
            tier,
            codegen::Precision::default(),
            codegen::Loops::Generated,
            &packs,
        )?;
        for s in program.steps() {
            tally::hit(tally::Kind::Kernel, tally::key(s.kind) ^ (tier as u64 + 8), tally::key(&s.op));
        }
        let got = program.run(&values, &kernels::Serial)?;
        compare(&expected.outputs, &got, exact).map_err(|e| found("answers", format!("{tier:?}: {e}")))?;
        match &first {
            None => first = Some(got),
            Some(f) if exact && !identical(f, &got) => {
                return Err(found("answers", format!("{tier:?} gives other bits than the first tier")));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn compare(expected: &[Value], got: &[Value], exact: bool) -> Result<(), String> {
    for (e, g) in expected.iter().zip(got) {
        let (e, g) = (e.tensor().map_err(|e| e.to_string())?, g.tensor().map_err(|e| e.to_string())?);
        if (e.dtype(), e.shape()) != (g.dtype(), g.shape()) {
            return Err(format!("{:?} against {:?}", e.shape(), g.shape()));
        }
        let (x, y) = (e.to_f64s().unwrap_or_default(), g.to_f64s().unwrap_or_default());
        let top = x.iter().fold(1.0f64, |m, x| m.max(x.abs()));
        let room = match (exact, e.dtype().is_float()) {
            (true, _) => 0.0,
            // One step of a dequantized result is at most 32.
            (false, true) => 32.0 + 1e-3 * top,
            (false, false) => 1.0,
        };
        if let Some(k) = (0..x.len()).find(|&k| (x[k] - y[k]).abs() > room) {
            return Err(format!("element {k}: {} against {}", x[k], y[k]));
        }
    }
    Ok(())
}
