//! table: one operator each, with attributes and inputs that no exporter writes.

use super::proto::*;
use ir::{DType, Tensor};

/// An operator, what it is given, how many results it has.
pub struct Row {
    pub op: &'static str,
    pub inputs: Vec<Option<Tensor>>,
    pub attrs: Vec<Msg>,
    pub outputs: usize,
    /// The version of "ai.onnx.ml" for an operator of that domain.
    pub learned: Option<i64>,
}

const MAX: i64 = i64::MAX;
const MIN: i64 = i64::MIN;
const BIG: i64 = 1 << 40;

fn x(shape: &[usize]) -> Option<Tensor> {
    let n = shape.iter().product::<usize>();
    Some(Tensor::new(shape, (0..n).map(|i| i as f32 * 0.5 - 1.0).collect()).unwrap())
}
fn f(v: &[f32]) -> Option<Tensor> {
    Some(Tensor::vector(v.to_vec()))
}
fn fs(v: f32) -> Option<Tensor> {
    Some(Tensor::scalar(v))
}
fn i(v: &[i64]) -> Option<Tensor> {
    Some(Tensor::vector(v.to_vec()))
}
fn is(v: i64) -> Option<Tensor> {
    Some(Tensor::scalar(v))
}
fn of(d: DType, v: &[i64]) -> Option<Tensor> {
    Some(Tensor::from_i64s(d, &[v.len()], v.to_vec()).unwrap())
}
fn text(v: &[&str]) -> Option<Tensor> {
    Some(Tensor::strings(&[v.len()], v.iter().map(|s| s.to_string()).collect()).unwrap())
}

fn row(op: &'static str, inputs: Vec<Option<Tensor>>, attrs: Vec<Msg>) -> Row {
    rows(op, 1, inputs, attrs)
}
fn rows(op: &'static str, outputs: usize, inputs: Vec<Option<Tensor>>, attrs: Vec<Msg>) -> Row {
    Row { op, inputs, attrs, outputs, learned: None }
}

/// All rows.
pub fn all() -> Vec<Row> {
    let mut r = Vec::new();
    sizes(&mut r);
    positions(&mut r);
    windows(&mut r);
    integers(&mut r);
    layers(&mut r);
    others(&mut r);
    r
}

