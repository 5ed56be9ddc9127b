//! table: data files that lie about themselves.

use std::io::Write;

/// A data file, or a folder where the name ends in a slash.
pub struct Data {
    pub name: &'static str,
    pub bytes: Vec<u8>,
}

fn npy(header: &str, data: &[u8]) -> Vec<u8> {
    let mut f = Vec::from(*b"\x93NUMPY\x01\x00");
    f.extend((header.len() as u16).to_le_bytes());
    f.extend(header.as_bytes());
    f.extend(data);
    f
}

fn described(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    npy(&format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n"), data)
}

/// A zip archive of stored entries by hand: sums of bytes and sizes may be anything.
fn zip(entries: &[(&str, &[u8], u32)]) -> Vec<u8> {
    let (mut f, mut directory) = (Vec::new(), Vec::new());
    for (name, data, claimed) in entries {
        let at = f.len() as u32;
        let mut fields = Vec::new();
        fields.extend([20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0]);
        fields.extend(crc(data).to_le_bytes());
        fields.extend((data.len() as u32).to_le_bytes());
        fields.extend(claimed.to_le_bytes());
        fields.extend((name.len() as u16).to_le_bytes());
        fields.extend([0, 0]);
        f.extend(b"PK\x03\x04");
        f.extend(&fields);
        f.extend(name.as_bytes());
        f.extend(*data);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&fields);
        directory.extend([0; 10]);
        directory.extend(at.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (at, n) = (f.len() as u32, entries.len() as u16);
    f.extend(&directory);
    f.extend(b"PK\x05\x06\x00\x00\x00\x00");
    f.extend(n.to_le_bytes());
    f.extend(n.to_le_bytes());
    f.extend((directory.len() as u32).to_le_bytes());
    f.extend(at.to_le_bytes());
    f.extend([0, 0]);
    f
}

fn crc(data: &[u8]) -> u32 {
    !data.iter().fold(!0u32, |c, &b| {
        (0..8).fold(c ^ u32::from(b), |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 })
    })
}

fn png(width: u32, height: u32) -> Vec<u8> {
    let mut head = Vec::from(*b"IHDR");
    head.extend(width.to_be_bytes());
    head.extend(height.to_be_bytes());
    head.extend([8, 2, 0, 0, 0]);
    let mut f = Vec::from(*b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0d");
    f.extend(&head);
    f.extend(crc(&head).to_be_bytes());
    f
}

/// A gigabyte of zeros that takes a megabyte, as an entry made by the `zip` crate.
fn bomb() -> Vec<u8> {
    let mut out = std::io::Cursor::new(Vec::new());
    let mut w = zip::ZipWriter::new(&mut out);
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    w.start_file("image.npy", options).unwrap();
    w.write_all(&described("<f4", "(341000, 1, 28, 28)", &[])).unwrap();
    let zeros = vec![0u8; 1 << 20];
    (0..1020).for_each(|_| w.write_all(&zeros).unwrap());
    w.finish().unwrap();
    out.into_inner()
}

pub fn all() -> Vec<Data> {
    let one = |array: Vec<u8>| zip(&[("image.npy", &array, array.len() as u32)]);
    let plain = described("<f4", "(1, 1, 28, 28)", &[0; 28 * 28 * 4]);
    let mut list = vec![
        ("empty.npz", vec![]),
        ("garbage.npz", vec![0x55; 1000]),
        ("no-entries.npz", zip(&[])),
        ("cut.npz", one(plain.clone())[..500].to_vec()),
        (
            "twice.npz",
            zip(&[("image.npy", &plain, plain.len() as u32), ("image.npy", &plain, plain.len() as u32)]),
        ),
        ("claims-less.npz", zip(&[("image.npy", &plain, 10)])),
        ("claims-more.npz", zip(&[("image.npy", &plain, u32::MAX)])),
        ("path.npz", zip(&[("../../image.npy", &plain, plain.len() as u32)])),
        ("control.npz", zip(&[("a\n\u{1b}[31m.npy", &plain, plain.len() as u32)])),
        ("bomb.npz", bomb()),
        ("trillion.npz", one(described("<f4", "(1000000000000,)", &[0; 64]))),
        ("product.npz", one(described("<f4", "(4294967296, 4294967296, 4)", &[]))),
        ("long-number.npz", one(described("<f4", "(99999999999999999999999999,)", &[]))),
        ("negative.npz", one(described("<f4", "(-1,)", &[]))),
        ("rank.npz", one(described("<f4", &format!("({})", "1,".repeat(2000)), &[0; 4]))),
        ("object.npz", one(described("|O", "(1,)", b"cos\nsystem\n(S'true'\ntR."))),
        ("strings.npz", one(described("<U9999999", "(9999999,)", &[0; 64]))),
        ("strings-bad.npz", one(described("<U1", "(1,)", &[0xff; 4]))),
        ("type.npz", one(described("<q9", "(1,)", &[0; 64]))),
        (
            "record.npz",
            one(npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }\n", &[0; 4])),
        ),
        ("no-header.npz", one(npy("", &[]))),
        ("no-end.npz", one(npy("{'descr': '<f4', 'shape': (1, ", &[]))),
        ("code.npz", one(npy("__import__('os').system('true')\n", &[]))),
        ("text.npz", one(npy("\u{e9}\u{e9}'descr'", &[]))),
        (
            "fortran.npz",
            one(npy(
                "{'descr': '<f4', 'fortran_order': True, 'shape': (1, 1, 28, 28), }\n",
                &[0; 28 * 28 * 4],
            )),
        ),
        ("zero.npz", one(described("<f4", "(0, 1, 28, 28)", &[]))),
        ("zero-huge.npz", one(described("<f4", "(0, 99999999999, 99999999999)", &[]))),
        ("other-shape.npz", one(described("<f4", "(1, 3, 28, 28)", &[0; 3 * 28 * 28 * 4]))),
        ("integers.npz", one(described("<i8", "(1, 1, 28, 28)", &[0; 28 * 28 * 8]))),
        ("nan.npz", one(described("<f4", "(1, 1, 28, 28)", &[0xff; 28 * 28 * 4]))),
        ("version.npz", one(b"\x93NUMPY\x09\x00\x10\x00".to_vec())),
        ("long-header.npz", one(b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec())),
        ("garbage.npy", vec![0x93; 100]),
        ("plain.npy", plain.clone()),
        ("trillion.npy", described("<f8", "(1000000, 1000000)", &[0; 8])),
        ("empty.safetensors", vec![]),
        ("huge-header.safetensors", u64::MAX.to_le_bytes().to_vec()),
        ("nested.safetensors", [&200_000u64.to_le_bytes()[..], &[b'['; 200_000]].concat()),
        ("folder-of-nothing/", vec![]),
        ("png-cut/a.png", png(28, 28)),
        ("png-large/a.png", png(u32::MAX / 2, u32::MAX / 2)),
        ("png-wide/a.png", png(60_000, 60_000)),
        ("jpg/a.jpg", [&b"\xff\xd8\xff\xe0"[..], &[0xff; 100]].concat()),
        ("bmp/a.bmp", [&b"BM"[..], &[0x7f; 200]].concat()),
        ("webp/a.webp", [&b"RIFF\xff\xff\xff\xffWEBPVP8L"[..], &[0x7f; 200]].concat()),
        ("nested-npz/a/b/c.npz", vec![0; 10]),
    ];
    for (name, header) in [
        ("offsets.safetensors", r#"{"image":{"dtype":"F32","shape":[1],"data_offsets":[0,99999999999]}}"#),
        (
            "shape.safetensors",
            r#"{"image":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}"#,
        ),
        ("kind.safetensors", r#"{"image":{"dtype":"F999","shape":[1],"data_offsets":[0,4]}}"#),
        (
            "overlap.safetensors",
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
        ),
    ] {
        list.push((name, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat()));
    }
    list.into_iter().map(|(name, bytes)| Data { name, bytes }).collect()
}
