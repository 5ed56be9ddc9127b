use super::{Cache, merge};
use crate::packs::Packs;
use crate::{Precision, Program, lowered, plan, program};
use ir::{Attrs, DType, Graph, Tensor, Value, ValueId, ValueType};
use kernels::stored::{Reader, Writer};
use kernels::{Pool, Serial, Tier};
use proptest::prelude::*;

/// Tasks of so many threads, last first.
struct Many(usize);
impl Pool for Many {
    fn threads(&self) -> usize {
        self.0
    }
    fn run(&self, tasks: usize, f: &(dyn Fn(usize) + Sync)) {
        (0..tasks).rev().for_each(f);
    }
}

/// One convolution of a chain.
#[derive(Debug, Clone)]
struct Layer {
    channels: usize,
    depthwise: bool,
    kernel: [usize; 2],
    stride: usize,
    dilation: usize,
    pads: [usize; 2],
    relu: bool,
    residual: bool,
}

fn data(shape: &[usize], seed: usize) -> Tensor {
    let n = shape.iter().product();
    let value = |i: usize| (((i + seed) * 7919 + (i * i) % 89) % 613) as f32 / 300.0 - 1.0;
    Tensor::new(shape, (0..n).map(value).collect()).unwrap()
}

/// A chain over `[batch, channels, h, w]`, each result added to what it was made of where that is asked for and fits.
fn chain(input: [usize; 4], layers: &[Layer]) -> Graph {
    let op = |n: &str| ops::standard(n).unwrap();
    let mut g = Graph::new("t");
    let mut x = g.add_input("x", ValueType::known(DType::F32, &input));
    let mut shape = input;
    for (i, l) in layers.iter().enumerate() {
        let (cout, groups) = if l.depthwise { (shape[1], shape[1]) } else { (l.channels, 1) };
        let [h, w] = l.kernel;
        let (dilation, width) = (if h > 1 { l.dilation } else { 1 }, (w - 1) / 2);
        let reach = (h - 1) * dilation;
        let pads = l.pads.map(|p| p.min(reach));
        let room = shape[2] + pads[0] + pads[1];
        if room < reach + 1 {
            continue;
        }
        let weights = g.add_initializer("w", data(&[cout, shape[1] / groups, h, w], i));
        let bias = g.add_initializer("b", data(&[cout], i + 5));
        let attrs = Attrs::new()
            .with("group", groups as i64)
            .with("strides", vec![l.stride as i64, 1])
            .with("dilations", vec![dilation as i64, 1])
            .with("pads", vec![pads[0] as i64, width as i64, pads[1] as i64, (w - 1 - width) as i64]);
        let mut y: ValueId = g.apply("conv", op("Conv"), attrs, &[x, weights, bias]);
        let next = [shape[0], cout, (room - reach - 1) / l.stride + 1, shape[3]];
        if l.residual && next == shape {
            y = g.apply("sum", op("Add"), Attrs::new(), &[y, x]);
        }
        if l.relu {
            y = g.apply("relu", op("Relu"), Attrs::new(), &[y]);
        }
        (x, shape) = (y, next);
    }
    g.add_output("y", x);
    ir::infer(&mut g).unwrap();
    g
}

fn compiled(g: &Graph, cache: &Cache) -> Program {
    let (g, steps) = lowered(g, Tier::best(), Precision::default(), &Packs::default()).unwrap();
    let steps = merge(&g, steps, cache).unwrap();
    let plan = plan::plan(&g, &steps).unwrap();
    program::assemble(g, steps, plan).unwrap()
}

/// Runs in bands and layer by layer, and gives how many steps run in bands.
fn check(input: [usize; 4], layers: &[Layer], cache: &Cache) -> usize {
    let g = chain(input, layers);
    let (plain, bands) = (compiled(&g, &Cache { large: usize::MAX, room: 0 }), compiled(&g, cache));
    let x = [Value::Tensor(data(&input, 9))];
    let want = plain.run(&x, &Serial).unwrap();
    for threads in [1, 2, 3, 16] {
        assert_eq!(bands.run(&x, &Many(threads)).unwrap(), want, "{threads} threads: {layers:?}");
    }
    let mut w = Writer::default();
    assert!(bands.store(&mut w));
    let size = [input.iter().product::<usize>() * 4];
    let read = Program::load(&mut Reader { stream: &w.stream, bulk: w.copied() }, &size).unwrap();
    assert_eq!(read.run(&x, &Many(2)).unwrap(), want);
    bands.steps().iter().filter(|s| s.kind == "convolutions in bands").count()
}

fn layer(channels: usize, depthwise: bool, size: usize, stride: usize) -> Layer {
    let pads = [size / 2; 2];
    Layer { channels, depthwise, kernel: [size; 2], stride, dilation: 1, pads, relu: true, residual: false }
}

#[test]
fn an_inverted_bottleneck_is_one_step() {
    let mut layers = [layer(24, false, 1, 1), layer(24, true, 3, 1), layer(8, false, 1, 1)];
    layers[2].residual = true;
    for room in [1000, 2000, 4000, 100_000] {
        assert_eq!(check([2, 8, 20, 6], &layers, &Cache { large: 1, room }), 1, "{room}");
    }
    layers[1].stride = 2;
    assert_eq!(check([1, 8, 21, 6], &layers, &Cache { large: 1, room: 2000 }), 1);
    // Not a line of it fits; nothing between is large.
    assert_eq!(check([1, 8, 20, 6], &layers, &Cache { large: 1, room: 100 }), 0);
    assert_eq!(check([1, 8, 20, 6], &layers, &Cache { large: 10_000, room: 2000 }), 0);
}

#[test]
fn results_read_twice_are_kept() {
    let op = |n: &str| ops::standard(n).unwrap();
    let mut g = Graph::new("t");
    let x = g.add_input("x", ValueType::known(DType::F32, &[1, 8, 12, 6]));
    let w = g.add_initializer("w", data(&[8, 8, 1, 1], 1));
    let a = g.apply("a", op("Conv"), Attrs::new(), &[x, w]);
    let b = g.apply("b", op("Conv"), Attrs::new(), &[a, w]);
    let c = g.apply("c", op("Conv"), Attrs::new(), &[b, w]);
    g.add_output("c", c);
    g.add_output("a", a);
    ir::infer(&mut g).unwrap();
    let bands = compiled(&g, &Cache { large: 1, room: 10_000 });
    let kinds: Vec<&str> = bands.steps().iter().map(|s| s.kind).filter(|k| *k != "movement").collect();
    assert_eq!(kinds, ["convolution", "convolutions in bands"]);
    let x = [Value::Tensor(data(&[1, 8, 12, 6], 9))];
    let plain = compiled(&g, &Cache { large: usize::MAX, room: 0 });
    assert_eq!(bands.run(&x, &Serial).unwrap(), plain.run(&x, &Serial).unwrap());
}

fn layers() -> impl Strategy<Value = Vec<Layer>> {
    let one = (
        1usize..20,
        any::<bool>(),
        [1usize..6, 1usize..4],
        1usize..4,
        1usize..3,
        [0usize..6, 0usize..6],
        any::<[bool; 2]>(),
    );
    let layer = one.prop_map(|(channels, depthwise, kernel, stride, dilation, pads, [relu, residual])| {
        Layer { channels, depthwise, kernel, stride, dilation, pads, relu, residual }
    });
    prop::collection::vec(layer, 2..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn bands_change_no_bit(
        input in [1usize..4, 1usize..24, 1usize..40, 1usize..9], layers in layers(), room in 50usize..6000,
    ) {
        check(input, &layers, &Cache { large: 1, room });
    }
}