/// Sizes of results that come from tensors and attributes.
fn sizes(r: &mut Vec<Row>) {
    for s in [
        &[BIG][..],
        &[1 << 31, 1 << 31],
        &[MAX],
        &[-1],
        &[MIN],
        &[1 << 20, 1 << 20],
        &[1; 70],
        &[0, MAX, MAX],
    ] {
        r.push(row("Expand", vec![x(&[1]), i(s)], vec![]));
        r.push(row("ConstantOfShape", vec![i(s)], vec![]));
        r.push(row("Reshape", vec![x(&[6]), i(s)], vec![]));
        r.push(row("RandomNormal", vec![], vec![ints("shape", s)]));
        r.push(row("RandomUniform", vec![], vec![ints("shape", s)]));
    }
    for s in [&[BIG, 1][..], &[MAX, MAX], &[-1, 2], &[0, MAX], &[1], &[1, 1, 1], &[1 << 20, 1 << 20]] {
        r.push(row("Tile", vec![x(&[2, 3]), i(s)], vec![]));
    }
    for p in [[BIG, 0], [MAX, MAX], [MIN, MIN], [-5, 0], [-1, -2], [0, 1 << 33]] {
        for mode in ["constant", "edge", "reflect", "wrap"] {
            r.push(row("Pad", vec![x(&[3]), i(&p)], vec![string("mode", mode)]));
        }
    }
    r.push(row("Pad", vec![x(&[3]), i(&[1, 1]), fs(0.0), i(&[7])], vec![]));
    r.push(row("Pad", vec![x(&[0]), i(&[4, 4])], vec![string("mode", "reflect")]));
    for (a, b, c) in
        [(0, MAX, 1), (MIN, MAX, 1), (0, BIG, 1), (0, 1, 0), (MAX, MIN, -1), (MIN, MAX, MAX), (0, 5, MIN)]
    {
        r.push(row("Range", vec![is(a), is(b), is(c)], vec![]));
    }
    for (a, b, c) in [
        (0.0, f32::INFINITY, 1.0),
        (0.0, 1.0, 0.0),
        (0.0, 1.0, f32::NAN),
        (0.0, 1e30, 1e-30),
        (f32::NAN, 1.0, 1.0),
    ] {
        r.push(row("Range", vec![fs(a), fs(b), fs(c)], vec![]));
    }
    for d in [BIG, -1, 0, MAX, MIN] {
        r.push(row("OneHot", vec![i(&[0, 1, 2]), is(d), f(&[0.0, 1.0])], vec![]));
        r.push(rows("TopK", 2, vec![x(&[4]), i(&[d])], vec![]));
        r.push(rows("TopK", 2, vec![x(&[4]), i(&[2])], vec![int("axis", d)]));
        r.push(row("HannWindow", vec![is(d)], vec![]));
        r.push(row("BlackmanWindow", vec![is(d)], vec![int("periodic", 0)]));
        r.push(row("DFT", vec![x(&[1, 4, 1]), is(d)], vec![]));
        r.push(row("MelWeightMatrix", vec![is(d), is(16), is(8000), fs(0.0), fs(4000.0)], vec![]));
        r.push(row("MelWeightMatrix", vec![is(8), is(d), is(8000), fs(0.0), fs(4000.0)], vec![]));
        r.push(row("CenterCropPad", vec![x(&[2, 3]), i(&[d, 1])], vec![]));
        r.push(row("AffineGrid", vec![x(&[1, 2, 3]), i(&[1, 1, d, 4])], vec![]));
        r.push(row("Multinomial", vec![x(&[1, 3])], vec![int("sample_size", d)]));
        r.push(row("EyeLike", vec![x(&[2, 2])], vec![int("k", d)]));
        r.push(row("Trilu", vec![x(&[2, 2]), is(d)], vec![]));
        r.push(rows("Split", 2, vec![x(&[4]), i(&[d, 4])], vec![]));
        r.push(rows("Split", 2, vec![x(&[4])], vec![int("num_outputs", d)]));
        r.push(row("SplitToSequence", vec![x(&[4]), is(d)], vec![]));
        r.push(row("Col2Im", vec![x(&[1, 4, 4]), i(&[d, 3]), i(&[2, 2])], vec![]));
        r.push(row("Col2Im", vec![x(&[1, 4, 4]), i(&[3, 3]), i(&[d, 2])], vec![]));
        r.push(row(
            "MaxUnpool",
            vec![x(&[1, 1, 2, 2]), Some(Tensor::new(&[1, 1, 2, 2], vec![d, 0, 1, 2]).unwrap())],
            vec![ints("kernel_shape", &[2, 2])],
        ));
    }
    for s in [[1.0, f32::INFINITY], [1.0, 1e20], [f32::NAN, 1.0], [-1.0, 1.0], [0.0, 1.0], [1e-30, 1e-30]] {
        for mode in ["nearest", "linear", "cubic"] {
            r.push(row("Resize", vec![x(&[2, 3]), None, f(&s)], vec![string("mode", mode)]));
        }
    }
    for s in [[1, BIG], [MAX, MAX], [-1, 1], [0, 1], [1 << 20, 1 << 20]] {
        r.push(row("Resize", vec![x(&[2, 3]), None, None, i(&s)], vec![]));
    }
    r.push(row(
        "Resize",
        vec![x(&[2, 3]), f(&[f32::NAN; 4]), f(&[2.0, 2.0])],
        vec![string("coordinate_transformation_mode", "tf_crop_and_resize")],
    ));
    r.push(row("Resize", vec![x(&[0, 3]), None, None, i(&[4, 4])], vec![string("mode", "linear")]));
    r.push(row("Resize", vec![x(&[2, 3]), None, f(&[2.0])], vec![ints("axes", &[9])]));
    for size in [MAX, BIG, 1 << 33] {
        r.push(row("GatherND", vec![Some(Tensor::zeros(DType::F32, &[0, 1]).unwrap()), i(&[size])], vec![]));
    }
}

