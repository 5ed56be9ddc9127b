//! One lossy step on a graph, and what the method promised of it.

use crate::check::{Stop, found, only_runs_here};
use ir::{DType, Evaluate, Feeds, Graph, NodeId, Reference, Tensor, Use, Value, ValueId};
use lossy::candidate::graph_bytes;
use lossy::{Bias, Candidate, Context, Layer, Replaces, Role, Scope, Stats};

/// Largest weight tried: methods are slower than all else here.
const LARGEST: usize = 4096;
/// Most candidates that differ from what they state by rounding: share of the error, and of the layer's power.
const SLACK: (f64, f64) = (0.05, 1e-7);
/// The same where the stated error is an estimate, as that of rounded activations is.
const ESTIMATE: (f64, f64) = (8.0, 2e-2);

/// Which candidate of which layer: numbers are taken modulo what there is.
pub struct Choice<'a> {
    pub method: &'a str,
    pub layer: usize,
    pub candidate: usize,
    pub data: bool,
}

/// The graph with the chosen candidate in place; nothing when the method does not apply.
pub fn apply(graph: &Graph, feeds: &Feeds, choice: &Choice) -> Result<Option<Graph>, Stop> {
    let method = lossy::methods::find(choice.method).ok_or(Stop::Refused)?;
    let mut g = graph.clone();
    ir::infer(&mut g)?;
    let layers: Vec<Layer> = g
        .initializers()
        .filter(|(_, t)| t.dtype() == DType::F32 && (2..=LARGEST).contains(&t.len()))
        .filter(|(_, t)| t.to_f32s().is_ok_and(|d| d.iter().all(|x| x.abs() < 1e4)))
        .filter_map(|(v, _)| lossy::layer::layer(&g, v))
        .collect();
    if layers.is_empty() || method.scope() == Scope::Group {
        return Ok(None);
    }
    let layer = &layers[choice.layer % layers.len()];
    if decides_sizes(&g, layer.value) {
        return Ok(None);
    }
    let seen = if choice.data { statistics(&g, feeds, layer) } else { None };
    if method.applies(layer, seen.is_some()).is_err() {
        return Ok(None);
    }
    let matrix = layer.view.matrix(&layer.tensor)?;
    let measure = if layer.bias.is_some() { seen.as_ref().map(Stats::centered) } else { seen.as_ref() };
    let (stats, hopes) = (seen.as_ref(), lossy::Hopes::ALL);
    // What others might share, the layer has for itself here.
    let bases = if method.shares() { lossy::joint::bases(&[(layer, stats)])? } else { Vec::new() };
    let (compensate, matrix, bases) = (true, &matrix, &bases[..]);
    let cx = Context { graph: &g, layer, matrix, stats, measure, compensate, hopes, bases };
    let all = method.candidates(&cx)?;
    let Some(c) = all.get(choice.candidate % all.len().max(1)) else { return Ok(None) };
    tally::hit(tally::Kind::Verdict, tally::key(&c.recipe), layer.role as u64);
    promises(&cx, c)?;
    let mut new = g.clone();
    let place = place(&mut new, layer, c)?;
    if let Some(stats) = &seen {
        measured(&g, &new, feeds, layer, c, place, stats)?;
    }
    new.prune();
    let mut new = new.compacted()?;
    ir::infer(&mut new)?;
    Ok(Some(new))
}

/// Whether sizes follow from the constant's values, as from a Resize's scales: it is no weight then.
fn decides_sizes(g: &Graph, v: ValueId) -> bool {
    let known = |g: &Graph| g.values().filter(|&v| g.ty(v).concrete().is_some()).count();
    let mut other = g.clone();
    let ty = g.ty(v).clone();
    let open = other.add_input("open", ty);
    other.replace_uses(v, open);
    crate::mutate::forget_types(&mut other);
    // The input is one value more.
    ir::infer(&mut other).is_err() || known(&other) != known(g) + 1
}

/// What the layer's input is like on these feeds, when it can be seen and is finite.
fn statistics(g: &Graph, feeds: &Feeds, layer: &Layer) -> Option<Stats> {
    let (value, extract) = layer.inputs.first()?;
    let run = Reference.run(g, feeds, &[*value]).ok()?;
    let x = run.taps.first()?.tensor().ok()?.clone();
    let calm = x.to_f32s().ok()?.iter().all(|x| x.abs() < 1e4);
    if !calm || x.is_empty() {
        return None;
    }
    let mut s = Stats::new(layer.view.groups, layer.view.cols, layer.view.run);
    s.push(&x, extract, layer.view.cols, 0).ok()?;
    (s.count() > 0).then_some(s)
}

