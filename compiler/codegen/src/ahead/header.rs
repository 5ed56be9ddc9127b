//! The C header of an artefact.

use artefact::Plan;
use ir::{DType, Error, Graph, Result, ValueId};
use kernels::Tier;
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

/// A name that C takes: other characters become underscores, and a keyword of C or C++, or a repetition, gets its number.
fn identifier(name: &str, at: usize, taken: &mut Vec<String>) -> String {
    let mut s: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    const WORDS: &str = "alignas alignof and and_eq asm auto bitand bitor bool break case catch char class compl \
                         const constexpr continue decltype default delete do double else enum explicit export \
                         extern false float for friend goto if inline int long mutable namespace new noexcept not \
                         not_eq nullptr operator or or_eq private protected public register restrict return short \
                         signed sizeof static struct switch template this throw true try typedef typeid typename \
                         union unsigned using virtual void volatile wchar_t while workspace xor xor_eq";
    if !s.starts_with(|c: char| c.is_ascii_alphabetic())
        || WORDS.split(' ').any(|w| w == s)
        || taken.contains(&s)
    {
        s = format!("x{at}_{s}");
    }
    taken.push(s.clone());
    s
}

/// One argument of the run.
struct Declared {
    own: String,
    c: &'static str,
    input: bool,
    comment: String,
    constants: String,
}

fn declare(graph: &Graph, v: ValueId, upper: &str, name: &str, own: &str, input: bool) -> Result<Declared> {
    let unknown = || Error::unsupported(format!("ahead of time: '{name}' has no type or size in C"));
    let (dtype, shape) = (graph.dtype(v).ok_or_else(unknown)?, graph.ty(v).concrete().ok_or_else(unknown)?);
    let c = c_type(dtype).ok_or_else(unknown)?;
    let dims: Vec<String> = shape.iter().map(usize::to_string).collect();
    let (size, elements) = (dtype.bits() / 8, shape.iter().product::<usize>());
    let macros = format!("{upper}_{}", own.to_uppercase());
    let shown = if dims.is_empty() { "one number".to_string() } else { dims.join(" x ") };
    // An array of no elements is no C: a scalar's shape stays out.
    let shape = if dims.is_empty() {
        String::new()
    } else {
        format!("#define {macros}_SHAPE {{ {} }}\n", dims.join(", "))
    };
    Ok(Declared {
        own: own.to_string(),
        c,
        input,
        comment: format!(" *   {own}: {dtype}, {shown}\n"),
        constants: format!(
            "#define {macros} {elements} /* elements of {own} */\n#define {macros}_BYTES {}\n\
             #define {macros}_RANK {}\n{shape}",
            elements * size,
            dims.len()
        ),
    })
}

fn cpu(tier: Tier) -> &'static str {
    match tier {
        Tier::Portable => "any CPU of this architecture",
        Tier::Avx2 => "CPUs with AVX2, FMA and F16C",
        Tier::Avx512 => "CPUs with AVX-512 F, BW, DQ, VL and VNNI",
    }
}

pub fn header(graph: &Graph, name: &str, plan: &Plan, tier: Tier) -> Result<String> {
    let upper = name.to_uppercase();
    let (mut taken, mut list) = (Vec::new(), Vec::new());
    let inputs = graph.inputs().iter().map(|&v| (v, graph.value_name(v), true));
    let outputs = graph.outputs().iter().map(|o| (o.value, o.name.as_str(), false));
    for (i, (v, port, input)) in inputs.chain(outputs).enumerate() {
        let own = identifier(port, i, &mut taken);
        list.push(declare(graph, v, &upper, port, &own, input)?);
    }
    let (mut comment, mut constants, mut arguments) = (String::new(), String::new(), String::new());
    for (i, d) in list.iter().enumerate() {
        comment.push_str(d.comment.trim_end());
        if plan.fixed.iter().any(|f| f.0 == i) {
            comment.push_str(", with the value it was compiled for");
        }
        comment.push('\n');
        constants.push_str(&d.constants);
        let _ = write!(arguments, "{}{} *{}, ", if d.input { "const " } else { "" }, d.c, d.own);
    }
    let (workspace, cpu) = (plan.workspace, cpu(tier));
    let mut h = String::new();
    let _ = write!(
        h,
        "/* {name}: a model compiled ahead of time by compress, for {cpu}. */
#ifndef {upper}_MODEL_H
#define {upper}_MODEL_H

#include <stdint.h>

{constants}#define {upper}_WORKSPACE {workspace} /* bytes of working memory */

/* What a run returns. */
enum {{
    {upper}_OK = 0,
    {upper}_BAD_POINTER = 1, /* a pointer is null or not aligned */
    {upper}_BAD_CPU = 2, /* this CPU lacks instructions the weights are laid out for */
    {upper}_BAD_VALUE = 3, /* values of the inputs are out of range */
    {upper}_NOT_FIXED = 4 /* an input differs from the value the model was compiled for */
}};

#ifdef __cplusplus
extern \"C\" {{
#endif

/* Bytes of working memory of one run. */
uint64_t {name}_workspace_bytes(void);

/* Runs the model; arrays are row-major and do not overlap.
{comment} *   workspace: {upper}_WORKSPACE bytes at a multiple of 64; its contents mean nothing before and after.
 * Threads may run at the same time, each with a workspace of its own. Weights are packed already and are read where
 * they lie; the first run reads the plan, and keeps it. */
int32_t {name}_run({arguments}void *workspace);

#ifdef __cplusplus
}}
#endif
#endif
"
    );
    Ok(h)
}