/// Axes, permutations, indices and steps.
fn positions(r: &mut Vec<Row>) {
    for a in [7, -7, MAX, MIN, BIG] {
        for op in [
            "Softmax",
            "LogSoftmax",
            "Hardmax",
            "ArgMax",
            "ArgMin",
            "Flatten",
            "LayerNormalization",
            "RMSNormalization",
            "LpNormalization",
            "Unique",
        ] {
            let inputs = if op.ends_with("sNormalization") || op.starts_with('R') || op.starts_with("La") {
                vec![x(&[2, 3]), f(&[1.0; 3])]
            } else {
                vec![x(&[2, 3])]
            };
            r.push(row(op, inputs, vec![int("axis", a)]));
        }
        r.push(row("Concat", vec![x(&[2]), x(&[2])], vec![int("axis", a)]));
        r.push(row("ConcatFromSequence", vec![x(&[2])], vec![int("axis", a)]));
        r.push(row("Gather", vec![x(&[2, 3]), i(&[a])], vec![]));
        r.push(row("Gather", vec![x(&[2, 3]), i(&[0])], vec![int("axis", a)]));
        r.push(row("GatherElements", vec![x(&[2]), i(&[a, 0])], vec![]));
        r.push(row("GatherND", vec![x(&[2, 3]), i(&[a])], vec![]));
        r.push(row("GatherND", vec![x(&[2, 3]), i(&[0])], vec![int("batch_dims", a)]));
        r.push(row("ScatterElements", vec![x(&[2]), i(&[a]), f(&[1.0])], vec![]));
        r.push(row(
            "ScatterND",
            vec![x(&[2]), Some(Tensor::new(&[1, 1], vec![a]).unwrap()), f(&[1.0])],
            vec![],
        ));
        r.push(row("TensorScatter", vec![x(&[1, 1, 2, 2]), x(&[1, 1, 1, 2]), i(&[a])], vec![]));
        r.push(row("CumSum", vec![x(&[3]), is(a)], vec![]));
        r.push(row("Squeeze", vec![x(&[1, 3]), i(&[a])], vec![]));
        r.push(row("Unsqueeze", vec![x(&[3]), i(&[a])], vec![]));
        r.push(row("ReduceSum", vec![x(&[3]), i(&[a])], vec![]));
        r.push(row("Slice", vec![x(&[3]), i(&[a]), i(&[MIN]), None, i(&[-1])], vec![]));
        r.push(row("Slice", vec![x(&[3]), i(&[MIN]), i(&[MAX]), i(&[a])], vec![]));
        r.push(row("Slice", vec![x(&[3]), i(&[MAX]), i(&[MIN]), i(&[0]), i(&[a])], vec![]));
        r.push(row("Compress", vec![x(&[3]), of(DType::Bool, &[1, 1])], vec![int("axis", a)]));
        r.push(row("ReverseSequence", vec![x(&[3, 2]), i(&[a, 1])], vec![]));
        r.push(row("Transpose", vec![x(&[2, 3])], vec![ints("perm", &[a, 0])]));
        r.push(row("QuantizeLinear", vec![x(&[2, 3]), f(&[1.0; 3])], vec![int("axis", a)]));
        r.push(row(
            "DequantizeLinear",
            vec![Some(Tensor::new(&[2, 3], vec![1u8; 6]).unwrap()), f(&[1.0; 3])],
            vec![int("axis", a)],
        ));
        r.push(row("SequenceAt", vec![x(&[2]), is(a)], vec![]));
        r.push(row("Shape", vec![x(&[2, 3])], vec![int("start", a), int("end", MIN)]));
        r.push(row("MeanVarianceNormalization", vec![x(&[2, 3])], vec![ints("axes", &[a])]));
    }
    r.push(row("Slice", vec![x(&[3]), i(&[0]), i(&[3]), i(&[0]), i(&[0])], vec![]));
    r.push(row("Slice", vec![x(&[3]), i(&[0, 0]), i(&[3]), i(&[0])], vec![]));
    for perm in [&[0, 0][..], &[0], &[0, 1, 2], &[1, -1], &[]] {
        r.push(row("Transpose", vec![x(&[2, 3])], vec![ints("perm", perm)]));
    }
    r.push(row("Squeeze", vec![x(&[1, 1]), i(&[0, 0])], vec![]));
    r.push(row("Unsqueeze", vec![x(&[2]), i(&[0; 80])], vec![]));
    r.push(row("ReduceMax", vec![x(&[0]), i(&[0])], vec![]));
    r.push(row("ArgMax", vec![x(&[0])], vec![int("axis", 0)]));
    r.push(row("Reshape", vec![x(&[6]), i(&[-1, -1])], vec![]));
    r.push(row("Reshape", vec![x(&[0]), i(&[0, -1])], vec![int("allowzero", 1)]));
    r.push(row("Where", vec![of(DType::Bool, &[1, 0]), x(&[3]), x(&[5])], vec![]));
}

