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

/// A Loop body that does not fit its first iteration had no types, so what no iteration gives was float32 or float16, by
/// what had been inferred before.
#[test]
fn what_no_iteration_gives_has_the_type_of_a_body_that_does_not_fit() {
    let text = r#"case (float16[1, 1, 1, 1] x, float16[1, 1, 1, 1] w) => (float16[?, ?, 1, ?, ?] y) <
   int64 trips = {1}, bool go = {0}> {
   last, y = Loop <body: graph = turn (int64[] i, bool[] "go.1", float16 carried) => (bool[] more, next, seen) {
      next = Conv <group: int = 40, pads: ints = [0, 0, 0, 0], strides: ints = [1, 1]> (carried, x)
      more = Identity ("go.1")
      seen = Identity (next)
   }> (trips, go, w)
}
"#;
    replay(text, "seed = 1\n[[pass]]\nname = \"file\"\n[[pass]]\nname = \"text\"");
}

/// Beside a large mask a score has no digits left in float32, which the reference kept.
#[test]
fn causal_attention_with_a_mask_of_special_values_is_float32_arithmetic() {
    replay(
        r#"case (float[1, 1, 2, 1] q, float[1, 1, 3, 1] k, float[1, 1, 3, 1] v) => (float[1, 1, 2, 1] y) <
   float[2, 3] mask = {0.5,1.0,2.0,1e12,1e12,-3.4e38}> {
   y = Attention <is_causal: int = 1> (q, k, v, mask)
}
"#,
        "seed = 1\n[[pass]]\nname = \"run\"",
    );
}

/// A bias of whole vectors was left out of the first row of each block of a chain that quantizes.
#[test]
fn bias_before_a_quantization_is_added_to_every_row() {
    let bias = vec!["1.0"; 64].join(",");
    replay(
        format!(
            r#"case (float[19, 64] x) => (int8[19, 64] y) <float s = {{0.1}}, int8 z = {{0}}, float[64] b = {{{bias}}}> {{
   a = Add (x, b)
   y = QuantizeLinear (a, s, z)
}}
"#
        ),
        "seed = 1\n[[pass]]\nname = \"run\"",
    );
}

/// The e-graph computed constants of up to 4096 elements whatever they took in a file that must not grow.
#[test]
fn a_constant_that_stays_is_not_transposed_beside_itself() {
    let values: Vec<String> = (0..1200).map(|i| format!("{i}.5")).collect();
    replay(
        format!(
            r#"case () => (float[40, 30] y, float[30, 40] z = c) <float[30, 40] c = {{{}}}> {{
   y = Transpose (c)
}}
"#,
            values.join(",")
        ),
        "seed = 1\n[[pass]]\nname = \"exact\"\nlevel = \"portable\"\ngrowth = \"never\"",
    );
}

/// An output that is a constant of text, or of elements smaller than a byte, had no place.
#[test]
fn constants_of_any_type_can_be_outputs() {
    let text = r#"case (float[1] x) => (string[1] a, int4[2] b, float[1] c) <
   float[1] one = {1.0}, float[2] two = {1.0,-3.0}> {
   a = Cast <to: int = 8> (one)
   b = Cast <to: int = 22> (two)
   c = Neg (x)
}
"#;
    replay(text, "seed = 1\n[[pass]]\nname = \"run\"");
}

/// Kernels move along 16 axes at most; a value may have more.
#[test]
fn values_of_many_dims_are_moved() {
    replay(
        r##"<ir_version: 13, opset_import: ["" : 26]>
case (int32[1, 1] x0) => (int32[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1] y = y2) <
   int64[21] "i.8" = {1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}> {
   [Expand_5] y2 = Expand (x0, "i.8")
}
"##,
        "seed = 1\n[[pass]]\nname = \"run\"",
    );
}

