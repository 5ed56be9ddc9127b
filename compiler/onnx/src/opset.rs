//! Older operator versions upgraded to the newest meaning: a table of (operator, version that changed it, how).

use crate::import::Builder;
use ir::{Attr, Attrs, DType, Error, Result, Tensor, ValueId};

/// A node on its way to the newest version.
pub struct Upgrade {
    pub name: String,
    pub op: String,
    pub domain: String,
    pub attrs: Attrs,
    pub inputs: Vec<Option<ValueId>>,
    pub outputs: Vec<String>,
    pub captures: Vec<ValueId>,
    /// The upgrade has added everything itself.
    pub done: bool,
}

impl Upgrade {
    pub fn new(
        op: &str,
        domain: &str,
        attrs: Attrs,
        inputs: Vec<Option<ValueId>>,
        outputs: Vec<String>,
        captures: Vec<ValueId>,
    ) -> Upgrade {
        let (op, domain) = (op.to_string(), domain.to_string());
        Upgrade { name: String::new(), op, domain, attrs, inputs, outputs, captures, done: false }
    }

    fn input(&self, i: usize) -> Result<ValueId> {
        self.inputs.get(i).copied().flatten().ok_or_else(|| Error::model(format!("input {i} is missing")))
    }

    fn set_input(&mut self, i: usize, v: ValueId) {
        if self.inputs.len() <= i {
            self.inputs.resize(i + 1, None);
        }
        self.inputs[i] = Some(v);
    }
}

type Step = fn(&mut Upgrade, &mut Builder) -> Result<()>;