/// Strides, kernels, groups, paddings.
fn windows(r: &mut Vec<Row>) {
    let image = || x(&[1, 4, 5, 5]);
    let w = || x(&[4, 4, 3, 3]);
    for bad in [[0, 0], [-1, -1], [MAX, MAX], [MIN, 1], [1 << 31, 1 << 31]] {
        for name in ["strides", "dilations", "kernel_shape"] {
            r.push(row("Conv", vec![image(), w()], vec![ints(name, &bad)]));
            r.push(row("ConvTranspose", vec![image(), w()], vec![ints(name, &bad)]));
            let kernel = if name == "kernel_shape" { vec![] } else { vec![ints("kernel_shape", &[2, 2])] };
            for op in ["MaxPool", "AveragePool", "LpPool"] {
                r.push(row(op, vec![image()], [kernel.clone(), vec![ints(name, &bad)]].concat()));
            }
        }
        for auto in ["SAME_UPPER", "VALID", "NONSENSE"] {
            r.push(row("Conv", vec![image(), w()], vec![ints("strides", &bad), string("auto_pad", auto)]));
        }
        r.push(row("ConvTranspose", vec![image(), w()], vec![ints("output_padding", &bad)]));
        r.push(row("ConvTranspose", vec![image(), w()], vec![ints("output_shape", &bad)]));
        r.push(row("MaxRoiPool", vec![image(), x(&[1, 5])], vec![ints("pooled_shape", &bad)]));
        r.push(row("Conv", vec![image(), w()], vec![ints("pads", &[bad[0], bad[1], bad[0], bad[1]])]));
        r.push(row(
            "MaxPool",
            vec![image()],
            vec![
                ints("kernel_shape", &[2, 2]),
                ints("pads", &[bad[0], bad[1], bad[0], bad[1]]),
                int("ceil_mode", 1),
            ],
        ));
        r.push(row(
            "RoiAlign",
            vec![image(), x(&[1, 4]), i(&[0])],
            vec![int("output_height", bad[0]), int("output_width", bad[1])],
        ));
        r.push(row("RoiAlign", vec![image(), x(&[1, 4]), i(&[bad[0]])], vec![]));
        r.push(row("RoiAlign", vec![image(), x(&[1, 4]), i(&[0])], vec![int("sampling_ratio", bad[0])]));
        r.push(row("DepthToSpace", vec![image()], vec![int("blocksize", bad[0])]));
        r.push(row("SpaceToDepth", vec![image()], vec![int("blocksize", bad[0])]));
        r.push(row("LRN", vec![image()], vec![int("size", bad[0])]));
        r.push(row(
            "GroupNormalization",
            vec![image(), f(&[1.0; 4]), f(&[0.0; 4])],
            vec![int("num_groups", bad[0])],
        ));
        r.push(row("STFT", vec![x(&[1, 16, 1]), is(bad[0]), None, is(4)], vec![]));
        r.push(row("STFT", vec![x(&[1, 16, 1]), is(2), None, is(bad[0])], vec![]));
        r.push(row(
            "ConvInteger",
            vec![
                Some(Tensor::new(&[1, 1, 3, 3], vec![1u8; 9]).unwrap()),
                Some(Tensor::new(&[1, 1, 2, 2], vec![1u8; 4]).unwrap()),
            ],
            vec![ints("strides", &bad)],
        ));
        r.push(row("DeformConv", vec![image(), w(), x(&[1, 18, 3, 3])], vec![ints("strides", &bad)]));
    }
    for g in [0, -1, 3, MAX, MIN, BIG] {
        r.push(row("Conv", vec![image(), w()], vec![int("group", g)]));
        r.push(row("ConvTranspose", vec![image(), w()], vec![int("group", g)]));
        r.push(row(
            "DeformConv",
            vec![image(), w(), x(&[1, 18, 3, 3])],
            vec![int("group", g), int("offset_group", g)],
        ));
        r.push(row("GlobalLpPool", vec![image()], vec![int("p", g)]));
        r.push(row("LpPool", vec![image()], vec![ints("kernel_shape", &[2, 2]), int("p", g)]));
    }
    r.push(row("Conv", vec![x(&[1, 0, 5, 5]), x(&[4, 0, 3, 3])], vec![]));
    r.push(row("Conv", vec![image(), x(&[0, 4, 3, 3])], vec![]));
    r.push(row("Conv", vec![image(), x(&[4, 4, 0, 3])], vec![]));
    r.push(row("Conv", vec![x(&[4]), x(&[4])], vec![]));
    r.push(row("Conv", vec![image(), w(), f(&[1.0; 3])], vec![]));
    r.push(row("Conv", vec![image(), w()], vec![ints("pads", &[1])]));
    r.push(row("Conv", vec![image(), x(&[4, 4, 9, 9])], vec![]));
    r.push(row("MaxPool", vec![image()], vec![ints("kernel_shape", &[9, 9])]));
    r.push(row("MaxPool", vec![image()], vec![ints("kernel_shape", &[2])]));
    r.push(row(
        "GridSample",
        vec![
            image(),
            Some(
                Tensor::new(
                    &[1, 2, 2, 2],
                    vec![f32::NAN, f32::INFINITY, 1e30, -1e30, 0.0, 0.0, f32::NEG_INFINITY, 3.0],
                )
                .unwrap(),
            ),
        ],
        vec![string("padding_mode", "reflection")],
    ));
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN] {
        for samples in [0, 2, MAX] {
            let attrs = || vec![int("sampling_ratio", samples)];
            let rois = |v: [f32; 4]| Some(Tensor::new(&[1, 4], v.to_vec()).unwrap());
            r.push(row("RoiAlign", vec![image(), rois([bad; 4]), i(&[0])], attrs()));
            r.push(row("RoiAlign", vec![image(), rois([0.0, bad, 3.0, 4.0]), i(&[0])], attrs()));
        }
    }
    r.push(row("RoiAlign", vec![image(), x(&[0, 4]), i(&[])], vec![]));
    r.push(row("RoiAlign", vec![x(&[1, 0, 4, 4]), x(&[1, 4]), i(&[0])], vec![]));
    r.push(row(
        "GridSample",
        vec![x(&[1, 1, 0, 0]), x(&[1, 2, 2, 2])],
        vec![string("padding_mode", "border")],
    ));
}

