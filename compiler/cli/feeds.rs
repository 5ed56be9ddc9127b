//! Inputs made up for timing and comparing when the user gives none: seeded, of the model's types and shapes.

use crate::exit::{Failure, Result};
use ir::{DType, Dim, Feeds, Graph, Tensor, Value};
use std::collections::BTreeMap;

/// `--shape NAME=1x3x224x224` options by input name.
pub fn parse_shapes(options: &[String]) -> Result<BTreeMap<String, Vec<usize>>> {
    let bad = |s: &str| Failure::usage(format!("--shape '{s}' is not NAME=DIMS such as input=1x3x224x224"));
    options
        .iter()
        .map(|s| {
            let (name, dims) = s.rsplit_once('=').ok_or_else(|| bad(s))?;
            let dims = if dims.is_empty() {
                vec![]
            } else {
                dims.split(['x', ','])
                    .map(|d| d.trim().parse())
                    .collect::<std::result::Result<Vec<usize>, _>>()
                    .map_err(|_| bad(s))?
            };
            Ok((name.to_string(), dims))
        })
        .collect()
}

/// `--value NAME=1,2,3` options by input name.
pub fn parse_values(options: &[String]) -> Result<BTreeMap<String, Vec<i64>>> {
    let bad =
        |s: &str| Failure::usage(format!("--value '{s}' is not NAME=VALUE such as sr=16000 or size=1,3"));
    let number = |x: &str| match x.trim() {
        "true" => Ok(1),
        "false" => Ok(0),
        x => x.parse::<i64>(),
    };
    options
        .iter()
        .map(|s| {
            let (name, values) = s.rsplit_once('=').ok_or_else(|| bad(s))?;
            let values: std::result::Result<Vec<i64>, _> = values.split(',').map(number).collect();
            Ok((name.to_string(), values.map_err(|_| bad(s))?))
        })
        .collect()
}

/// Values for every input: floats standard normal, integers 0 or 1, open dims 1 unless `shapes` says otherwise.
pub fn random(graph: &Graph, shapes: &BTreeMap<String, Vec<usize>>, seed: u64) -> Result<Feeds> {
    if let Some(name) =
        shapes.keys().find(|n| !graph.inputs().iter().any(|&v| graph.value_name(v) == n.as_str()))
    {
        return Err(Failure::usage(format!(
            "--shape: the model has no input '{name}'; it takes {}",
            graph.input_summary()
        )));
    }
    let mut rng = Rng(seed ^ 0x9e37_79b9_7f4a_7c15);
    let mut feeds = Feeds::new();
    for &v in graph.inputs() {
        let name = graph.value_name(v);
        let ty = graph.ty(v);
        let (Some(dtype), declared) = (ty.dtype(), ty.shape()) else {
            return Err(Failure::bad(format!("input '{name}' is a {ty}; give data with --inputs")));
        };
        let shape = match (shapes.get(name), declared) {
            (Some(s), _) => s.clone(),
            (None, Some(d)) => d.iter().map(|d| if let Dim::Known(n) = d { *n } else { 1 }).collect(),
            (None, None) => {
                return Err(Failure::usage(format!(
                    "input '{name}' has no declared rank; give --shape {name}=..."
                )));
            }
        };
        feeds.insert(name.to_string(), Value::Tensor(random_tensor(dtype, &shape, &mut rng)?));
    }
    Ok(feeds)
}

fn random_tensor(dtype: DType, shape: &[usize], rng: &mut Rng) -> Result<Tensor> {
    ir::budget::bytes(dtype, shape)?;
    let n = ir::budget::elements(shape)?;
    Ok(match dtype {
        d if d.is_float() => Tensor::from_f32s(d, shape, (0..n).map(|_| rng.normal()).collect())?,
        DType::String => Tensor::strings(shape, vec![String::from("a"); n])?,
        d if d.is_int() || d == DType::Bool => {
            Tensor::from_i64s(d, shape, (0..n).map(|_| (rng.next() >> 63) as i64).collect())?
        }
        d => return Err(Failure::bad(format!("cannot make up {d} values; give data with --inputs"))),
    })
}

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// Sum of four uniforms, near enough to normal for timing.
    fn normal(&mut self) -> f32 {
        let sum: f32 = (0..4).map(|_| (self.next() >> 40) as f32 / (1u64 << 24) as f32).sum();
        (sum - 2.0) * 1.732
    }
}