/// Bytes, form, and without data the error, which is then that of the weight alone.
fn promises(cx: &Context, c: &Candidate) -> Result<(), Stop> {
    ir::verify(&c.fragment).map_err(|e| found("verifier", format!("{}: {e}", c.recipe)))?;
    let added = match (cx.layer.bias, &c.bias, c.replaces) {
        (Some(Bias::Absent(_)), Some(b), Replaces::Weight) => b.len() as u64 * 4 + 40,
        _ => 0,
    };
    let bytes = graph_bytes(&c.fragment) + added;
    if c.bytes != bytes {
        return Err(found("bytes", format!("{} states {} bytes and takes {bytes}", c.recipe, c.bytes)));
    }
    if !(c.error >= 0.0 && c.error.is_finite()) {
        return Err(found("bound", format!("{} states the error {}", c.recipe, c.error)));
    }
    if c.replaces == Replaces::Weight {
        let decoded = c.decode()?;
        let t = &cx.layer.tensor;
        if (decoded.dtype(), decoded.shape()) != (t.dtype(), t.shape()) {
            return Err(found("types", format!("{} decodes to {:?}", c.recipe, decoded.shape())));
        }
        if cx.stats.is_none() {
            let (a, b) = (t.to_f32s()?, decoded.to_f32s()?);
            let e: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
            let power: f64 = a.iter().map(|a| f64::from(*a).powi(2)).sum();
            near(c, e, power, Rounding::default())?;
        }
    }
    Ok(())
}

/// What float32 leaves open.
#[derive(Default)]
struct Rounding {
    /// What sums of an output vector may be off by, squared: terms may be far larger than what they come to.
    outputs: f64,
    /// What the error may be off by that is told from sums over the inputs: where few weights take over what many gave, it
    /// is what is left of large terms.
    error: f64,
}

fn near(c: &Candidate, e: f64, power: f64, rounding: Rounding) -> Result<(), Stop> {
    let (share, rest) = if ["int8", "int8-dynamic"].contains(&c.method) { ESTIMATE } else { SLACK };
    let most = e.max(c.error);
    let rounding = rounding.outputs + 2.0 * (rounding.outputs * most).sqrt() + rounding.error;
    if (e - c.error).abs() > share * most + rest * power + rounding + 1e-12 {
        return Err(found("bound", format!("{} states the error {:e}, it is {e:e}", c.recipe, c.error)));
    }
    Ok(())
}

/// Puts the candidate where the layer was; the value that now stands for the layer's output.
fn place(g: &mut Graph, layer: &Layer, c: &Candidate) -> Result<Option<ValueId>, Stop> {
    let output = g.get(layer.node).and_then(|n| n.output(0));
    let new = match c.replaces {
        Replaces::Weight => {
            let w = c.fragment.inline_into(g, &[], &[])?;
            g.replace_uses(layer.value, *w.first().ok_or(found("types", "a fragment without output"))?);
            output
        }
        Replaces::Node => {
            let node = g.node(layer.node)?;
            let inputs: Vec<ValueId> =
                node.inputs().iter().flatten().copied().filter(|&v| v != layer.value).collect();
            let y = c.fragment.inline_into(g, &inputs, &[])?.first().copied();
            let (Some(old), Some(y)) = (output, y) else { return Err(Stop::Refused) };
            g.replace_uses(old, y);
            Some(y)
        }
    };
    match (layer.bias, &c.bias) {
        (Some(Bias::Constant(v)), Some(add)) => {
            let t = g.constant(v).ok_or(Stop::Refused)?.clone();
            let sum: Vec<f32> = t.to_f32s()?.iter().zip(add).map(|(a, b)| a + b).collect();
            g.set_constant(v, Tensor::new(t.shape(), sum)?);
        }
        (Some(Bias::Absent(i)), Some(add)) if c.replaces == Replaces::Weight => {
            let b = g.add_initializer("bias", Tensor::vector(add.clone()));
            g.set_input(layer.node, i, Some(b));
        }
        _ => {}
    }
    Ok(new)
}

/// The layer's output error on the inputs that the method saw is the one it stated.
fn measured(
    before: &Graph,
    after: &Graph,
    feeds: &Feeds,
    layer: &Layer,
    c: &Candidate,
    place: Option<ValueId>,
    stats: &Stats,
) -> Result<(), Stop> {
    let plain = matches!(layer.role, Role::Conv | Role::MatMul | Role::Gemm);
    let scaled = |n: &str| before.get(layer.node).is_some_and(|n2| n2.attrs.float_or(n, 1.0) != Ok(1.0));
    if !plain || layer.users != 1 || layer.inputs.len() != 1 || scaled("alpha") {
        return Ok(());
    }
    let (Some(old), Some(new)) = (before.get(layer.node).and_then(|n| n.output(0)), place) else {
        return Ok(());
    };
    // A vector added behind a product takes the mean error: the layer's output is the sum.
    let behind = |g: &Graph, v: ValueId| match (layer.role, layer.bias, &c.bias) {
        (Role::MatMul, Some(Bias::Constant(_)), Some(_)) => sum_of(g, v),
        _ => Some(v),
    };
    let (Some(a), Some(b)) = (behind(before, old), behind(after, new)) else { return Ok(()) };
    let tap = |g: &Graph, v: ValueId| -> Result<Vec<f32>, Stop> {
        let run = Reference.run(g, feeds, &[v])?;
        match run.taps.first() {
            Some(Value::Tensor(t)) => Ok(t.to_f32s()?),
            _ => Err(Stop::Refused),
        }
    };
    let (x, y) = (tap(before, a)?, tap(after, b)?);
    if x.iter().chain(&y).any(|v| !v.is_finite()) {
        return Ok(());
    }
    let n = stats.count() as f64;
    // Statistics of large inputs are of a part of their windows.
    if n * layer.view.rows as f64 != x.len() as f64 {
        return Ok(());
    }
    let e = x.iter().zip(&y).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / n;
    let power = x.iter().map(|a| f64::from(*a).powi(2)).sum::<f64>() / n;
    near(c, e, power, rounding(layer, c, stats)?)
}

