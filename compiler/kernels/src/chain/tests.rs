use super::*;
use crate::testing::{bytes, int, quantized, random};
use proptest::prelude::*;

/// Rows, columns, and for both operands whether they are one row and one column.
fn check(rows: usize, n: usize, one: [[bool; 2]; 2], signed: [bool; 3]) {
    let place = |[row, col]: [bool; 2]| {
        let inner = usize::from(!col);
        let width = if col { 1 } else { n };
        (inner, if row { 0 } else { width }, if row { width } else { rows * width })
    };
    let [(ia, ra, la), (ib, rb, lb)] = one.map(place);
    let (x, f) = (bytes(la, 1), random(lb, 2));
    let b: Vec<u8> = f.iter().flat_map(|x| x.to_le_bytes()).collect();
    let [xs, ms, ys] = signed;
    let middle = Format::Bytes { signed: ms, scale: 0.011, zero: 5 };
    let chain = Chain {
        operands: vec![Format::Bytes { signed: xs, scale: 0.02, zero: 7 }, Format::F32],
        steps: vec![
            Step::Binary(Binary::Add, Arg::Slot(0), Arg::Slot(1)),
            Step::Snap(middle, Arg::Slot(2)),
            Step::Binary(Binary::Max, Arg::Slot(3), Arg::Const(-0.5)),
            Step::Binary(Binary::Mul, Arg::Slot(4), Arg::Slot(1)),
            Step::Binary(Binary::Sub, Arg::Const(0.25), Arg::Slot(5)),
            Step::Binary(Binary::Div, Arg::Slot(6), Arg::Const(3.0)),
            Step::Binary(Binary::Min, Arg::Slot(7), Arg::Const(1.5)),
            Step::Binary(Binary::Leaky, Arg::Slot(8), Arg::Slot(1)),
        ],
        result: 9,
        store: Format::Bytes { signed: ys, scale: 0.007, zero: 3 },
    };
    let value = |i: usize| {
        let (r, c) = (i / n, i % n);
        let (a, b) = ((int(x[r * ra + c * ia], xs) - 7) as f32 * 0.02, f[r * rb + c * ib]);
        let q = int(quantized(a + b, 0.011, 5, ms), ms);
        let v = ((q - 5) as f32 * 0.011).max(-0.5) * b;
        let v = ((0.25 - v) / 3.0).min(1.5);
        if v < 0.0 { v * b } else { v }
    };
    let wanted: Vec<u8> = (0..rows * n).map(|i| quantized(value(i), 0.007, 3, ys)).collect();
    let places = [Place { data: &x, inner: ia, row: ra }, Place { data: &b, inner: ib, row: rb }];
    for &tier in Tier::available() {
        let mut y = vec![9; rows * n];
        chain.run(tier, &places, &mut y, rows, n).unwrap();
        assert_eq!(y, wanted, "{tier:?} {rows} {n} {one:?}");
        let floats = Chain { store: Format::F32, ..chain.clone() };
        let mut y = vec![9; 4 * rows * n];
        floats.run(tier, &places, &mut y, rows, n).unwrap();
        let y: Vec<f32> = y.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        assert_eq!(y, (0..rows * n).map(value).collect::<Vec<_>>(), "{tier:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 64 }))]
    #[test]
    fn a_chain_rounds_as_its_steps(
        rows in 1usize..40, n in prop_oneof![1usize..70, 120usize..600],
        one in any::<[[bool; 2]; 2]>(), signed in any::<[bool; 3]>(),
    ) {
        check(rows, n, one, signed);
    }
}

/// Sums and products take bytes that they alone read from where these lie.
#[test]
fn bytes_are_read_in_place() {
    for (op, n) in
        [Binary::Add, Binary::Mul].into_iter().flat_map(|op| [1, 15, 64, 1000, 1024, 2577].map(|n| (op, n)))
    {
        let (a, b, f) = (bytes(n, 1), bytes(n, 2), random(n, 3));
        let floats: Vec<u8> = f.iter().flat_map(|x| x.to_le_bytes()).collect();
        let of = |signed, scale, zero| Format::Bytes { signed, scale, zero };
        let first = |i: usize| (int(a[i], true) + 9) as f32 * 0.03;
        let second = |i: usize| (int(b[i], false) - 77) as f32 * 0.01;
        let apply = |x: f32, y: f32| if op == Binary::Add { x + y } else { x * y };
        for (operand, second) in
            [(of(false, 0.01, 77), &second as &dyn Fn(usize) -> f32), (Format::F32, &|i| f[i])]
        {
            let data = if operand == Format::F32 { &floats } else { &b };
            let row = |data| Place { data, inner: 1, row: n };
            for (swapped, store) in [(false, of(true, 0.02, 4)), (true, Format::F32)] {
                let (mut formats, mut places) =
                    (vec![of(true, 0.03, -9), operand], [row(&a[..]), row(&data[..])]);
                if swapped {
                    formats.reverse();
                    places.reverse();
                }
                let steps = vec![Step::Binary(op, Arg::Slot(0), Arg::Slot(1))];
                let chain = Chain { operands: formats, steps, result: 2, store };
                let wanted: Vec<u8> = (0..n)
                    .flat_map(|i| match (apply(first(i), second(i)), store) {
                        (x, Format::F32) => x.to_le_bytes().to_vec(),
                        (x, _) => vec![quantized(x, 0.02, 4, true)],
                    })
                    .collect();
                for &tier in Tier::available() {
                    let mut y = vec![9; wanted.len()];
                    chain.run(tier, &places, &mut y, 1, n).unwrap();
                    assert_eq!(y, wanted, "{tier:?} {op:?} {n} {swapped}");
                }
            }
        }
    }
}

/// A product, a sum and bounds, each there or not, of bytes or floats, by one number, a row, or as many.
#[test]
fn affine_chains_round_as_their_steps() {
    for (n, parts) in
        [1, 15, 64, 70, 333, 1030].into_iter().flat_map(|n| (0..16).map(move |parts| (n, parts)))
    {
        let rows = 5;
        let (codes, floats) = (bytes(rows * n, 1), random(rows * n, 2));
        let raw = |f: &[f32]| f.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let (row, whole) = (random(n, 3), random(rows * n, 4));
        let (mut wide, row_bytes, whole_bytes) = (floats.clone(), raw(&row), raw(&whole));
        wide[0] = f32::NAN;
        let wide_bytes = raw(&wide);
        // The finer scale cuts where the bounds would, or before them.
        let added = bytes(rows * n, 5);
        for (from_bytes, scale, fine, added_bytes) in [
            (true, 0.02, 0.01, false),
            (true, 1.0, 0.001, false),
            (false, 1.0, 0.001, false),
            (false, 0.02, 0.01, true),
            (true, 0.02, 0.001, true),
        ] {
            let x = |i: usize| if from_bytes { (int(codes[i], false) - 7) as f32 * scale } else { wide[i] };
            let (mut steps, mut last) = (Vec::new(), Arg::Slot(0));
            let mut step = |op, other, first: bool| {
                steps.push(if first { Step::Binary(op, other, last) } else { Step::Binary(op, last, other) });
                last = Arg::Slot(2 + steps.len());
            };
            let has = |k: usize| parts >> k & 1 == 1;
            if has(0) {
                step(Binary::Mul, Arg::Slot(1), n % 2 == 0);
            }
            if has(1) {
                step(Binary::Add, Arg::Slot(2), n % 2 == 1);
            }
            if has(2) {
                step(Binary::Max, Arg::Const(-0.25), false);
            }
            if has(3) {
                step(Binary::Min, Arg::Const(0.5), false);
            }
            let value = |i: usize| {
                let x = if has(0) { x(i) * row[i % n] } else { x(i) };
                let other = if added_bytes { (int(added[i], true) + 5) as f32 * 0.03 } else { whole[i] };
                let x = if has(1) { x + other } else { x };
                let x = if has(2) && x < -0.25 { -0.25 } else { x };
                if has(3) && x > 0.5 { 0.5 } else { x }
            };
            let first =
                if from_bytes { Format::Bytes { signed: false, scale, zero: 7 } } else { Format::F32 };
            let result = 2 + steps.len();
            if steps.is_empty() {
                continue;
            }
            let second =
                if added_bytes { Format::Bytes { signed: true, scale: 0.03, zero: -5 } } else { Format::F32 };
            let chain =
                Chain { operands: vec![first, Format::F32, second], steps, result, store: Format::F32 };
            assert_eq!(Affine::of(&chain).is_some(), chain.steps.len() > 1);
            let data = if from_bytes { &codes } else { &wide_bytes };
            let places = [
                Place { data, inner: 1, row: n },
                Place { data: &row_bytes, inner: 1, row: 0 },
                Place { data: if added_bytes { &added } else { &whole_bytes }, inner: 1, row: n },
            ];
            let narrow =
                Chain { store: Format::Bytes { signed: true, scale: fine, zero: -3 }, ..chain.clone() };
            for &tier in Tier::available() {
                let mut y = vec![9; 4 * rows * n];
                chain.run(tier, &places, &mut y, rows, n).unwrap();
                for (i, y) in y.as_chunks().0.iter().enumerate() {
                    let (y, want) = (f32::from_le_bytes(*y), value(i));
                    assert!(y == want || y.is_nan() && want.is_nan(), "{tier:?} {n} {parts} {i}: {y} {want}");
                }
                let mut y = vec![9; rows * n];
                narrow.run(tier, &places, &mut y, rows, n).unwrap();
                let want: Vec<u8> = (0..rows * n).map(|i| quantized(value(i), fine, -3, true)).collect();
                assert_eq!(y[1..], want[1..], "{tier:?} {n} {parts}");
            }
        }
    }
}

/// Of a row of whole vectors that every row reads, the first copy was left out.
#[test]
fn a_row_of_whole_vectors_is_there_for_every_row() {
    for n in [16, 32, 64, 128] {
        check(9, n, [[false, false], [true, false]], [true, false, true]);
    }
}

#[test]
fn functions_and_nan_pass_through() {
    let chain = Chain {
        operands: vec![Format::F32],
        steps: vec![
            Step::Map(Function::Sigmoid, Arg::Slot(0)),
            Step::Binary(Binary::Max, Arg::Slot(1), Arg::Const(0.0)),
        ],
        result: 2,
        store: Format::F32,
    };
    let x: Vec<u8> = [0.0f32, f32::NAN, -200.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    for &tier in Tier::available() {
        let mut y = [0; 12];
        chain.run(tier, &[Place { data: &x, inner: 1, row: 3 }], &mut y, 1, 3).unwrap();
        assert_eq!(y[..4], 0.5f32.to_le_bytes());
        assert!(f32::from_le_bytes([y[4], y[5], y[6], y[7]]).is_nan());
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let chain =
        |step, result| Chain { operands: vec![Format::F32], steps: vec![step], result, store: Format::F32 };
    let add = |a, b| Step::Binary(Binary::Add, Arg::Slot(a), Arg::Slot(b));
    let go = |c: Chain, len: usize, out: usize, row: usize| {
        let data = vec![0; len];
        c.run(Tier::best(), &[Place { data: &data, inner: 1, row }], &mut vec![0; out], 2, 3)
    };
    assert!(go(chain(add(0, 0), 1), 24, 24, 3).is_ok());
    assert!(go(chain(add(0, 1), 1), 24, 24, 3).is_err());
    assert!(go(chain(add(0, 0), 2), 24, 24, 3).is_err());
    assert!(go(chain(add(0, 0), 1), 23, 24, 3).is_err());
    assert!(go(chain(add(0, 0), 1), 24, 20, 3).is_err());
    assert!(go(chain(add(0, 0), 1), 24, 24, usize::MAX).is_err());
}

#[test]
fn a_table_does_what_its_chain_does() {
    let [x, y] = [(true, 0.03, -5), (false, 0.011, 90)].map(|(signed, scale, zero)| Format::Bytes {
        signed,
        scale,
        zero,
    });
    let chain = Chain {
        operands: vec![x],
        steps: vec![
            Step::Map(Function::Tanh, Arg::Slot(0)),
            Step::Binary(Binary::Mul, Arg::Slot(1), Arg::Slot(0)),
        ],
        result: 2,
        store: y,
    };
    let data = bytes(333, 5);
    for &tier in Tier::available() {
        let (mut wanted, mut found) = (vec![1; 333], vec![2; 333]);
        chain.run(tier, &[Place { data: &data, inner: 1, row: 0 }], &mut wanted, 1, 333).unwrap();
        chain.table(tier).unwrap().map(tier, &data, &mut found).unwrap();
        assert_eq!(found, wanted, "{tier:?}");
        let floats = Chain { store: Format::F32, ..chain.clone() };
        assert!(floats.table(tier).is_none());
    }
}

#[test]
fn equal_integers_are_one() {
    let words = |x: &[i32]| x.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let (rows, n) = (3, 150);
    let a = words(&[7, i32::MIN, 0x7fc0_0001]);
    let columns: Vec<i32> = (0..n).map(|c| [c, i32::MIN, 0x7fc0_0001][c as usize % 3]).collect();
    let places = [Place { data: &a, inner: 0, row: 1 }, Place { data: &words(&columns), inner: 1, row: 0 }];
    let chain = Chain {
        operands: vec![Format::Words; 2],
        steps: vec![Step::Equal(Arg::Slot(0), Arg::Slot(1))],
        result: 2,
        store: Format::Bytes { signed: false, scale: 0.5, zero: 1 },
    };
    for &tier in Tier::available() {
        let mut y = vec![9; rows * n as usize];
        chain.run(tier, &places, &mut y, rows, n as usize).unwrap();
        for (i, &y) in y.iter().enumerate() {
            let same = [7, i32::MIN, 0x7fc0_0001][i / n as usize] == columns[i % n as usize];
            assert_eq!(y, if same { 3 } else { 1 }, "{tier:?} {i}");
        }
        let sum =
            Chain { steps: vec![Step::Binary(Binary::Add, Arg::Slot(0), Arg::Slot(1))], ..chain.clone() };
        assert!(sum.run(tier, &places, &mut y, rows, n as usize).is_err());
    }
}
