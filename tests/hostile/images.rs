//! table: folders of images and tables of labels that nobody should have to trust.

use crate::harness::Dir;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What lies in a folder beside sound images, or what a table of labels for sound images says.
pub enum What {
    File(Vec<u8>),
    Link(&'static str),
    Pipe,
    Folder,
}

pub struct Data {
    pub name: String,
    /// Where it lies, below the folder of images; bytes, since names need not be text.
    at: Vec<u8>,
    what: What,
    /// Whether it is the table that `--labels` names, beside the folder.
    table: bool,
}

const SOUND: usize = 4;

/// The folder `d` with sound images and the case; the table, where there is one.
pub fn write(dir: &Dir, case: &Data) -> Option<PathBuf> {
    let folder = dir.path("d");
    std::fs::create_dir_all(&folder).unwrap();
    for k in 0..SOUND {
        std::fs::write(folder.join(format!("{k}.png")), sound(28, 28, k as u8)).unwrap();
    }
    let at =
        if case.table { dir.path("labels.csv") } else { folder.join(Path::new(OsStr::from_bytes(&case.at))) };
    std::fs::create_dir_all(at.parent().unwrap()).unwrap();
    match &case.what {
        What::File(bytes) => std::fs::write(&at, bytes).unwrap(),
        What::Link(to) => symlink(to, &at).unwrap(),
        What::Pipe => assert!(Command::new("mkfifo").arg(&at).status().unwrap().success()),
        What::Folder => std::fs::create_dir(&at).unwrap(),
    }
    case.table.then_some(at)
}

fn sound(width: u32, height: u32, seed: u8) -> Vec<u8> {
    let pixel = |x: u32, y: u32| image::Luma([(x * 7 + y * 3) as u8 ^ seed.wrapping_mul(37)]);
    encoded(&image::GrayImage::from_fn(width, height, pixel).into(), image::ImageFormat::Png)
}

fn encoded(i: &image::DynamicImage, format: image::ImageFormat) -> Vec<u8> {
    let mut out = std::io::Cursor::new(Vec::new());
    i.write_to(&mut out, format).unwrap();
    out.into_inner()
}

fn crc(data: &[u8]) -> u32 {
    !data.iter().fold(!0u32, |c, &b| {
        (0..8).fold(c ^ u32::from(b), |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 })
    })
}

fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [kind, data].concat();
    [&(data.len() as u32).to_be_bytes()[..], &body, &crc(&body).to_be_bytes()].concat()
}

/// A PNG whose header says this, before the chunks.
fn png(width: u32, height: u32, depth: u8, colour: u8, interlaced: u8, chunks: &[Vec<u8>]) -> Vec<u8> {
    let head = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[depth, colour, 0, 0, interlaced]].concat();
    [&b"\x89PNG\r\n\x1a\n"[..], &chunk(b"IHDR", &head), &chunks.concat(), &chunk(b"IEND", &[])].concat()
}

/// One stored block of deflate that claims to have this many bytes.
fn stored(claimed: u16, data: &[u8]) -> Vec<u8> {
    [&[0x78, 1, 1][..], &claimed.to_le_bytes(), &(!claimed).to_le_bytes(), data, &[0; 4]].concat()
}

fn bmp(width: i32, height: i32, bits: u16, compression: u32, colours: u32, data: &[u8]) -> Vec<u8> {
    let mut f = b"BM".to_vec();
    f.extend((54 + data.len() as u32).to_le_bytes());
    f.extend([0; 4]);
    f.extend(54u32.to_le_bytes());
    f.extend(40u32.to_le_bytes());
    f.extend(width.to_le_bytes());
    f.extend(height.to_le_bytes());
    f.extend([1, 0]);
    f.extend(bits.to_le_bytes());
    f.extend(compression.to_le_bytes());
    f.extend([0; 12]);
    f.extend(colours.to_le_bytes());
    f.extend([0; 4]);
    f.extend(data);
    f
}