fn rounding(layer: &Layer, c: &Candidate, stats: &Stats) -> Result<Rounding, Stop> {
    let w = layer.view.matrix(&layer.tensor)?;
    // What takes the place of the whole layer has no weight to compare.
    let new = match c.replaces {
        Replaces::Weight => layer.view.matrix(&c.decode()?)?,
        Replaces::Node => w.clone(),
    };
    let squares = stats.diagonals();
    let rows = w.nrows().div_ceil(squares.len().max(1)).max(1);
    let (mut terms, mut error) = (0.0, 0.0);
    for r in 0..w.nrows() {
        let squares = squares.get(r / rows).into_iter().flatten();
        let mut apart = 0.0;
        for ((a, b), x) in w.row(r).iter().zip(new.row(r)).zip(squares) {
            let (a, b) = (f64::from(*a), f64::from(*b));
            terms += a.powi(2).max(b.powi(2)) * x;
            apart += (a - b).abs() * x.max(0.0).sqrt();
        }
        error += apart * apart;
    }
    let unit = f64::from(f32::EPSILON);
    Ok(Rounding { outputs: terms * w.ncols() as f64 * unit.powi(2), error: error * unit })
}

fn sum_of(g: &Graph, v: ValueId) -> Option<ValueId> {
    let add = |n: NodeId| g.get(n).filter(|n| n.is("Add")).and_then(|n| n.output(0));
    g.uses(v).iter().find_map(|u| if let Use::Input(n, _) = u { add(*n) } else { None })
}

/// The search over all layers, for a file of `percent` of this graph's bytes.
pub fn search(graph: &Graph, percent: u32, methods: &[String]) -> Result<Graph, Stop> {
    // What is only for running here has no form in a file.
    if only_runs_here(graph) {
        return Err(Stop::Refused);
    }
    let size = |g: &Graph| onnx::size(g, &ops::Standard);
    let target = size(graph)? * u64::from(percent.clamp(1, 100)) / 100;
    let mut options = search::Options::new(search::Goal::TargetBytes(target));
    options.threads = 1;
    if !methods.is_empty() {
        options.methods.retain(|m| methods.iter().any(|n| n == m.name()));
    }
    let done = search::compress(graph, None, &options, &Reference, &size, &search::Silent);
    let done = match done {
        Ok(d) => d,
        Err(e) if e.blame == ir::Blame::Internal => return Err(found("error", e)),
        Err(_) => return Err(Stop::Refused),
    };
    if size(&done.graph)? > size(graph)? {
        return Err(found("bytes", format!("{} bytes became {}", size(graph)?, size(&done.graph)?)));
    }
    Ok(done.graph)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Few weights carry what 1,904 gave: the error is what is left of terms far above it.
    #[test]
    fn few_weights_that_carry_all_others_state_their_error() {
        let ones = vec!["1.0"; 3808].join(",");
        let text = format!(
            r#"case (float[1, 17, 16, 7] x) => (float[1, 2] y) <
   int64[2] shape = {{1, -1}}, float[1904, 2] w = {{{ones}}}> {{
   r = Reshape (x, shape)
   y = MatMul (r, w)
}}
"#
        );
        crate::reduce::replay(
            text,
            "seed = 1\n[[pass]]\nname = \"compress\"\nmethod = \"sparse\"\nlayer = 5\ncandidate = 15\ndata = true",
        );
    }

    /// Rounded scales gave sizes that the Squeeze behind them refuses.
    #[test]
    fn scales_of_a_resize_are_no_weight() {
        let text = r#"case (float[1, 1, 1] x, float[1, 3] z) => (float[n] y = s, float[1, 4] p) <
   float[3] c = {1.0,0.7,1.0}, float[3, 4] w = {1.0,2.0,3.0,4.0,5.0,6.0,7.0,8.0,9.0,1.0,2.0,3.0}> {
   r = Resize (x, , c)
   s = Squeeze (r)
   p = MatMul (z, w)
}
"#;
        let mut g = ir::text::parse(text, &ops::Standard).unwrap();
        ir::infer(&mut g).unwrap();
        let of = |name: &str| g.values().find(|&v| g.value_name(v) == name).unwrap();
        assert!(decides_sizes(&g, of("c")) && !decides_sizes(&g, of("w")));
    }
}