/// (operators, first version that has the new form, step from the form before it), ascending by version.
static STEPS: &[(&[&str], i64, Step)] = &[
    (&["GlobalLpPool", "LpPool"], 2, |u, _| {
        if let Some(&Attr::Float(p)) = u.attrs.get("p") {
            u.attrs.set("p", p as i64);
        }
        Ok(())
    }),
    (&["Concat"], 4, |u, _| {
        default_int(u, "axis", 1);
        Ok(())
    }),
    (&["Reshape"], 5, |u, b| ints_to_input(u, b, "shape", 1)),
    (&["Selu"], 6, |u, _| {
        let (alpha, gamma) = (u.attrs.float_or("alpha", 1.6732)?, u.attrs.float_or("gamma", 1.0507)?);
        u.attrs.set("alpha", alpha);
        u.attrs.set("gamma", gamma);
        Ok(())
    }),
    (&["Tile"], 6, tile_along_axis),
    (&["Cast"], 6, cast_by_name),
    (
        &[
            "BatchNormalization",
            "InstanceNormalization",
            "Clip",
            "Relu",
            "Sigmoid",
            "Tanh",
            "Elu",
            "Selu",
            "Exp",
            "Log",
            "Sqrt",
            "Neg",
            "Abs",
            "Floor",
            "Ceil",
            "Reciprocal",
            "Max",
            "Min",
            "Sum",
            "Mean",
            "HardSigmoid",
            "LeakyRelu",
            "PRelu",
            "Add",
            "Sub",
            "Mul",
            "Div",
            "Dropout",
        ],
        6,
        |u, _| {
            u.attrs.remove("consumed_inputs");
            Ok(())
        },
    ),
    (
        &["Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Less", "Greater"],
        7,
        broadcast_by_axis,
    ),
    (&["Gemm"], 7, |u, _| {
        u.attrs.remove("broadcast");
        Ok(())
    }),
    (&["PRelu"], 7, prelu_per_channel),
    (&["BatchNormalization", "Dropout"], 7, |u, _| {
        u.attrs.remove("is_test");
        Ok(())
    }),
    (&["LSTM", "GRU", "RNN"], 7, |u, _| {
        u.attrs.remove("output_sequence");
        Ok(())
    }),
    (&["BatchNormalization"], 9, spatial),
    (&["Upsample"], 9, upsample_scales),
    (&["Scan"], 9, scan_of_one_batch),
    (&["Upsample"], 10, |u, _| {
        u.op = "Resize".into();
        Ok(())
    }),
    (&["Dropout"], 10, mask_of_data_type),
    (&["Slice"], 10, |u, b| {
        ints_to_input(u, b, "starts", 1)?;
        ints_to_input(u, b, "ends", 2)?;
        ints_to_input(u, b, "axes", 3)
    }),
    (&["TopK"], 10, |u, b| {
        let k = u.attrs.require_int("k")?;
        u.attrs.remove("k");
        let v = b.add_constant("k", Tensor::vector(vec![k]));
        u.set_input(1, v);
        Ok(())
    }),
    (&["Clip"], 11, |u, b| {
        float_to_input(u, b, "min", 1)?;
        float_to_input(u, b, "max", 2)
    }),
    (&["Pad"], 11, pad_inputs),
    (&["Resize"], 11, resize_without_modes),
    (&["Scatter"], 11, |u, _| {
        u.op = "ScatterElements".into();
        Ok(())
    }),
    // Without a training flag nothing is dropped, at whatever ratio.
    (&["Dropout"], 12, |u, _| {
        u.attrs.remove("ratio");
        Ok(())
    }),
    (&["Resize"], 13, |u, _| {
        if u.attrs.str("coordinate_transformation_mode")? == Some("tf_half_pixel_for_nn") {
            // floor(x) = round_prefer_ceil(x - 0.5)
            if u.attrs.str("nearest_mode")? != Some("floor") {
                return Err(Error::unsupported("tf_half_pixel_for_nn with another nearest_mode than floor"));
            }
            u.attrs.set("coordinate_transformation_mode", "half_pixel");
            u.attrs.set("nearest_mode", "round_prefer_ceil");
        }
        Ok(())
    }),
    (&["Softmax", "LogSoftmax", "Hardmax"], 13, coerced_softmax),
    (&["Squeeze", "Unsqueeze", "ReduceSum"], 13, |u, b| ints_to_input(u, b, "axes", 1)),
    (&["Split"], 13, |u, b| if u.attrs.has("split") { ints_to_input(u, b, "split", 1) } else { Ok(()) }),
    (&["BatchNormalization"], 14, |u, _| {
        u.outputs.truncate(1);
        Ok(())
    }),
    (&["RoiAlign"], 16, |u, _| {
        u.attrs.set("coordinate_transformation_mode", "output_half_pixel");
        Ok(())
    }),
    (&["Split"], 18, |u, _| {
        if u.inputs.get(1).copied().flatten().is_none() {
            u.attrs.set("num_outputs", u.outputs.len() as i64);
        }
        Ok(())
    }),
    (
        &[
            "ReduceL1",
            "ReduceL2",
            "ReduceLogSum",
            "ReduceLogSumExp",
            "ReduceMax",
            "ReduceMean",
            "ReduceMin",
            "ReduceProd",
            "ReduceSumSquare",
        ],
        18,
        |u, b| ints_to_input(u, b, "axes", 1),
    ),
    (&["DFT"], 20, |u, b| {
        let axis = u.attrs.int_or("axis", 1)?;
        u.attrs.remove("axis");
        let v = b.add_constant("axis", Tensor::scalar(axis));
        u.set_input(2, v);
        Ok(())
    }),
    (&["GridSample"], 20, |u, _| {
        let mode = u.attrs.str("mode")?.map(|m| if m == "bicubic" { "cubic" } else { m });
        let mode = mode.map(|m| if m == "bilinear" { "linear" } else { m }.to_string());
        if let Some(m) = mode {
            u.attrs.set("mode", m);
        }
        Ok(())
    }),
    (&["GroupNormalization"], 21, group_norm_per_channel),
    (&["Resize"], ALWAYS, empty_means_absent),
    // A name ONNX Runtime gave it before the standard had it.
    (&["SimplifiedLayerNormalization"], ALWAYS, |u, _| {
        if u.outputs.iter().skip(1).any(|o| !o.is_empty()) {
            return Err(Error::unsupported("SimplifiedLayerNormalization with its deviation as an output"));
        }
        u.outputs.truncate(1);
        u.op = "RMSNormalization".into();
        Ok(())
    }),
];

/// A step for files of every version.
const ALWAYS: i64 = i64::MAX;

/// Brings a node of the standard domain from `version` to the newest form.
pub fn upgrade(u: &mut Upgrade, version: i64, b: &mut Builder) -> Result<()> {
    for (ops, changed, step) in STEPS {
        if version < *changed && ops.contains(&u.op.as_str()) && !u.done {
            step(u, b)?;
        }
    }
    Ok(())
}