fn images() -> Vec<(&'static str, Vec<u8>)> {
    let good = sound(28, 28, 9);
    let rgb = image::DynamicImage::ImageRgb8(image::RgbImage::from_pixel(40, 20, image::Rgb([9, 200, 30])));
    let [jpeg, webp, bitmap] = [image::ImageFormat::Jpeg, image::ImageFormat::WebP, image::ImageFormat::Bmp]
        .map(|f| encoded(&rgb, f));
    let flipped = |all: &[u8], at: usize| {
        let mut b = all.to_vec();
        b[at] ^= 0x55;
        b
    };
    // In a JPEG the size of the frame follows its marker, at which every decoder looks.
    let large_jpeg = {
        let mut b = jpeg.clone();
        let at = b.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
        b[at + 5..at + 9].copy_from_slice(&[0xff; 4]);
        b
    };
    vec![
        ("empty.png", vec![]),
        ("one-byte.png", vec![0x89]),
        ("signature.png", good[..8].to_vec()),
        ("header.png", good[..33].to_vec()),
        ("half.png", good[..good.len() / 2].to_vec()),
        ("almost.png", good[..good.len() - 13].to_vec()),
        ("sum.png", flipped(&good, 30)),
        ("stream.png", flipped(&good, 60)),
        ("text.png", b"not an image\n".to_vec()),
        ("script.png", b"#!/bin/sh\nrm -rf x\n".to_vec()),
        ("elf.png", [&b"\x7fELF\x02\x01\x01"[..], &[0; 200]].concat()),
        ("zip.png", [&b"PK\x03\x04"[..], &[0; 200]].concat()),
        ("svg.png", b"<svg width='1e9' height='1e9'/>".to_vec()),
        ("gif.png", b"GIF89a\xff\xff\xff\xff\x80\x00\x00".to_vec()),
        ("tiff.png", [&b"II*\x00\x08\x00\x00\x00\xff\xff"[..], &[0xff; 64]].concat()),
        ("pnm.png", b"P6 999999 999999 255\n".to_vec()),
        ("jpeg.png", jpeg.clone()),
        ("zero-wide.png", png(0, 28, 8, 0, 0, &[chunk(b"IDAT", &stored(0, &[]))])),
        ("zero-high.png", png(28, 0, 8, 0, 0, &[chunk(b"IDAT", &stored(0, &[]))])),
        ("widest.png", png(u32::MAX, 1, 8, 2, 0, &[chunk(b"IDAT", &stored(9, &[0; 9]))])),
        ("signed.png", png(0x7fff_ffff, 0x7fff_ffff, 16, 6, 0, &[chunk(b"IDAT", &stored(9, &[0; 9]))])),
        ("side.png", png(65_536, 1, 8, 0, 0, &[chunk(b"IDAT", &stored(9, &[0; 9]))])),
        ("sides.png", png(65_535, 65_535, 8, 6, 0, &[chunk(b"IDAT", &stored(9, &[0; 9]))])),
        ("row.png", sound(40_000, 1, 1)),
        ("column.png", sound(1, 40_000, 1)),
        ("laced.png", png(16_000, 16_000, 1, 0, 1, &[chunk(b"IDAT", &stored(9, &[0; 9]))])),
        ("long-block.png", png(28, 28, 8, 0, 0, &[chunk(b"IDAT", &stored(0xffff, &[0; 9]))])),
        ("no-data.png", png(28, 28, 8, 0, 0, &[])),
        ("no-palette.png", png(28, 28, 8, 3, 0, &[chunk(b"IDAT", &stored(0xffff, &[7; 812]))])),
        (
            "palette.png",
            png(2, 1, 8, 3, 0, &[chunk(b"PLTE", &[1; 3]), chunk(b"IDAT", &stored(3, &[0, 9, 9]))]),
        ),
        ("depth.png", png(28, 28, 77, 0, 0, &[])),
        ("colour.png", png(28, 28, 8, 77, 0, &[])),
        ("chunk.png", [&good[..33], &[0xff; 4], b"tEXt", &[7; 40]].concat()),
        ("twice.png", [good.clone(), good.clone()].concat()),
        ("cut.jpg", jpeg[..jpeg.len() / 2].to_vec()),
        ("large.jpg", large_jpeg),
        ("tables.jpg", flipped(&jpeg, 30)),
        ("markers.jpg", [&b"\xff\xd8"[..], &b"\xff\xe0\x00\x02".repeat(5000)].concat()),
        ("cut.webp", webp[..webp.len() - 5].to_vec()),
        ("flipped.webp", flipped(&webp, 25)),
        ("sound.webp", webp),
        ("large.bmp", bmp(i32::MAX, i32::MIN, 24, 0, 0, &[0; 64])),
        ("wide.bmp", bmp(60_000, 60_000, 32, 0, 0, &[0; 64])),
        ("minus.bmp", bmp(-28, 28, 24, 0, 0, &[0; 64])),
        ("colours.bmp", bmp(28, 28, 8, 0, u32::MAX, &[0; 64])),
        ("runs.bmp", bmp(30_000, 30_000, 8, 1, 2, &[0xff; 4096])),
        ("bits.bmp", bmp(28, 28, 0xffff, 0, 0, &[0; 64])),
        ("cut.bmp", bitmap[..60].to_vec()),
        ("one-pixel.png", sound(1, 1, 3)),
        ("sixteen.png", encoded(&image::DynamicImage::new_rgba16(28, 28), image::ImageFormat::Png)),
    ]
}