/// Groups of a transposed convolution have two inputs each, which patterns of two of four straddled.
#[test]
fn two_of_four_keeps_to_groups() {
    replay(
        r#"case (float[1, 1] x) => (float[1, 2, 1, 1] y, float[2, 1] z) <
   float[1, 4, 1, 1] c = {1.0,1.0,1.0,1.0},
   float[1, 2] v = {1.0,1.0},
   float[4, 1, 1, 1] w = {1.0,1.0,1.0,1.0}> {
   z = Gemm <transA: int = 1> (v, x)
   y = ConvTranspose <group: int = 2> (c, w)
}
"#,
        r#"seed = 1
[[pass]]
name = "compress"
method = "2:4"
layer = 1
candidate = 0
data = true
[[pass]]
name = "compress"
method = "2:4"
layer = 2
candidate = 0
data = true"#,
    );
}

/// All deviations of equal numbers are rounding: the reference, which sums in float64, has none.
#[test]
fn deviations_of_equal_large_numbers_are_not_claimed() {
    let w = vec!["-1000000000000.0"; 15].join(",");
    let one = vec!["1.0"; 15].join(",");
    let text = format!(
        r#"case () => (float[1, 15] y) <float[15] one = {{{one}}}, float[1, 15] w = {{{w}}}, bool go = {{1}}, int64 n = {{1}}> {{
   last = Loop <body: graph = turn (int64[] i, bool[] "go.1", float carried) => (more, next) {{
      next = Transpose <perm: ints = [0, 1]> (carried)
      more = Identity ("go.1")
   }}> (n, go, w)
   y = GroupNormalization <num_groups: int = 1> (last, one, one)
}}
"#
    );
    replay(&text, "seed = 1\n[[pass]]\nname = \"run\"\ntier = \"portable\"");
}

/// A mean of equal numbers below the normal ones is one of two, so how many different ones there are is not claimed.
#[test]
fn different_subnormal_numbers_are_not_counted() {
    replay(
        r#"case (float[1, 1, 4, 4] q, float[1, 1, 4, 4] k) => (int64[?] y = counts) <
   float[1, 1, 4, 4] v = {1e-40,1e-40,1e-40,1e-40,1e-40,1e-40,1e-40,1e-40,1e-40,1e-40,1e-40,1e-40,1e-40,1e-40,1e-40,1e-40},
   bool[4, 4] mask = {1,0,1,1,1,0,1,0,0,1,0,1,0,1,1,1}> {
   a = Attention <softcap: float = 2.0> (q, k, v, mask)
   u, first, inverse, counts = Unique (a)
}
"#,
        "seed = 1\n[[pass]]\nname = \"run\"",
    );
}

/// Whether what is no number is masked away with the scores is told nowhere, nor then how many results are not 0.
#[test]
fn sizes_that_follow_from_no_numbers_are_not_claimed() {
    replay(
        r#"case (float[1, 2, 1, 1] o, float[2, 3, 3, 1] q, float[2, 3, 1, 1] v) => (int64[4, ?] y = places) <
   float[2, 3, 1, 1] k = {1.0,1.0,1.0,1.0,1.0,1.0}, bool[3, 1] mask = {0,0,0}> {
   a = Attention (q, k, v, mask)
   places = NonZero (a)
}
"#,
        "seed = 7194156\n[[pass]]\nname = \"run\"\ntier = \"portable\"",
    );
}

/// 1e12 and −1e12 among nine numbers: their sum has none of the others' digits, in whatever order it is made.
#[test]
fn sums_of_large_numbers_that_cancel_are_not_claimed() {
    replay(
        r#"case (float[1, 5, 1] x0, float[2, 5, 3, 3] x1) => (float[2, 5, 1, 1] y) { y = GlobalAveragePool (x1) }"#,
        "seed = 12008463\n[[pass]]\nname = \"run\"\ntier = \"portable\"",
    );
}

