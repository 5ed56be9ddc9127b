//! The C header of an artefact.

use ir::{DType, Error, Graph, Result, ValueId};
use std::fmt::Write;

/// The C type of an element.
fn c_type(d: DType) -> Option<&'static str> {
    use DType::*;
    Some(match d {
        F32 => "float",
        F64 => "double",
        I8 => "int8_t",
        I16 => "int16_t",
        I32 => "int32_t",
        I64 => "int64_t",
        U8 | Bool => "uint8_t",
        U16 | F16 | BF16 => "uint16_t",
        U32 => "uint32_t",
        U64 => "uint64_t",
        _ => return None,
    })
}

/// A name that C takes: other characters become underscores, and a keyword or a repetition gets its number.
fn identifier(name: &str, at: usize, taken: &mut Vec<String>) -> String {
    let mut s: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    const WORDS: &[&str] = &[
        "auto",
        "break",
        "case",
        "char",
        "const",
        "continue",
        "default",
        "do",
        "double",
        "else",
        "enum",
        "extern",
        "float",
        "for",
        "goto",
        "if",
        "inline",
        "int",
        "long",
        "register",
        "restrict",
        "return",
        "short",
        "signed",
        "sizeof",
        "static",
        "struct",
        "switch",
        "typedef",
        "union",
        "unsigned",
        "void",
        "volatile",
        "while",
        "workspace",
        "class",
        "new",
        "delete",
        "this",
        "template",
        "operator",
        "private",
        "public",
        "protected",
    ];
    if !s.starts_with(|c: char| c.is_ascii_alphabetic()) || WORDS.contains(&s.as_str()) || taken.contains(&s)
    {
        s = format!("x{at}_{s}");
    }
    taken.push(s.clone());
    s
}

struct Declared {
    text: String,
    comment: String,
    constants: String,
}

fn declare(
    graph: &Graph,
    v: ValueId,
    upper: &str,
    name: &str,
    own: &str,
    constant: bool,
) -> Result<Declared> {
    let unknown = || Error::unsupported(format!("ahead of time: '{name}' has no type or size in C"));
    let (dtype, shape) = (graph.dtype(v).ok_or_else(unknown)?, graph.ty(v).concrete().ok_or_else(unknown)?);
    let c = c_type(dtype).ok_or_else(unknown)?;
    let elements: usize = shape.iter().product();
    let dims = if shape.is_empty() {
        "one number".to_string()
    } else {
        shape.iter().map(usize::to_string).collect::<Vec<_>>().join(" x ")
    };
    Ok(Declared {
        text: format!("{}{c} *{own}", if constant { "const " } else { "" }),
        comment: format!(" *   {own}: {dtype}, {dims}\n"),
        constants: format!("#define {upper}_{} {elements} /* elements of {own} */\n", own.to_uppercase()),
    })
}

pub fn header(graph: &Graph, name: &str, workspace: usize) -> Result<String> {
    let upper = name.to_uppercase();
    let (mut taken, mut list) = (Vec::new(), Vec::new());
    let inputs = graph.inputs().iter().map(|&v| (v, graph.value_name(v), true));
    let outputs = graph.outputs().iter().map(|o| (o.value, o.name.as_str(), false));
    for (i, (v, port, constant)) in inputs.chain(outputs).enumerate() {
        let own = identifier(port, i, &mut taken);
        list.push(declare(graph, v, &upper, port, &own, constant)?);
    }
    let (mut comment, mut constants, mut arguments) = (String::new(), String::new(), String::new());
    for d in &list {
        comment.push_str(&d.comment);
        constants.push_str(&d.constants);
        arguments.push_str(&d.text);
        arguments.push_str(", ");
    }
    let mut h = String::new();
    let _ = write!(
        h,
        "/* {name}: a model compiled ahead of time by compress. */
#ifndef {upper}_MODEL_H
#define {upper}_MODEL_H

#include <stdint.h>

{constants}#define {upper}_WORKSPACE {workspace} /* bytes of working memory */

#ifdef __cplusplus
extern \"C\" {{
#endif

/* Runs the model; arrays are row-major and do not overlap.
{comment} *   workspace: {upper}_WORKSPACE bytes at a multiple of 64; its contents mean nothing before and after.
 * Threads may run at the same time, each with a workspace of its own. The first run packs the weights for this CPU
 * and keeps them. Returns 0, or 1: a pointer is null or not aligned, 2: the weights could not be packed,
 * 3: values of the inputs are out of range. */
int32_t {name}_run({arguments}void *workspace);

#ifdef __cplusplus
}}
#endif
#endif
"
    );
    Ok(h)
}