fn default_int(u: &mut Upgrade, name: &str, value: i64) {
    if !u.attrs.has(name) {
        u.attrs.set(name, value);
    }
}

/// An integer-list attribute becomes input `i`; an absent one leaves the input absent.
fn ints_to_input(u: &mut Upgrade, b: &mut Builder, name: &str, i: usize) -> Result<()> {
    if let Some(v) = u.attrs.ints(name)? {
        let t = Tensor::vector(v.to_vec());
        let v = b.add_constant(name, t);
        u.set_input(i, v);
        u.attrs.remove(name);
    }
    Ok(())
}

fn float_to_input(u: &mut Upgrade, b: &mut Builder, name: &str, i: usize) -> Result<()> {
    if let Some(x) = u.attrs.float(name)? {
        let dtype = b.graph.dtype(u.input(0)?).filter(|d| d.is_float()).unwrap_or(DType::F32);
        let v = b.add_constant(name, Tensor::from_f32s(dtype, &[], vec![x])?);
        u.set_input(i, v);
        u.attrs.remove(name);
    }
    Ok(())
}

/// Cast-1 names its target: "FLOAT".
fn cast_by_name(u: &mut Upgrade, _: &mut Builder) -> Result<()> {
    if let Some(Attr::Str(s)) = u.attrs.get("to") {
        let dtype = DType::from_name(&s.to_lowercase());
        let dtype = dtype.ok_or_else(|| Error::model(format!("Cast to unknown type '{s}'")))?;
        u.attrs.set("to", i64::from(dtype.onnx()));
    }
    Ok(())
}

/// Before opset 7 the right operand was aligned at `axis` instead of at the end.
fn broadcast_by_axis(u: &mut Upgrade, b: &mut Builder) -> Result<()> {
    let (broadcast, axis) = (u.attrs.int_or("broadcast", 0)?, u.attrs.int("axis")?);
    u.attrs.remove("broadcast");
    u.attrs.remove("axis");
    let (Some(axis), true) = (axis, broadcast != 0) else { return Ok(()) };
    let (left, right) = (u.input(0)?, u.input(1)?);
    let unknown = || Error::unsupported("broadcast with an axis needs known ranks");
    let (ra, rb) =
        (b.graph.ty(left).rank().ok_or_else(unknown)?, b.graph.ty(right).rank().ok_or_else(unknown)?);
    let axis = if axis < 0 { axis + ra as i64 } else { axis };
    let trailing = (ra as i64).checked_sub(axis + rb as i64).filter(|&t| (0..64).contains(&t));
    let trailing = trailing.ok_or_else(|| Error::model("broadcast axis is out of range"))?;
    if trailing > 0 {
        let axes: Vec<i64> = (rb as i64..rb as i64 + trailing).collect();
        let axes = b.add_constant("axes", Tensor::vector(axes));
        let v = b.apply("Unsqueeze", Attrs::new(), &[right, axes])?;
        u.set_input(1, v);
    }
    Ok(())
}

/// Before opset 7 a 1-D slope ran along the channels.
fn prelu_per_channel(u: &mut Upgrade, b: &mut Builder) -> Result<()> {
    let (x, slope) = (u.input(0)?, u.input(1)?);
    if let (Some(rx), Some(1)) = (b.graph.ty(x).rank(), b.graph.ty(slope).rank())
        && rx > 2
    {
        let axes = b.add_constant("axes", Tensor::vector((1..rx as i64 - 1).collect::<Vec<_>>()));
        let v = b.apply("Unsqueeze", Attrs::new(), &[slope, axes])?;
        u.set_input(1, v);
    }
    Ok(())
}

fn spatial(u: &mut Upgrade, _: &mut Builder) -> Result<()> {
    if u.attrs.int_or("spatial", 1)? != 1 {
        return Err(Error::unsupported("BatchNormalization with spatial = 0"));
    }
    u.attrs.remove("spatial");
    Ok(())
}

