//! `compress diff`: how far two models' outputs are apart, and where they start to differ.

use crate::args::DiffArgs;
use crate::exit::{Failure, Result, line, lines};
use crate::report::table::Table;
use crate::{engine, feeds, limits, model};
use ir::{Feeds, Graph, Value, ValueId};
use serde_json::json;

/// A layer counts as diverging when its error is above this share of its signal.
const DIVERGED: f64 = 1e-3;

pub fn run(args: DiffArgs) -> Result {
    limits::set(&args.a, &args.bounds)?;
    let (a, b) = (model::open(&args.a)?.graph, model::open(&args.b)?.graph);
    let samples = samples(&args, &a)?;
    let (taps_a, taps_b, names) = common_values(&a, &b);
    let engine = engine::engine(1, false);
    let mut outputs = vec![Distance::default(); a.outputs().len()];
    let mut layers = vec![Distance::default(); names.len()];
    if a.outputs().len() != b.outputs().len() {
        return Err(Failure::bad(format!("{} outputs against {}", a.outputs().len(), b.outputs().len())));
    }
    for s in &samples {
        let ra = engine.run(&a, s, &taps_a).map_err(|e| Failure::from(e).on(args.a.display()))?;
        let rb = engine.run(&b, s, &taps_b).map_err(|e| Failure::from(e).on(args.b.display()))?;
        for (d, (x, y)) in outputs.iter_mut().zip(ra.outputs.iter().zip(&rb.outputs)) {
            d.add(x, y)?;
        }
        for (d, (x, y)) in layers.iter_mut().zip(ra.taps.iter().zip(&rb.taps)) {
            d.add(x, y)?;
        }
    }
    let first = layers.iter().position(|d| d.relative() > DIVERGED);
    print_result(&args, &a, &outputs, first.map(|i| (names[i].as_str(), &layers[i])), samples.len());
    Ok(())
}

fn samples(args: &DiffArgs, a: &Graph) -> Result<Vec<Feeds>> {
    match super::samples(&args.data, a)? {
        None => Ok(vec![feeds::random(a, &Default::default(), 0)?]),
        Some(s) => (0..s.len().min(args.samples)).map(|i| Ok(s.feeds(i, a)?)).collect(),
    }
}

/// Values of both graphs that have the same name and come out of a node, in the order of the first.
fn common_values(a: &Graph, b: &Graph) -> (Vec<ValueId>, Vec<ValueId>, Vec<String>) {
    let (mut ta, mut tb, mut names) = (vec![], vec![], vec![]);
    for id in a.order().unwrap_or_default() {
        for &v in a.get(id).into_iter().flat_map(|n| n.outputs()).flatten() {
            let name = a.value_name(v);
            if let Some(w) = b.find(name).filter(|&w| b.producer(w).is_some()) {
                ta.push(v);
                tb.push(w);
                names.push(name.to_string());
            }
        }
    }
    (ta, tb, names)
}

#[derive(Debug, Clone, Default)]
struct Distance {
    noise: f64,
    signal: f64,
    largest: f64,
    dot: f64,
    other: f64,
    mismatch: bool,
}

impl Distance {
    fn add(&mut self, x: &Value, y: &Value) -> Result {
        let (Value::Tensor(x), Value::Tensor(y)) = (x, y) else {
            self.mismatch |= x != y;
            return Ok(());
        };
        if x.shape() != y.shape() || x.dtype() == ir::DType::String {
            self.mismatch |= x != y;
            return Ok(());
        }
        for (p, q) in x.to_f64s()?.into_iter().zip(y.to_f64s()?) {
            let d = if p == q || (p.is_nan() && q.is_nan()) { 0.0 } else { (p - q).abs() };
            self.noise += d * d;
            self.signal += p * p;
            self.other += q * q;
            self.dot += p * q;
            self.largest = self.largest.max(d);
        }
        Ok(())
    }
    fn relative(&self) -> f64 {
        if self.mismatch {
            f64::INFINITY
        } else if self.noise == 0.0 {
            0.0
        } else {
            (self.noise / self.signal.max(f64::MIN_POSITIVE)).sqrt()
        }
    }
    fn cosine(&self) -> f64 {
        if self.signal == 0.0 && self.other == 0.0 {
            1.0
        } else {
            self.dot / (self.signal * self.other).sqrt()
        }
    }
}

fn print_result(
    args: &DiffArgs,
    a: &Graph,
    outputs: &[Distance],
    first: Option<(&str, &Distance)>,
    n: usize,
) {
    if args.json {
        let rows: Vec<_> = a
            .outputs()
            .iter()
            .zip(outputs)
            .map(|(o, d)| {
                json!({"output": o.name, "relative_error": finite(d.relative()), "max_abs": d.largest,
                       "cosine": finite(d.cosine()), "shape_mismatch": d.mismatch})
            })
            .collect();
        let first = first.map(|(name, d)| json!({"value": name, "relative_error": finite(d.relative())}));
        println!("{:#}", json!({"samples": n, "outputs": rows, "first_divergence": first}));
        return;
    }
    let mut table = Table::new(&["output", "relative error", "max abs", "cosine"]);
    for (o, d) in a.outputs().iter().zip(outputs) {
        let relative = if d.mismatch { "shapes differ".into() } else { format!("{:.3e}", d.relative()) };
        table.row(&[&o.name, &relative, &format!("{:.3e}", d.largest), &format!("{:.6}", d.cosine())]);
    }
    print!("{}", lines(&table.to_string()));
    match first {
        Some((name, d)) => {
            let name = line(name);
            println!("first divergence: '{name}' (relative error {:.3e}, {n} samples)", d.relative())
        }
        None => println!("no common value diverges by more than {DIVERGED:e} ({n} samples)"),
    }
}

fn finite(x: f64) -> Option<f64> {
    x.is_finite().then_some(x)
}