/// Division, modulo, shifts and edges of every integer type.
fn integers(r: &mut Vec<Row>) {
    use DType::*;
    for (d, lo, hi) in [
        (I8, -128, 127),
        (I16, -32768, 32767),
        (I32, i64::from(i32::MIN), i64::from(i32::MAX)),
        (I64, MIN, MAX),
        (U8, 0, 255),
        (U32, 0, u32::MAX.into()),
        (U64, 0, MAX),
    ] {
        let minus = if lo < 0 { -1 } else { 1 };
        let all = || of(d, &[lo, hi, 0, lo]);
        let by = || of(d, &[minus, 0, 0, 0]);
        for op in ["Div", "Pow", "Mul", "Add", "Sub"] {
            r.push(row(op, vec![all(), by()], vec![]));
        }
        for fmod in [0, 1] {
            r.push(row("Mod", vec![all(), by()], vec![int("fmod", fmod)]));
        }
        for op in ["Abs", "Neg", "Sign", "ReduceProd", "ReduceSumSquare"] {
            r.push(row(op, vec![all()], vec![]));
        }
        r.push(row(
            "Clip",
            vec![
                all(),
                of(d, &[hi]).map(|t| t.reshaped(&[]).unwrap()),
                of(d, &[lo]).map(|t| t.reshaped(&[]).unwrap()),
            ],
            vec![],
        ));
        if lo == 0 {
            for direction in ["LEFT", "RIGHT", "UP"] {
                r.push(row(
                    "BitShift",
                    vec![of(d, &[1, 255, 3, 0]), of(d, &[8, 64, 200, 63])],
                    vec![string("direction", direction)],
                ));
            }
        }
        r.push(row(
            "Cast",
            vec![f(&[f32::NAN, f32::INFINITY, -1e30, 1e30])],
            vec![int("to", i64::from(d.onnx()))],
        ));
    }
    r.push(row(
        "MatMulInteger",
        vec![
            Some(Tensor::new(&[2, 2], vec![255u8; 4]).unwrap()),
            Some(Tensor::new(&[2, 2], vec![255u8; 4]).unwrap()),
            of(U8, &[1, 2, 3]),
            of(U8, &[9]),
        ],
        vec![],
    ));
    for to in [0, 99, -1, MAX, 8, 14, 23] {
        r.push(row("Cast", vec![x(&[3])], vec![int("to", to)]));
    }
    r.push(row("Cast", vec![text(&["1e999", "abc", "", "0x10", "nan"])], vec![int("to", 1)]));
    r.push(row("Cast", vec![text(&["99999999999999999999", "-1", "2.5"])], vec![int("to", 6)]));
}