/// Upsample-7 has scales as an attribute; version 1 only for height and width.
fn upsample_scales(u: &mut Upgrade, b: &mut Builder) -> Result<()> {
    let scales = match u.attrs.floats("scales")? {
        Some(s) => s.to_vec(),
        None => {
            let side = |n: &str| {
                u.attrs.float(n)?.ok_or_else(|| Error::model(format!("attribute '{n}' is missing")))
            };
            vec![1.0, 1.0, side("height_scale")?, side("width_scale")?]
        }
    };
    ["scales", "height_scale", "width_scale"].iter().for_each(|n| drop(u.attrs.remove(n)));
    let v = b.add_constant("scales", Tensor::vector(scales));
    u.set_input(1, v);
    Ok(())
}

/// Upsample and Resize-10: scales are the second input, coordinates are scaled without an offset; the nearest pixel is the
/// one before where the image grows and the one after where it shrinks.
fn resize_without_modes(u: &mut Upgrade, b: &mut Builder) -> Result<()> {
    let scales = u.input(1)?;
    let known = b.graph.constant(scales).and_then(|t| t.to_f32s().ok()).unwrap_or_default();
    let shrinks = known.iter().any(|&s| s < 1.0);
    if shrinks && known.iter().any(|&s| s > 1.0) && u.attrs.str_or("mode", "nearest")? == "nearest" {
        return Err(Error::unsupported("Resize before opset 11 that both grows and shrinks"));
    }
    u.inputs = vec![Some(u.input(0)?), None, Some(scales)];
    u.attrs.set("coordinate_transformation_mode", "asymmetric");
    u.attrs.set("nearest_mode", if shrinks { "ceil" } else { "floor" });
    if u.attrs.str("mode")? == Some("bilinear") {
        u.attrs.set("mode", "linear");
    }
    Ok(())
}

/// Pad-2 and Pad-1 have pads and value as attributes.
fn pad_inputs(u: &mut Upgrade, b: &mut Builder) -> Result<()> {
    if u.attrs.has("paddings") {
        ints_to_input(u, b, "paddings", 1)?;
    } else {
        ints_to_input(u, b, "pads", 1)?;
    }
    float_to_input(u, b, "value", 2)
}

/// Before opset 13 the input was flattened to 2-D at `axis` (default 1), normalized, and given its shape back.
fn coerced_softmax(u: &mut Upgrade, b: &mut Builder) -> Result<()> {
    let axis = u.attrs.int_or("axis", 1)?;
    let x = u.input(0)?;
    let rank = b.graph.ty(x).rank().map(|r| r as i64);
    let last = rank.is_some_and(|r| axis == r - 1) || axis == -1;
    if last {
        u.attrs.set("axis", -1);
        return Ok(());
    }
    let flat = b.apply("Flatten", Attrs::new().with("axis", axis), &[x])?;
    let y = b.apply(&u.op.clone(), Attrs::new().with("axis", -1), &[flat])?;
    let shape = b.apply("Shape", Attrs::new(), &[x])?;
    u.op = "Reshape".into();
    u.attrs = Attrs::new();
    u.inputs = vec![Some(y), Some(shape)];
    Ok(())
}

/// GroupNormalization-18 has one scale and bias per group; from 21 on one per channel.
fn group_norm_per_channel(u: &mut Upgrade, b: &mut Builder) -> Result<()> {
    let groups = u.attrs.require_int("num_groups")?;
    let x = u.input(0)?;
    let channels = b.graph.ty(x).shape().and_then(|s| s.get(1)).and_then(|d| d.known()).map(|c| c as i64);
    let channels = channels
        .ok_or_else(|| Error::unsupported("GroupNormalization before opset 21 with unknown channels"))?;
    if groups < 1 || channels % groups != 0 {
        return Err(Error::model(format!("{channels} channels do not divide into {groups} groups")));
    }
    for i in [1, 2] {
        let v = u.input(i)?;
        let column = b.add_constant("column", Tensor::vector(vec![groups, 1]));
        let wide = b.add_constant("wide", Tensor::vector(vec![groups, channels / groups]));
        let flat = b.add_constant("flat", Tensor::vector(vec![-1i64]));
        let v = b.apply("Reshape", Attrs::new(), &[v, column])?;
        let v = b.apply("Expand", Attrs::new(), &[v, wide])?;
        let v = b.apply("Reshape", Attrs::new(), &[v, flat])?;
        u.set_input(i, v);
    }
    Ok(())
}