/// A weight of 3.4e38 that takes over the division behind it is infinite.
#[test]
fn what_overflows_in_another_order_is_not_claimed() {
    replay(
        r#"case (float[3, 1, 3] x) => (float[3, 1, 5] y) <
   float d = {0.53741455}, float[1] n = {3.4e38},
   float[3, 5] w = {1.0,1.0,0.0,0.0,0.0,2.0,0.0,1.0,0.0,1.0,0.0,0.0,1.0,0.0,3.4e38}> {
   m = MatMul (x, w)
   q = Div (m, d)
   y = Div (n, q)
}
"#,
        "seed = 1\n[[pass]]\nname = \"run\"",
    );
}

/// −1 became 255 among bytes, above which none is.
#[test]
fn constants_that_bytes_do_not_hold_are_compared_as_they_are() {
    replay(
        "case (uint8[1, 1] x) => (uint8[1, 1] y) { y = Shrink <lambd: float = -1.0> (x) }",
        "seed = 1\n[[pass]]\nname = \"run\"",
    );
}

/// x + 1e12 is also what it is with 0.3 more: sums became sums with themselves.
#[test]
fn a_large_term_that_takes_up_small_ones_saturates() {
    for (one, two) in [("x, big", "a, c"), ("x, c", "a, big")] {
        let text = format!(
            r#"case (float[3] x) => (float[3] y) <float big = {{1e12}}, float c = {{0.3}}, float d = {{0.2}}> {{
   a = Add ({one})
   b = Add ({two})
   e = Sub (b, d)
   y = Sub (e, b)
}}
"#
        );
        let graph = ir::text::parse(&text, &ops::Standard).unwrap();
        for level in [exact::Level::Portable, exact::Level::Runtime] {
            let options = exact::Options { level, growth: exact::Growth::Allowed };
            let (_, trace) = exact::optimize(&graph, options).unwrap();
            assert_eq!(trace.stopped, None, "{text}");
        }
    }
}

/// The only sample has no variance but what rounding leaves, by which weights grew until float32 had no digits left.
#[test]
fn sparse_weights_of_one_sample_state_their_error() {
    replay(
        r#"case (float[1, 8] x) => (float[1, 1] y) <
   float[8, 1] w = {1.0,1.0,1.0,1.0,1.0,1.0,1.0,1.0}, float[1] b = {0.0}> {
   m = MatMul (x, w)
   y = Add (m, b)
}
"#,
        "seed = 1\n[[pass]]\nname = \"compress\"\nmethod = \"sparse\"\nlayer = 0\ncandidate = 39\ndata = true",
    );
}

/// Two values of a Swish near its minimum are one in float32.
#[test]
fn different_numbers_in_the_last_digits_are_not_counted() {
    replay(
        r#"case (float[22, 5, 22] x) => (int64[?] y = ranks) {
   s = Swish (x)
   u, first, ranks, counts = Unique (s)
}
"#,
        "seed = 13081906\n[[pass]]\nname = \"run\"\ntier = \"avx2\"",
    );
}

/// The fractions of a bias and of a threshold count for integers too.
#[test]
fn integers_shrink_by_fractions() {
    for dtype in ["int8", "uint8", "int32", "int64"] {
        for bias in ["0.7", "-0.7", "3.0"] {
            replay(
                format!(
                    "case ({dtype}[3, 7] x) => ({dtype}[3, 7] y) {{ y = Shrink <bias: float = {bias}, lambd: float = 1.5> (x) }}"
                ),
                "seed = 1\n[[pass]]\nname = \"run\"",
            );
        }
    }
}

/// Numbers that are equal but for rounding are brought to mean 0 in the body of a loop.
#[test]
fn deviations_of_equal_numbers_in_a_loop_are_not_claimed() {
    let all = |x: &str| vec![x; 65].join(",");
    replay(
        format!(
            r#"case () => (float[?, 1, 1, 65] y) <
   float[65] scale = {{{}}}, int64 trips = {{3}}, bool go = {{1}}, float[1, 1, 65] c = {{{}}}> {{
   last, y = Loop <body: graph = turn (int64[] i, bool[] "go.1", float carried) => (bool[] more, next, seen) {{
      next = LayerNormalization (carried, scale)
      more = Identity ("go.1")
      seen = Identity (next)
   }}> (trips, go, c)
}}
"#,
            all("0.5"),
            all("-271517770000000.0")
        ),
        "seed = 1\n[[pass]]\nname = \"run\"",
    );
}

