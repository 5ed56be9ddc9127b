//! Running sums along a known axis.

use super::{Cx, Lowered};
use artefact::{Call, Numbers};
use ir::{DType, Node};
use kernels::cumsum::CumSum;

pub fn lower(cx: &Cx, n: &Node) -> Option<Lowered> {
    if !n.is("CumSum") {
        return None;
    }
    let (x, y) = (n.input(0)?, n.output(0)?);
    let shape = cx.shape(x)?;
    let numbers = match cx.graph.dtype(x)? {
        DType::F32 => Numbers::F32,
        DType::F64 => Numbers::F64,
        DType::I32 => Numbers::I32,
        DType::I64 => Numbers::I64,
        _ => return None,
    };
    let [axis] = cx.ints(n.input(1)?)?[..] else { return None };
    let axis = ops::broadcast::axis(axis, shape.len()).ok()?;
    if shape.contains(&0) {
        return None;
    }
    let flag = |name: &str| n.attrs.int_or(name, 0).ok().map(|v| v != 0);
    let of = CumSum {
        outer: shape[..axis].iter().product(),
        n: shape[axis],
        inner: shape[axis + 1..].iter().product(),
        exclusive: flag("exclusive")?,
        reverse: flag("reverse")?,
    };
    let flops = shape.iter().product::<usize>() as f64;
    Some(Lowered::call("running sum", vec![x], y, flops, Call::CumSum { numbers, of }))
}

#[cfg(test)]
mod tests {
    use ir::{Attrs, DType, Evaluate, Feeds, Graph, Tensor, Value, ValueType};
    use kernels::Serial;

    fn tensor(dtype: DType, shape: &[usize]) -> Tensor {
        let n: usize = shape.iter().product();
        let value = |i: usize| (i * 7919 % 613) as i64 - 300;
        match dtype {
            DType::F32 | DType::F64 => {
                let data = (0..n).map(|i| value(i) as f64 / 97.0).collect();
                Tensor::from_f64s(dtype, shape, data).unwrap()
            }
            _ => {
                Tensor::from_i64s(dtype, shape, (0..n).map(|i| value(i) << 54 >> (i % 60)).collect()).unwrap()
            }
        }
    }

    fn graph(dtype: DType, shape: &[usize], axis: i64, [exclusive, reverse]: [i64; 2]) -> Graph {
        let mut g = Graph::new("t");
        let x = g.add_input("x", ValueType::known(dtype, shape));
        let axis = g.add_initializer("axis", Tensor::vector(vec![axis]));
        let attrs = Attrs::new().with("exclusive", exclusive).with("reverse", reverse);
        let y = g.apply("y", ops::standard("CumSum").unwrap(), attrs, &[x, axis]);
        g.add_output("y", y);
        ir::infer(&mut g).unwrap();
        g
    }

    #[test]
    fn sums_run_as_by_the_reference() {
        for dtype in [DType::F32, DType::F64, DType::I32, DType::I64] {
            for (shape, axis) in [
                (&[5usize, 9, 300][..], 1i64),
                (&[5, 9, 300], -3),
                (&[21, 17], -1),
                (&[3, 7, 2], 1),
                (&[33], 0),
            ] {
                for flags in [[0, 0], [0, 1], [1, 0], [1, 1]] {
                    let g = graph(dtype, shape, axis, flags);
                    let x = Value::Tensor(tensor(dtype, shape));
                    let feeds = Feeds::from([("x".to_string(), x.clone())]);
                    let want = ir::Reference.run(&g, &feeds, &[]).unwrap();
                    let program = crate::compile(&g).unwrap();
                    assert!(program.steps().iter().any(|s| s.kind == "running sum"));
                    assert_eq!(program.run(&[x], &Serial).unwrap(), want.outputs, "{dtype} {shape:?} {axis}");
                }
            }
        }
    }

    #[test]
    fn others_run_by_reference() {
        for (dtype, shape) in [
            (DType::U32, &[4usize, 3][..]),
            (DType::F16, &[4, 3]),
            (DType::F32, &[0, 3]),
            (DType::F32, &[2, 0]),
        ] {
            let program = crate::compile(&graph(dtype, shape, 1, [0, 0])).unwrap();
            assert!(program.steps().iter().all(|s| s.kind != "running sum"));
        }
        for axis in [2, -3, i64::MAX, i64::MIN] {
            let g = graph(DType::F32, &[4, 3], axis, [0, 0]);
            if let Ok(program) = crate::compile(&g) {
                assert!(program.run(&[Value::Tensor(tensor(DType::F32, &[4, 3]))], &Serial).is_err());
            }
        }
    }
}