/// Recurrent, normalising, attending and quantizing layers.
fn layers(r: &mut Vec<Row>) {
    for h in [0, -1, BIG, MAX, 3] {
        let attrs = || vec![int("hidden_size", h)];
        r.push(rows("LSTM", 2, vec![x(&[2, 1, 3]), x(&[1, 8, 3]), x(&[1, 8, 2])], attrs()));
        r.push(rows("GRU", 2, vec![x(&[2, 1, 3]), x(&[1, 6, 3]), x(&[1, 6, 2])], attrs()));
        r.push(rows("RNN", 2, vec![x(&[2, 1, 3]), x(&[1, 2, 3]), x(&[1, 2, 2])], attrs()));
        r.push(row(
            "Attention",
            vec![x(&[1, 2, 4]), x(&[1, 2, 4]), x(&[1, 2, 4])],
            vec![int("q_num_heads", h), int("kv_num_heads", h)],
        ));
        r.push(row(
            "RotaryEmbedding",
            vec![x(&[1, 2, 4]), x(&[2, 2]), x(&[2, 2]), Some(Tensor::new(&[1, 2], vec![h, 0]).unwrap())],
            vec![int("num_heads", h)],
        ));
        r.push(row(
            "RotaryEmbedding",
            vec![x(&[1, 1, 2, 4]), x(&[1, 2, 2]), x(&[1, 2, 2])],
            vec![int("rotary_embedding_dim", h)],
        ));
        r.push(row(
            "QuantizeLinear",
            vec![x(&[4]), f(&[1.0; 2])],
            vec![int("block_size", h), int("axis", 0)],
        ));
        r.push(row(
            "DequantizeLinear",
            vec![of(DType::I8, &[1; 4]), f(&[1.0; 2])],
            vec![int("block_size", h), int("axis", 0)],
        ));
        r.push(row(
            "TfIdfVectorizer",
            vec![i(&[1, 2, 3])],
            vec![
                string("mode", "TF"),
                int("min_gram_length", h),
                int("max_gram_length", h),
                int("max_skip_count", h),
                ints("ngram_counts", &[h, 0]),
                ints("ngram_indexes", &[h, 1]),
                ints("pool_int64s", &[1, 2]),
            ],
        ));
        r.push(row(
            "NonMaxSuppression",
            vec![x(&[1, 2, 4]), x(&[1, 1, 2]), is(h), fs(f32::NAN), fs(0.0)],
            vec![],
        ));
        r.push(row(
            "LinearAttention",
            vec![x(&[1, 2, 4]), x(&[1, 2, 4]), x(&[1, 2, 4])],
            vec![int("q_num_heads", h), int("kv_num_heads", h)],
        ));
        r.push(row(
            "Dropout",
            vec![x(&[3]), fs(h as f32), of(DType::Bool, &[1]).map(|t| t.reshaped(&[]).unwrap())],
            vec![],
        ));
    }
    let lstm =
        || vec![x(&[2, 1, 3]), x(&[1, 8, 3]), x(&[1, 8, 2]), None, Some(Tensor::vector(vec![1_000_000i32]))];
    r.push(rows("LSTM", 1, lstm(), vec![int("hidden_size", 2)]));
    r.push(rows("LSTM", 1, vec![x(&[2, 1, 3]), x(&[1, 7, 3]), x(&[1, 8, 2])], vec![int("hidden_size", 2)]));
    r.push(rows(
        "LSTM",
        1,
        vec![x(&[2, 1, 3]), x(&[1, 8, 3]), x(&[1, 8, 2])],
        vec![int("hidden_size", 2), strings("activations", &["Nope", "Tanh"])],
    ));
    r.push(rows(
        "LSTM",
        1,
        vec![x(&[2, 1, 3]), x(&[1, 8, 3]), x(&[1, 8, 2])],
        vec![int("hidden_size", 2), string("direction", "sideways")],
    ));
    r.push(rows("LSTM", 1, vec![x(&[0, 1, 3]), x(&[1, 8, 3]), x(&[1, 8, 2])], vec![int("hidden_size", 2)]));
    for s in [0.0, f32::NAN, f32::INFINITY, -1.0, 1e-40] {
        r.push(row("QuantizeLinear", vec![x(&[4]), fs(s)], vec![]));
        r.push(row("DequantizeLinear", vec![of(DType::U8, &[0, 255]), fs(s)], vec![]));
        r.push(row("LpNormalization", vec![x(&[4])], vec![int("p", s as i64)]));
    }
    r.push(row("QuantizeLinear", vec![x(&[4]), f(&[])], vec![]));
    r.push(row(
        "BatchNormalization",
        vec![x(&[1, 3]), f(&[1.0]), f(&[1.0; 3]), f(&[1.0; 9]), f(&[])],
        vec![],
    ));
    r.push(row("InstanceNormalization", vec![x(&[1, 3, 2]), f(&[1.0; 2]), f(&[1.0; 3])], vec![]));
    r.push(row("Gemm", vec![x(&[2, 3]), x(&[4, 5]), x(&[9])], vec![]));
    r.push(row("Gemm", vec![x(&[0, 3]), x(&[3, 0])], vec![]));
    r.push(row("MatMul", vec![x(&[2, 0]), x(&[0, 3])], vec![]));
    r.push(row("MatMul", vec![fs(1.0), x(&[3])], vec![]));
    r.push(row("MatMul", vec![x(&[2, 3]), x(&[2, 3])], vec![]));
    r.push(rows("DynamicQuantizeLinear", 3, vec![x(&[0])], vec![]));
    r.push(rows("DynamicQuantizeLinear", 3, vec![f(&[f32::NAN, f32::INFINITY])], vec![]));
}