/// Which of several zeros Max gives is told nowhere, nor is it whether all of them have the same sign.
#[test]
fn zeros_of_a_maximum_have_any_sign() {
    replay(
        r#"case (float[3, 15, 1] x) => (float[3, 15, 1] y) <
   float zero = {-0.0}, float one = {1.0}, int64 trips = {1}, bool go = {1}> {
   m = Loop <body: graph = turn (int64[] i, bool[] "go.1", float carried) => (bool[] more, next) {
      next = Max (zero, carried)
      more = Identity ("go.1")
   }> (trips, go, x)
   r = Relu (m)
   d = Div (one, r)
   y = Loop <body: graph = turn (int64[] i, bool[] "go.1", float carried) => (bool[] more, next) {
      next = Hardmax <axis: int = 0> (carried)
      more = Identity ("go.1")
   }> (trips, go, d)
}
"#,
        "seed = 1\n[[pass]]\nname = \"run\"",
    );
}

/// A logarithm of a sum of about 1 is 0 but for rounding: sizes, whether they fit, and products follow from that.
#[test]
fn what_is_only_rounding_decides_nothing() {
    let run = "seed = 1\n[[pass]]\nname = \"run\"";
    replay(
        r#"case (float[1, 17, 31] x) => (int64[3, ?] y, int64[?, ?] z) <
   float s = {0.0157}, float[1, 1, 1] one = {1.0}, int64[3, 527] c> {
   d = Div (x, s)
   e = Sub (one, d)
   t = Transpose (e)
   l = LogSoftmax <axis: int = 0> (t)
   y = NonZero (l)
   h = Shape (y)
   z = Expand (y, h)
}
"#
        .replace(", int64[3, 527] c", ""),
        run,
    );
    replay(
        r#"case (float[16, 9] x) => (float[16, 9] y) <int64 axis = {0}, float s = {0.06}> {
   d = Div (x, s)
   l = LogSoftmax (d)
   p = CumProd (l, axis)
   y = Sigmoid (p)
}
"#,
        run,
    );
}

/// Which of two values that are equal but for rounding comes first, and how many are the same.
#[test]
fn near_ties_are_not_claimed() {
    let run = "seed = 1\n[[pass]]\nname = \"run\"";
    replay(
        r#"case (float[3, 8] x) => (int64[1, 8] y) <
   int64[1] k = {1}, float[3, 3] c = {6.0,7.0,7.0,7.0,2.0,7.0,4.0,2.0,0.0}> {
   m = MatMul (c, x)
   a = Mish (m)
   v, y = TopK <axis: int = -2> (a, k)
}
"#,
        run,
    );
    replay(
        r#"case (float[2, 8] x) => (int64[2, 8] y) <
   int64[1] k = {2}, float[5, 2] c = {4.1,8.0,5.4,7.6,6.6,2.6,4.0,7.9,5.0,4.9}> {
   m = MatMul (c, x)
   a = Mish (m)
   v, y = TopK <axis: int = -2> (a, k)
}
"#,
        run,
    );
    replay(
        r#"case (float[1, 15, 7, 2] x) => (int64[?] y) <
   float[2, 15] w = {1.0,0.0,0.0,-0.9,-0.9,1.9,1.5,-1.5,-0.35,1.45,-1.4,0.27,0.0,-0.47,-0.44,1.36,-1.47,0.76,0.0,1.9,-0.94,-0.28,0.9,-0.9,-0.7,-1.3,-0.14,1.7,1.7,-0.07}> {
   m = MatMul (x, w)
   u, a, b, y = Unique (m)
}
"#,
        run,
    );
}

