//! `compiler/OPERATORS.md` is generated from the operator table; `BLESS=1 cargo test -p compress-ops` rewrites it.

use ir::{Arity, Attrs, DType, Formal, Kind, Operator, Types, qualified};
use std::fmt::Write;
use std::path::Path;

/// Element types that usually come together, by the name the page gives them.
const GROUPS: &[(&str, &[DType])] = &[
    ("floats", &[DType::F16, DType::BF16, DType::F32, DType::F64]),
    ("ints", &[DType::I8, DType::I16, DType::I32, DType::I64]),
    ("uints", &[DType::U8, DType::U16, DType::U32, DType::U64]),
    ("float8s", &[DType::F8E4M3FN, DType::F8E4M3FNUZ, DType::F8E5M2, DType::F8E5M2FNUZ]),
    ("small ints", &[DType::I4, DType::U4, DType::I2, DType::U2]),
    ("complex", &[DType::C64, DType::C128]),
];

const HEAD: &str = "\
# Operators

Generated from the operator table by `BLESS=1 cargo test -p compress-ops`; do not edit.

Each operator has the semantics of its newest version; models written for older ones are upgraded when they are read.
*Kind* is all that code generation asks: element-wise, reduce, contract, movement, control, or opaque (the reference
semantics run). Operators of other domains that are opaque here are functions of standard ones, which import writes out, but
for DynamicQuantizeLSTM and the trees, support vector machines and encoders of \"ai.onnx.ml\". Inputs in brackets are optional, an ellipsis follows a variadic one. Element types are those of the
specification:";

fn types(t: Types) -> String {
    let Types::Of(list) = t else { return "any value".to_string() };
    if list.len() == DType::ALL.len() {
        return "any tensor".to_string();
    }
    let mut names = Vec::new();
    let mut rest: Vec<DType> = list.to_vec();
    for (name, group) in GROUPS {
        if group.iter().all(|d| list.contains(d)) {
            names.push(name.to_string());
            rest.retain(|d| !group.contains(d));
        }
    }
    names.extend(rest.iter().map(DType::to_string));
    names.join(", ")
}

fn formals(list: &[Formal]) -> String {
    let one = |f: &Formal| match f.arity {
        Arity::Required => f.name.to_string(),
        Arity::Optional => format!("[{}]", f.name),
        Arity::Variadic => format!("{}…", f.name),
    };
    list.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Element types by type variable, each once.
fn variables(op: &dyn Operator) -> String {
    let s = op.signature();
    let mut seen = Vec::new();
    let mut out = Vec::new();
    for f in s.inputs.iter().chain(s.outputs) {
        if !seen.contains(&f.type_name) {
            seen.push(f.type_name);
            out.push(types(f.types));
        }
    }
    out.dedup();
    out.join("; ")
}

fn kind(op: &dyn Operator) -> &'static str {
    match op.kind(&Attrs::new()) {
        Kind::Elementwise(_) => "element-wise",
        Kind::Reduce => "reduce",
        Kind::Contract => "contract",
        Kind::Movement => "movement",
        Kind::Control => "control",
        Kind::Opaque => "opaque",
    }
}

fn page() -> String {
    let mut ops: Vec<&dyn Operator> = compress_ops::FAMILIES.iter().flat_map(|f| f.iter().copied()).collect();
    ops.sort_by_key(|o| (o.domain(), o.name()));
    let mut text = String::from(HEAD);
    for (name, group) in GROUPS {
        let members: Vec<&str> = group.iter().map(|d| d.name()).collect();
        let _ = write!(text, "\n- {name}: {}", members.join(", "));
    }
    let mut domain = None;
    for o in ops {
        if domain.replace(o.domain()) != Some(o.domain()) {
            let title = match o.domain() {
                "" => "ONNX".to_string(),
                "ir." => "Internal: made by rewrites, never in a file".to_string(),
                d => format!("Domain {d}"),
            };
            let count =
                compress_ops::FAMILIES.iter().flat_map(|f| f.iter()).filter(|p| p.domain() == o.domain());
            let _ = write!(
                text,
                "\n\n## {title} ({})\n\n| operator | kind | versions | inputs → outputs | element types |\n|---|---|---|---|---|",
                count.count()
            );
        }
        let s = o.signature();
        let since: Vec<String> = s.since.iter().map(u32::to_string).collect();
        let (name, kind, versions, variables) = (qualified(o), kind(o), since.join(" "), variables(o));
        let (inputs, outputs) = (formals(s.inputs), formals(s.outputs));
        let _ = write!(text, "\n| {name} | {kind} | {versions} | {inputs} → {outputs} | {variables} |");
    }
    text + "\n"
}

#[test]
fn the_page_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../OPERATORS.md");
    let wanted = page();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "OPERATORS.md is stale: run `BLESS=1 cargo test -p compress-ops`");
}

#[test]
fn names_are_unique() {
    let mut names: Vec<String> =
        compress_ops::FAMILIES.iter().flat_map(|f| f.iter()).map(|o| qualified(*o)).collect();
    names.sort();
    let twice: Vec<&String> = names.windows(2).filter(|w| w[0] == w[1]).map(|w| &w[0]).collect();
    assert!(twice.is_empty(), "{twice:?}");
}