/// Tile-1 repeats `tiles` times along one axis.
fn tile_along_axis(u: &mut Upgrade, b: &mut Builder) -> Result<()> {
    let Some(axis) = u.inputs.get(2).copied().flatten() else { return Ok(()) };
    let rank = b.graph.ty(u.input(0)?).rank();
    let scalar = |v: ValueId| b.graph.constant(v).and_then(|t| t.to_f64s().ok()?.first().copied());
    let (Some(rank), Some(axis), Some(tiles)) = (rank, scalar(axis), scalar(u.input(1)?)) else {
        return Err(Error::unsupported("Tile before opset 6 needs constant tiles, axis and a known rank"));
    };
    let mut repeats = vec![1i64; rank];
    let at = repeats.get_mut(axis as usize).ok_or_else(|| Error::model("axis is out of range"))?;
    *at = tiles as i64;
    let v = b.add_constant("repeats", Tensor::vector(repeats));
    u.inputs = vec![Some(u.input(0)?), Some(v)];
    Ok(())
}

/// Before opset 10 the mask had the type of the data.
fn mask_of_data_type(u: &mut Upgrade, b: &mut Builder) -> Result<()> {
    let Some(mask) = u.outputs.get_mut(1).filter(|m| !m.is_empty()) else { return Ok(()) };
    let name = mask.clone();
    *mask = b.graph.fresh_name(&format!("{name}.bool"));
    let unknown = || Error::unsupported("Dropout before opset 10 with a mask needs a known type");
    let dtype = b.graph.dtype(u.input(0)?).ok_or_else(unknown)?;
    let (data, like) = (u.outputs.first().cloned().unwrap_or_default(), u.outputs.clone());
    let drop =
        Upgrade::new("Dropout", "", Attrs::new(), u.inputs.clone(), vec![data, like[1].clone()], vec![]);
    let bits = b.emit(Upgrade { name: u.name.clone(), ..drop })?;
    let attrs = Attrs::new().with("to", i64::from(dtype.onnx()));
    let bits = bits.get(1).copied().flatten();
    b.emit(Upgrade::new("Cast", "", attrs, vec![bits], vec![name], vec![]))?;
    u.done = true;
    Ok(())
}

/// Scan-8 has a batch axis before the scanned one, and lengths; with a batch of one it is a Scan without.
fn scan_of_one_batch(u: &mut Upgrade, b: &mut Builder) -> Result<()> {
    let batch = |v: ValueId| b.graph.ty(v).shape().and_then(|s| s.first()).and_then(|d| d.known());
    let inputs: Vec<ValueId> = u.inputs.iter().skip(1).flatten().copied().collect();
    if u.inputs.first().copied().flatten().is_some() || inputs.iter().any(|&v| batch(v) != Some(1)) {
        return Err(Error::unsupported("Scan before opset 9 with lengths or a batch other than 1"));
    }
    if let Some(d) = u.attrs.remove("directions") {
        u.attrs.set("scan_input_directions", d);
    }
    let first = b.add_constant("axes", Tensor::vector(vec![0i64]));
    let squeezed = inputs
        .iter()
        .map(|&v| b.apply("Squeeze", Attrs::new(), &[v, first]).map(Some))
        .collect::<Result<_>>()?;
    let names = std::mem::take(&mut u.outputs);
    let inner: Vec<String> = names
        .iter()
        .map(|n| if n.is_empty() { String::new() } else { b.graph.fresh_name(&format!("{n}.scan")) })
        .collect();
    let scan = Upgrade::new("Scan", "", u.attrs.clone(), squeezed, inner, u.captures.clone());
    let results = b.emit(Upgrade { name: u.name.clone(), ..scan })?;
    for (name, v) in names.into_iter().zip(results) {
        if v.is_some() {
            b.emit(Upgrade::new("Unsqueeze", "", Attrs::new(), vec![v, Some(first)], vec![name], vec![]))?;
        }
    }
    u.done = true;
    Ok(())
}

/// Producers write an empty tensor where an optional input is absent.
fn empty_means_absent(u: &mut Upgrade, b: &mut Builder) -> Result<()> {
    for v in u.inputs.iter_mut().skip(1) {
        if v.is_some_and(|v| b.graph.constant(v).is_some_and(|t| t.shape().contains(&0))) {
            *v = None;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
