use super::*;
use proptest::prelude::*;

/// Numbers that look like weights: sums of uniform ones, a spread per row.
fn weights(rows: usize, cols: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..rows)
        .flat_map(|r| {
            let spread = 0.01 * (1 + r % 7) as f32;
            (0..cols).map(|_| (next() + next() + next() + next()) * spread).collect::<Vec<_>>()
        })
        .collect()
}

fn region(offset: usize, len: usize, element: Element, shape: &[usize]) -> Region {
    Region { offset, len, element, shape: shape.to_vec() }
}

#[test]
fn weights_of_every_kind_come_back_smaller() {
    let w = weights(64, 288, 1);
    let floats: Vec<u8> = w.iter().flat_map(|x| x.to_le_bytes()).collect();
    let bytes: Vec<u8> = w.iter().map(|x| (x * 1000.0).round() as i8 as u8).collect();
    let nibbles: Vec<u8> = bytes
        .chunks(2)
        .map(|c| ((c[0] as i8 / 16) as u8 & 15) | ((c[1] as i8 / 16) as u8 & 15) << 4)
        .collect();
    for (data, element, most) in
        [(&floats, Element::Float32, 0.9), (&bytes, Element::Byte, 0.85), (&nibbles, Element::Nibble, 0.7)]
    {
        let file = [b"head".repeat(50), data.clone(), b"tail".to_vec()].concat();
        let packed = pack(&file, &[region(200, data.len(), element, &[64, 288])]);
        assert_eq!(unpack(&packed, 1 << 30).unwrap(), file, "{element:?}");
        let share = packed.len() as f64 / file.len() as f64;
        assert!(share < most, "{element:?}: {share}");
        let told = coded_len(data, element, &[64, 288]) as f64;
        assert!((told / packed.len() as f64 - 1.0).abs() < 0.03, "{element:?}: {told} of {}", packed.len());
    }
}

#[test]
fn classes_of_rows_pay() {
    let bytes: Vec<u8> = weights(64, 4096, 2).iter().map(|x| (x * 1000.0).round() as i8 as u8).collect();
    let told = coded_len(&bytes, Element::Byte, &[64, 4096]);
    let flat = coded_len(&bytes, Element::Byte, &[64 * 4096]);
    assert!(told * 100 < flat * 96, "{told} {flat}");
}

#[test]
fn regions_that_lie_are_plain_bytes() {
    let file: Vec<u8> = (0..2000u32).map(|i| (i * i % 251) as u8).collect();
    let lies = [
        region(10, 100, Element::Float32, &[25]),
        region(50, 100, Element::Nibble, &[200]),
        region(1990, 50, Element::Byte, &[50]),
        region(usize::MAX, 2, Element::Byte, &[2]),
        region(400, 7, Element::Float64, &[usize::MAX, 9]),
        region(500, 0, Element::Byte, &[]),
    ];
    assert_eq!(unpack(&pack(&file, &lies), 2000).unwrap(), file);
    assert_eq!(unpack(&pack(&[], &[]), 0).unwrap(), Vec::<u8>::new());
}

#[test]
fn bombs_and_strangers_are_refused() {
    let packed = pack(&[7; 5000], &[region(0, 5000, Element::Byte, &[5000])]);
    assert!(packed.len() < 80);
    assert_eq!(unpack(&packed, 4999), Err(Error::TooLarge { bytes: 5000, limit: 4999 }));
    assert_eq!(unpack(b"ONNX", 9), Err(Error::NotAContainer));
    assert_eq!(unpack(b"CMPX\x09", 9), Err(Error::Version(9)));
}

#[test]
fn many_chunks_in_any_number_of_threads() {
    let bytes: Vec<u8> = weights(600, 1000, 3).iter().map(|x| (x * 500.0) as i8 as u8).collect();
    let regions = [region(0, bytes.len(), Element::Byte, &[600, 1000])];
    let on = |n: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
        pool.install(|| pack(&bytes, &regions))
    };
    assert!(on(1) == on(3));
    assert!(unpack(&on(1), 1 << 30).unwrap() == bytes);
}

proptest! {
    #[test]
    fn every_file_comes_back(
        file in proptest::collection::vec(any::<u8>(), 0..600),
        cuts in proptest::collection::vec((0usize..600, 0usize..300, 0u8..10, 1usize..20), 0..5),
    ) {
        let regions: Vec<Region> = cuts
            .iter()
            .map(|&(offset, len, e, rows)| {
                let element = Element::from_code(e).unwrap();
                region(offset, len, element, &[rows, len / rows])
            })
            .collect();
        prop_assert_eq!(unpack(&pack(&file, &regions), 600).unwrap(), file);
    }

    #[test]
    fn damaged_containers_are_errors(at in 0usize..4000, flip in 1u8..=255) {
        let w = weights(16, 128, 4);
        let mut packed = pack(
            &w.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>(),
            &[region(0, 8192, Element::Float32, &[16, 128])],
        );
        let at = at % packed.len();
        packed[at] ^= flip;
        prop_assert!(unpack(&packed, 1 << 20).is_err());
        packed.truncate(at);
        prop_assert!(unpack(&packed, 1 << 20).is_err());
    }
}
