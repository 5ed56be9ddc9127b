use super::*;
use crate::import::from_bytes;
use crate::rope::Rope;
use crate::testing::{Any, graph, model};

/// Head of a tensor "w".
fn head(dtype: DType, dims: &[i64]) -> Rope {
    let mut t = Rope::new();
    t.ints(1, dims);
    t.int(2, i64::from(dtype.onnx()));
    t.text(8, "w");
    t
}

/// The tensor as a model's initializer field `number`, read back.
fn through(number: u32, t: Rope) -> Result<Tensor> {
    let mut g = graph(vec![], &[], &["w"]);
    g.message(number, t);
    let g = from_bytes(model(13, g, vec![]), &Any)?.graph;
    Ok(g.constant(g.outputs()[0].value).unwrap().clone())
}

fn numbers(field: u32, dtype: DType, dims: &[i64], v: &[i64]) -> Result<Tensor> {
    let mut t = head(dtype, dims);
    t.ints(field, v);
    through(5, t)
}

#[test]
fn small_types_share_the_field_of_int32() {
    use DType::*;
    let i = |d, v: &[i64]| numbers(5, d, &[v.len() as i64], v).unwrap();
    assert_eq!(i(I8, &[-1, 127]).to_i64s().unwrap(), [-1, 127]);
    assert_eq!(i(U8, &[0, 255]).to_i64s().unwrap(), [0, 255]);
    assert_eq!(i(I16, &[-300]).to_i64s().unwrap(), [-300]);
    assert_eq!(i(Bool, &[0, 1]).to_i64s().unwrap(), [0, 1]);
    assert_eq!(i(I32, &[-7]).to_i64s().unwrap(), [-7]);
    assert_eq!(i(F16, &[0x3c00, 0xc000]).to_f64s().unwrap(), [1.0, -2.0]);
    assert_eq!(i(BF16, &[0x3f80]).to_f64s().unwrap(), [1.0]);
    assert_eq!(i(F8E4M3FN, &[0x38]).to_f64s().unwrap(), [1.0]);
    assert_eq!(numbers(7, I64, &[2], &[-5, i64::MAX]).unwrap().to_i64s().unwrap(), [-5, i64::MAX]);
    assert_eq!(numbers(11, U32, &[1], &[u32::MAX.into()]).unwrap().to_i64s().unwrap(), [u32::MAX.into()]);
    // Two elements of four bits in each number, low bits first.
    assert_eq!(numbers(5, I4, &[3], &[0x7f, 0x08]).unwrap().to_i64s().unwrap(), [-1, 7, -8]);
}

#[test]
fn counts_that_do_not_fit_the_shape_are_errors() {
    for (field, dtype) in
        [(5, DType::I32), (7, DType::I64), (11, DType::U64), (5, DType::F16), (5, DType::I4)]
    {
        let e = numbers(field, dtype, &[3], &[1]).unwrap_err();
        assert_eq!(e.tensor.as_deref(), Some("w"), "{dtype}: {e}");
    }
}

#[test]
fn long_typed_data_is_read_from_the_file() {
    let v: Vec<i64> = (0..2000).map(|i| i * i - 1000).collect();
    assert_eq!(numbers(7, DType::I64, &[2000], &v).unwrap().to_i64s().unwrap(), v);
    assert_eq!(numbers(5, DType::I32, &[2000], &v).unwrap().to_i64s().unwrap(), v);
    assert!(numbers(5, DType::I64, &[2000], &v).is_err());
    let f: Vec<f32> = v.iter().map(|&x| x as f32).collect();
    let mut t = head(DType::F32, &[40, 50]);
    t.floats(4, &f);
    assert_eq!(through(5, t).unwrap(), Tensor::new(&[40, 50], f).unwrap());
}

#[test]
fn sparse_tensors_are_written_out() {
    let sparse = |indices: &[i64], dims: &[i64]| {
        let (mut s, mut v, mut i) = (Rope::new(), head(DType::F32, &[2]), head(DType::I64, dims));
        v.floats(4, &[5.0, 6.0]);
        i.ints(7, indices);
        s.message(1, v);
        s.message(2, i);
        s.ints(3, &[2, 3]);
        through(15, s)
    };
    let want = Tensor::new(&[2, 3], vec![0f32, 5.0, 0.0, 6.0, 0.0, 0.0]).unwrap();
    assert_eq!(sparse(&[1, 3], &[2]).unwrap(), want);
    assert_eq!(sparse(&[0, 1, 1, 0], &[2, 2]).unwrap(), want);
    assert!(sparse(&[1, 6], &[2]).is_err());
    assert!(sparse(&[1, -1], &[2]).is_err());
    assert!(sparse(&[0, 1, 2, 0], &[2, 2]).is_err());
}