/// Equations, patterns, strings, images.
fn others(r: &mut Vec<Row>) {
    for e in [
        "",
        "...",
        "ij,jk->zz",
        "ii->ii",
        "ij->ijj",
        "a,b,c",
        "ij,jk",
        "éé->é",
        "....",
        "i...j...->",
        "->",
        ",",
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ->a",
        "ij , jk -> ik",
        "i->j",
    ] {
        r.push(row("Einsum", vec![x(&[2, 2]), x(&[2, 2])], vec![string("equation", e)]));
    }
    let huge = x(&[40]);
    r.push(row(
        "Einsum",
        vec![huge.clone(), huge.clone(), huge.clone(), huge.clone(), huge.clone(), huge.clone(), huge],
        vec![string("equation", "a,b,c,d,e,f,g->abcdefg")],
    ));
    for p in ["(a*)*b", "a{1000000}", "((a{100}){100}){100}", "(", "[", "\\", "(?<n>a)", "^$", "(?R)"] {
        r.push(row(
            "RegexFullMatch",
            vec![text(&["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac"])],
            vec![string("pattern", p)],
        ));
    }
    for m in [MAX, MIN, 0, -1] {
        r.push(rows(
            "StringSplit",
            2,
            vec![text(&["a,b,,c", ""])],
            vec![string("delimiter", ","), int("maxsplit", m)],
        ));
    }
    r.push(row("StringConcat", vec![text(&["a"; 3]), text(&["b"; 2])], vec![]));
    r.push(row(
        "StringNormalizer",
        vec![text(&["ß", "İ"])],
        vec![string("case_change_action", "UPPER"), string("locale", "../../x")],
    ));
    let png = [
        0x89, b'P', b'N', b'G', 13, 10, 26, 10, 0, 0, 0, 13, b'I', b'H', b'D', b'R', 127, 255, 255, 255, 127,
        255, 255, 255,
    ];
    r.push(row("ImageDecoder", vec![Some(Tensor::vector(png.to_vec()))], vec![]));
    r.push(row("Unknown", vec![x(&[1])], vec![]));
    r.push(row("Relu\n\x1b[31m", vec![x(&[1])], vec![]));
    r.push(row("Relu", vec![], vec![]));
    r.push(row("Add", vec![x(&[1])], vec![]));
    r.push(row("Add", vec![x(&[1]), x(&[1]), x(&[1])], vec![]));
    r.push(row("Add", vec![x(&[2]), x(&[3])], vec![]));
    r.push(row("Add", vec![x(&[2]), i(&[1, 2])], vec![]));
    r.push(rows("Relu", 5, vec![x(&[1])], vec![]));
    r.push(row("Sum", vec![], vec![]));
    r.push(row("Concat", vec![], vec![int("axis", 0)]));
    r.push(row("Concat", vec![x(&[2])], vec![]));
    r.push(row("Identity", vec![None], vec![]));
    r.push(row("Softmax", vec![x(&[2])], vec![string("axis", "one")]));
    r.push(row("Conv", vec![x(&[1, 1, 3, 3]), x(&[1, 1, 2, 2])], vec![string("strides", "1,1")]));
    r.push(row("Constant", vec![], vec![]));
    r.push(row("Constant", vec![], vec![int("value_int", 1), int("value_int", 2)]));
    r.push(row("SequenceEmpty", vec![], vec![int("dtype", 99)]));
    r.push(row("Bernoulli", vec![f(&[f32::NAN, 2.0, -1.0])], vec![]));
    r.push(row("RandomNormalLike", vec![x(&[2])], vec![float("scale", f32::NAN), int("dtype", 7)]));
    r.push(row("Shrink", vec![of(DType::I8, &[-128, 127])], vec![float("lambd", f32::INFINITY)]));
    r.push(row("NonZero", vec![x(&[0, 3])], vec![]));
    r.push(row("BitwiseNot", vec![x(&[1])], vec![]));
    r.push(row("Upsample", vec![x(&[1]), f(&[1e9])], vec![]));
    r.push(row("Det", vec![x(&[0, 0])], vec![]));
    r.push(row("Det", vec![x(&[2, 3])], vec![]));
    r.push(row("IsInf", vec![f(&[f32::INFINITY])], vec![int("detect_negative", MIN)]));
    r.push(row("Scan", vec![x(&[2])], vec![int("num_scan_inputs", MAX)]));
    r.push(row("Loop", vec![is(MAX)], vec![]));
    r.push(row("If", vec![of(DType::Bool, &[1])], vec![]));
    r.push(row("SoftmaxCrossEntropyLoss", vec![x(&[1, 3]), i(&[MAX])], vec![]));
    r.push(row("NegativeLogLikelihoodLoss", vec![x(&[1, 3]), i(&[-1])], vec![int("ignore_index", MIN)]));
    r.push(row("Elu", vec![x(&[3])], vec![floats("alpha", &[1.0, 2.0])]));
}
