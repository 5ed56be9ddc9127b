//! Pairs that were found once, as `compress reduce` printed them.

use crate::reduce::replay;

/// The strides of an output without rows are 0, which looked like rows that overlap.
#[test]
fn attention_without_queries_runs() {
    replay(
        r##"<ir_version: 13, opset_import: ["" : 26]>
case (float[2, 2, 0, 1] x1, float[2, 2, 1, 1] x2) => (float[2, 2, 0, 1] y = y0) <
   float[2, 2, 1, 1] c = {1.0,1.0,1.0,1.0},
   bool[0, 1] "c.1" = {}> {
   [Attention_1] y0 = Attention (x1, c, x2, "c.1")
}
"##,
        r#"seed = 1
[[pass]]
name = "run""#,
    );
}

/// An empty weight times a constant is the same weight: products became multiples of themselves, up to the limit of nodes.
#[test]
fn scaled_empty_weights_saturate() {
    let text = r#"case (float[2, 0] x) => (float[2, 1] y0 = z, float[2, 3] y1 = d) <
   float[0, 3] w = {},
   float[3] c = {-1.2,1.3,-1.9},
   float[3, 1] "w.1" = {0.7,-0.9,-1.5}> {
   m = MatMul (x, w)
   d = Div (m, c)
   z = MatMul (d, "w.1")
}
"#;
    let graph = ir::text::parse(text, &ops::Standard).unwrap();
    let (_, trace) = exact::optimize(&graph, exact::Options::RUNTIME).unwrap();
    assert_eq!(trace.stopped, None);
}