fn tables() -> Vec<(&'static str, Vec<u8>)> {
    let long = "x".repeat(1_000_000);
    let rows = |of: &dyn Fn(usize) -> String| (0..SOUND).map(of).collect::<String>().into_bytes();
    let wide = [&b"0.png"[..], &b",".repeat(300_000), b"\n1.png,1\n"].concat();
    let many = (0..200_000).map(|k| format!("{k}.png,{}\n", k % 10)).collect::<String>().into_bytes();
    vec![
        ("empty", vec![]),
        ("header", b"name,label\n".to_vec()),
        ("nul", b"0.png,\x001\n\x00\x00,2\n1.png,3\n".to_vec()),
        ("zeros", vec![0; 100_000]),
        ("columns", b"0.png\n1.png,2\n2.png,3,4,5\n".to_vec()),
        ("no-label", b"0.png,\n1.png,\n".to_vec()),
        ("line", format!("0.png,1\n{long},2\n1.png,3\n").into_bytes()),
        ("label", format!("0.png,{long}\n1.png,b\n").into_bytes()),
        ("one-line", long.clone().into_bytes()),
        ("quote", b"\"0.png,1\n1.png,2\n2.png,3\n".to_vec()),
        ("quotes", b"\"\"\"\"\"\",\"\"\n0.png,\"1\"\"\n".to_vec()),
        ("large", rows(&|k| format!("{k}.png,99999999999999999999{k}\n"))),
        ("beyond", rows(&|k| format!("{k}.png,{}\n", 1000 + k))),
        ("largest", rows(&|k| format!("{k}.png,{}\n", i64::MAX - k as i64))),
        ("negative", rows(&|k| format!("{k}.png,-{k}\n"))),
        ("fraction", rows(&|k| format!("{k}.png,{k}.5\n"))),
        ("control", rows(&|k| format!("{k}.png,\u{1b}[31mred{k}\u{7}\n"))),
        ("missing-control", b"0.png,1\n1.png,2\n\x1b[2J\x07,1\n".to_vec()),
        ("latin", b"0.png,\xe9t\xe9\n1.png,\xff\xfe\n".to_vec()),
        ("utf16", "\u{feff}0.png,1\n".encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("mark", "\u{feff}0.png,1\n1.png,2\n".as_bytes().to_vec()),
        ("windows", b"0.png,1\r\n1.png,2\r\n".to_vec()),
        ("returns", b"0.png,1\r1.png,2\r".to_vec()),
        ("tabs", b"0.png\t1\n1.png\t2\n".to_vec()),
        ("outside", b"../../0.png,1\n/etc/passwd,2\n0.png,1\n".to_vec()),
        ("again", b"0.png,1\n0.png,2\n0.png,3\n".to_vec()),
        ("wide", wide),
        ("many", many),
        ("image", sound(28, 28, 1)),
    ]
}

pub fn all() -> Vec<Data> {
    let case = |name: &str, at: &[u8], what| Data { name: name.into(), at: at.into(), what, table: false };
    let mut list: Vec<Data> =
        images().into_iter().map(|(n, b)| case(n, n.as_bytes(), What::File(b))).collect();
    let good = || What::File(sound(28, 28, 5));
    list.extend([
        case("pipe", b"pipe.png", What::Pipe),
        case("folder", b"folder.png", What::Folder),
        case("dangling link", b"link.png", What::Link("nowhere.png")),
        case("link to itself", b"link.png", What::Link("link.png")),
        case("link to a neighbour", b"link.png", What::Link("0.png")),
        case("link outside", b"link.png", What::Link("/etc/passwd")),
        case("link to endless zeros", b"zeros.png", What::Link("/dev/zero")),
        case("link to a terminal", b"terminal.png", What::Link("/dev/tty")),
        case("link to the folder around", b"around", What::Link("..")),
        case("escape in a name", b"a\x1b[31m\n.png", good()),
        case("escape in a bad file's name", b"\x1b]0;x\x07\r.png", What::File(vec![1; 9])),
        case("escape in a class", b"\x1b[31mred\n/a.png", good()),
        case("name that is no text", b"\xff\xfe\x80.png", good()),
        case("longest name", &[&[b'n'; 251][..], b".png"].concat(), good()),
        case("dash", b"--help.png", good()),
        case("nothing but an ending", b".png", good()),
        case("upper case", b"A.PNG", good()),
        case("deep", b"1/2/3/4/5/6/7/8/9/10/a.png", good()),
        case("classes", b"class/a.png", good()),
        case("array beside images", b"a.npz", What::File(vec![0x50, 0x4b, 5, 6])),
        case("pipe of arrays", b"a.npz", What::Pipe),
        case("hidden", b".hidden/a.png", What::File(vec![])),
    ]);
    let table = |name: &str, what| Data { name: format!("table {name}"), at: Vec::new(), what, table: true };
    list.extend(tables().into_iter().map(|(n, b)| table(n, What::File(b))));
    list.extend([
        table("pipe", What::Pipe),
        table("folder", What::Folder),
        table("dangling", What::Link("nowhere")),
        table("endless", What::Link("/dev/zero")),
        table("random", What::Link("/dev/urandom")),
    ]);
    list
}