/// Which of a dozen values that are equal but for rounding comes first: more than the runs that are rounded otherwise meet.
#[test]
fn winners_among_many_near_ties_are_not_claimed() {
    replay(
        r#"case (float[12, 1] x) => (float[12, 1] y) {
   a = Softplus (x)
   b = Cast <to: int = 11> (a)
   c = Cast <to: int = 1> (b)
   d = LpNormalization (c)
   e = Cos (d)
   y = Hardmax <axis: int = -2> (e)
}
"#,
        "seed = 7840061\n[[pass]]\nname = \"run\"",
    );
}

/// A vector is one column, which has one scale: the reference took the scales of four for rows of the result, code refused.
#[test]
fn vectors_have_no_scale_for_each_element() {
    let text = r#"case (uint8[3, 4] x) => (int8[3] y) <
   int8[4] w = {23,103,44,99}, float s = {0.03125}, uint8 z = {127}, float[4] t = {0.0625,0.125,0.125,0.125},
   int8[4] u = {0,0,0,0}, float r = {4.0}, int8 q = {-128}> {
   y = QLinearMatMul (x, s, z, w, t, u, r, q)
}
"#;
    let graph = ir::text::parse(text, &ops::Standard).unwrap();
    let x = ir::Tensor::new(&[3, 4], vec![1u8; 12]).unwrap();
    let feeds = ir::Feeds::from([("x".to_string(), x.into())]);
    let error = ir::Evaluate::run(&ir::Reference, &graph, &feeds, &[]).unwrap_err();
    assert_eq!(error.blame, ir::Blame::Model);
}

/// Where two values became one, those that are counted are others.
#[test]
fn counts_of_near_ties_are_not_claimed() {
    replay(
        r#"case (float[1, 11, 7, 2] x) => (int64[?] y) <bool[11] c = {1,1,1,1,1,1,1,1,1,1,1}> {
   f = Floor (x)
   t = Transpose <perm: ints = [2, 0, 1, 3]> (f)
   r = Transpose (t)
   s = Softmax (r)
   u, a, b, n = Unique (s)
   y = Compress (n, c)
}
"#,
        "seed = 1\n[[pass]]\nname = \"run\"\ntier = \"avx2\"",
    );
}

/// What a loop without iterations gathered has the rank that is known of it, which an operator behind it may refuse.
#[test]
fn what_no_iteration_gives_may_be_refused() {
    replay(
        r#"case (float[1, 1, 1] x) => (float[?, ?, ?, 2] y) <
   int64 axis = {1}, bool go = {0}, int64[0] lengths = {}> {
   last, all = Loop <body: graph = turn (int64[] i, bool[] "go.1", float carried) => (more, next, seen) {
      next = DFT <inverse: int = 0> (carried, "", axis)
      more = Identity ("go.1")
      seen = Identity (next)
   }> (axis, go, x)
   y = ReverseSequence (all, lengths)
}
"#,
        "seed = 1\n[[pass]]\nname = \"run\"",
    );
}

/// No operator defines a scale of 0, which a branch may give.
#[test]
fn scales_that_a_branch_gives_are_looked_at() {
    replay(
        r#"case (uint8[1, 1] x) => (int8[1, 1] y) <
   uint8[1, 1] w = {0}, float one = {1.0}, uint8 z = {0}, float[1] s = {1.0}, uint8[1] q = {0}, int8 p = {1}, bool c = {1}> {
   chosen = If <then_branch: graph = yes () => (r) <float zero = {0.0}> { r = Identity (zero) },
      else_branch: graph = no () => (r) { r = LeakyRelu <alpha: float = 0.3> (one) }> (c)
   y = QLinearMatMul (x, one, z, w, s, q, chosen, p)
}
"#,
        "seed = 1\n[[pass]]\nname = \"run\"",
    );
}

/// A closed key whose score is infinite: the reference adds −∞ to it, generated code leaves the key out.
#[test]
fn scores_that_no_mask_closes_are_not_claimed() {
    replay(
        r#"case (float[1, 2, 1, 7] q, float[1, 2, 2, 7] k) => (float[1, 2, 1, 7] y) <
   float[1, 2, 2, 7] v = {1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}> {
   a = Attention <is_causal: int = 1> (q, k, v)
   y = Shrink (a)
}
"#,
        "seed = 13440735\n[[pass]]\nname = \"run\"",
    );
}

