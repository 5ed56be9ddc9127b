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
