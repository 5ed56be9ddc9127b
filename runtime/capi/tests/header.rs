//! `include/compress.h` is generated; `BLESS=1 cargo test -p compress-capi --test header` rewrites it.

use std::path::Path;

#[test]
fn header_is_current() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(here.join("cbindgen.toml")).unwrap();
    let sources = ["status", "tensor", "session", "outputs"].map(|f| here.join(format!("src/{f}.rs")));
    let builder = sources.iter().fold(cbindgen::Builder::new(), |b, f| b.with_src(f));
    let mut text = Vec::new();
    builder.with_config(config).generate().unwrap().write(&mut text);
    let (text, path) = (String::from_utf8(text).unwrap(), here.join("../../include/compress.h"));
    if std::env::var_os("BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == text,
        "include/compress.h is out of date: BLESS=1 cargo test -p compress-capi --test header"
    );
}