/// A constant of equal elements is itself in any order: its class is full of permutations, each two of which make a third.
#[test]
fn permutations_of_a_constant_end_at_the_limit() {
    let perm = |step: usize| (0..33).map(|i| (i * step % 33).to_string()).collect::<Vec<_>>().join(", ");
    let (a, b, c) = (perm(2), perm(5), perm(7));
    let swap = (0..33).map(|i| (if i < 2 { 1 - i } else { i }).to_string()).collect::<Vec<_>>().join(", ");
    replay(
        format!(
            r#"case () => (y) <int64[33] i = {{{}}}> {{
   z = ConstantOfShape (i)
   p = Transpose <perm: ints = [{a}]> (z)
   q = Transpose <perm: ints = [{b}]> (p)
   r = Transpose <perm: ints = [{swap}]> (q)
   s = Transpose <perm: ints = [{c}]> (r)
   y = Cast <to: int = 11> (s)
}}
"#,
            vec!["1"; 33].join(",")
        ),
        "seed = 1\n[[pass]]\nname = \"exact\"\nlevel = \"portable\"\ngrowth = \"never\"",
    );
}

/// Celu divides by its alpha, 0: whether what is no number passes a threshold is told nowhere.
#[test]
fn what_is_no_number_passes_a_threshold_or_not() {
    replay(
        r#"case (float[2] x) => (float[2] y) <float[2] c = {0.5, 0.25}> {
   s = Mul (x, x)
   a = Add (s, c)
   b = Celu <alpha: float = 0.0> (a)
   t = ThresholdedRelu <alpha: float = 0.3> (b)
   y = Sigmoid (t)
}
"#,
        "seed = 1\n[[pass]]\nname = \"run\"",
    );
}

/// In a branch that is not taken the ranks of an Attention's operands need not agree; the rule that splits it read the second
/// size of a vector.
#[test]
fn attention_over_a_vector_is_left_to_its_definition() {
    replay(
        r#"case (float[1, 1, 1, 1] q, bool c) => (float[1, ?, ?, ?] y) <float[1] k = {1.0}, float[1, 1, 1, 1] v = {1.0}> {
   y = If <
      then_branch: graph = yes () => (r) { r = Attention (q, k, v) },
      else_branch: graph = no () => (r) <float[1, 1, 1, 1] z = {0.0}> { r = Identity (z) }> (c)
}
"#,
        "seed = 1\n[[pass]]\nname = \"exact\"\nlevel = \"runtime\"\ngrowth = \"bounded\"",
    );
}

/// A transpose was moved below a sum with a constant of no elements, whose 0 had the Reshape before it copy a size.
#[test]
fn transposes_stay_above_constants_of_no_elements() {
    replay(
        r#"case (float[n, 1, 1, 1] x) => (float[1, 0, 1, ?] y) <float[0, 1, 1] c = {}> {
   t = Transpose (x)
   y = Add (c, t)
}
"#,
        "seed = 1\n[[pass]]\nname = \"run\"\ntier = \"best\"",
    );
}

/// A transposed convolution of bytes to no channels, whose 0 would have the Reshape of its weights copy a size.
#[test]
fn windows_of_no_channels_stay_transposed() {
    replay(
        r#"case (uint8[1, 2, 3, 3] x) => (float[1, 0, 6, 6] y)
<float s = {0.5}, uint8 z = {3}, int8[2, 0, 2, 2] w = {}, float u = {0.25}, int8 v = {0}> {
   a = DequantizeLinear (x, s, z)
   b = DequantizeLinear (w, u, v)
   y = ConvTranspose <strides = [2, 2]> (a, b)
}
"#,
        "seed = 1\n[[pass]]\nname = \"run\"\ntier = \"best\"",
    );
}
