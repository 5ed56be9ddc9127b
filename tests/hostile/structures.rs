//! table: whole files that are wrong in their structure: wire format, graphs, functions, types, tensors, external data.

use super::proto::*;
use ir::DType;
use onnx::wire::put_varint;

/// A model and the files beside it that have to exist.
pub struct File {
    pub name: String,
    pub bytes: Vec<u8>,
    pub beside: Vec<Beside>,
}

/// What external data may point to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Beside {
    Weights,
    Symlink,
    Hardlink,
    Pipe,
    Folder,
}

fn open1() -> Msg {
    typed(1, Some(&[None]))
}

/// A graph from one input `x` to one output `y`.
fn through(nodes: &[Msg], constants: &[Msg]) -> Msg {
    graph(nodes, constants, &[info("x", &open1())], &[info("y", &open1())])
}

fn relu() -> Msg {
    through(&[node("Relu", &["x"], &["y"], &[])], &[])
}

pub fn all() -> Vec<File> {
    let mut list: Vec<(String, Vec<u8>, Vec<Beside>)> = Vec::new();
    let mut add = |name: &str, m: Msg| list.push((name.to_string(), m.0, Vec::new()));
    wire(&mut add);
    graphs(&mut add);
    functions(&mut add);
    tensors(&mut add);
    externals(&mut list);
    list.into_iter().map(|(name, bytes, beside)| File { name, bytes, beside }).collect()
}

fn nested(depth: usize, inner: Msg, wrap: impl Fn(&Msg) -> Msg) -> Msg {
    (0..depth).fold(inner, |m, _| wrap(&m))
}

fn wire(add: &mut impl FnMut(&str, Msg)) {
    add("empty", Msg::default());
    add("zeros", Msg(vec![0; 4096]));
    add("ones", Msg(vec![0xff; 4096]));
    add("text", Msg(b"this is no model\n".repeat(50)));
    add("zip", Msg(b"PK\x03\x04".repeat(64)));
    add("groups", Msg([0xa3u8, 0x06].repeat(200_000)));
    add("end-groups", Msg([0xa4u8, 0x06].repeat(1000)));
    add("varint-overlong", Msg([vec![0x08], vec![0x80; 30], vec![1]].concat()));
    add("varint-cut", Msg(vec![0x08, 0x80, 0x80]));
    add("length-huge", Msg([vec![0x3a], vec![0xff; 9], vec![1]].concat()));
    add("length-past-end", Msg(vec![0x3a, 0x7f, 1, 2, 3]));
    add("field-zero", Msg(vec![0x00, 0x01]).msg(7, &relu()));
    add("graph-as-int", Msg::default().int(1, 10).int(7, 5).msg(8, &opset(17)));
    add("graph-twice", model(&relu(), 17).msg(7, &relu()));
    add("no-graph", Msg::default().int(1, 10).msg(8, &opset(17)));
    add("no-opset", Msg::default().int(1, 10).msg(7, &relu()));
    for v in [0, -1, 99, i64::MAX, i64::MIN] {
        add(&format!("opset{v}"), model(&relu(), v));
        add(&format!("version{v}"), Msg::default().int(1, v).msg(7, &relu()).msg(8, &opset(17)));
    }
    add("many-opsets", (0..5000).fold(model(&relu(), 17), |m, i| m.msg(8, &opset(i))));
    add("many-nodes", model(&Msg([0x0a, 0].repeat(1_500_000)), 17));
    add("many-infos", model(&Msg([0x6a, 0].repeat(1_500_000)), 17));
    add("many-constants", model(&Msg([0x2a, 0].repeat(1_000_000)), 17));
    add("many-functions", Msg([0xca, 0x01, 0].repeat(900_000)).msg(7, &relu()));
    let long = "n".repeat(1 << 20);
    add("long-names", model(&through(&[node(&long, &["x"], &["y"], &[])], &[]), 17));
    add(
        "no-utf8",
        model(&Msg::default().bytes(2, &[0xff, 0xfe]).msg(1, &node("Relu", &["x"], &["y"], &[])), 17),
    );
    let text = Msg::default().bytes(1, &[0xc3, 0x28]).text(2, "y").text(4, "Relu");
    add("no-utf8-input", model(&through(&[text], &[]), 17));
    for (depth, name) in [(13usize, "few"), (60, "some"), (400, "many"), (20_000, "very-many")] {
        let inner = graph(&[node("Relu", &["x"], &["y"], &[])], &[], &[], &[info("y", &open1())]);
        let wrap = |g: &Msg| {
            let branches = [body("then_branch", g), body("else_branch", &relu())];
            graph(&[node("If", &["c"], &["y"], &branches)], &[], &[], &[info("y", &open1())])
        };
        // Beyond a few hundred levels the lengths would square the size: a chain of one-byte lengths does.
        if depth < 1000 {
            let g = nested(depth, inner, wrap);
            let condition = info("c", &typed(9, Some(&[])));
            add(&format!("{name}-ifs"), model(&g.msg(11, &condition).msg(11, &info("x", &open1())), 17));
            let deep = nested(depth, open1(), |t| Msg::default().msg(4, &Msg::default().msg(1, t)));
            let g = graph(
                &[node("Identity", &["x"], &["y"], &[])],
                &[],
                &[info("x", &deep)],
                &[info("y", &deep)],
            );
            add(&format!("{name}-sequences"), model(&g, 17));
            let map = nested(depth, open1(), |t| Msg::default().msg(5, &Msg::default().int(1, 7).msg(2, t)));
            let g = graph(&[node("Identity", &["x"], &["y"], &[])], &[], &[info("x", &map)], &[]);
            add(&format!("{name}-maps"), model(&g, 17));
            let optional = nested(depth, open1(), |t| Msg::default().msg(9, &Msg::default().msg(1, t)));
            let a = Msg::default().text(1, "type").int(20, 13).msg(14, &optional);
            let g = graph(&[node("Optional", &[], &["y"], &[a])], &[], &[], &[info("y", &optional)]);
            add(&format!("{name}-optionals"), model(&g, 17));
        }
        let mut bytes = Vec::new();
        for level in (0..depth).rev() {
            put_varint(if level % 2 == 0 { 0x3a } else { 0x0a }, &mut bytes);
            put_varint((level * 3) as u64, &mut bytes);
        }
        add(&format!("{name}-lengths"), Msg(bytes));
    }
}

fn graphs(add: &mut impl FnMut(&str, Msg)) {
    let n = |op: &str, i: &[&str], o: &[&str]| node(op, i, o, &[]);
    let mut plain = |name: &str, nodes: &[Msg]| add(name, model(&through(nodes, &[]), 17));
    plain("cycle", &[n("Relu", &["b"], &["a"]), n("Relu", &["a"], &["b"]), n("Add", &["a", "x"], &["y"])]);
    plain("self", &[n("Relu", &["y"], &["y"])]);
    plain("twice", &[n("Relu", &["x"], &["y"]), n("Neg", &["x"], &["y"])]);
    plain("shadow", &[n("Relu", &["x"], &["x"])]);
    plain("missing", &[n("Relu", &["nowhere"], &["y"])]);
    plain("no-output", &[n("Relu", &["x"], &["z"])]);
    plain("no-nodes", &[]);
    plain("control", &[n("Relu", &["x"], &["a\n\u{1b}[31m\0"]), n("Relu", &["a\n\u{1b}[31m\0"], &["y"])]);
    let chain: Vec<Msg> = (0..20_000)
        .map(|i| {
            let from = if i == 0 { "x".into() } else { format!("v{i}") };
            let to = if i == 19_999 { "y".into() } else { format!("v{}", i + 1) };
            n("Relu", &[&from], &[&to])
        })
        .collect();
    plain("chain", &chain);
    let mut doubling = vec![n("Concat", &["x", "x"], &["v0"])];
    for i in 0..60 {
        let to = if i == 59 { "y".into() } else { format!("v{}", i + 1) };
        let from = format!("v{i}");
        doubling.push(node("Concat", &[&from, &from], &[&to], &[int("axis", 0)]));
    }
    doubling[0] = node("Concat", &["x", "x"], &["v0"], &[int("axis", 0)]);
    plain("doubling", &doubling);
    let wide: Vec<&str> = std::iter::repeat_n("x", 100_000).collect();
    plain("wide", &[node("Sum", &wide, &["y"], &[])]);
    let names: Vec<String> = (0..50_000).map(|i| if i == 0 { "y".into() } else { format!("o{i}") }).collect();
    let outputs: Vec<&str> = names.iter().map(String::as_str).collect();
    plain("many-outputs", &[node("Split", &["x"], &outputs, &[])]);
    // Loops: trip counts, results that grow, bodies that do not fit.
    let scalar = |d: i64| typed(d, Some(&[]));
    let ports = [info("i", &scalar(7)), info("c", &scalar(9)), info("s", &open1())];
    let grow = graph(
        &[node("Concat", &["s", "s"], &["t"], &[int("axis", 0)]), n("Identity", &["c"], &["d"])],
        &[],
        &ports,
        &[info("d", &scalar(9)), info("t", &open1())],
    );
    let keep = graph(
        &[n("Relu", &["s"], &["t"]), n("Identity", &["c"], &["d"])],
        &[],
        &ports,
        &[info("d", &scalar(9)), info("t", &open1())],
    );
    let scans = graph(
        &[n("Relu", &["s"], &["t"]), n("Identity", &["c"], &["d"]), n("Identity", &["s"], &["u"])],
        &[],
        &ports,
        &[info("d", &scalar(9)), info("t", &open1()), info("u", &open1())],
    );
    let truth = || tensor("true", 9, &[], &[1]);
    let trip = |n: i64| tensor("n", 7, &[], &n.to_le_bytes());
    for (name, inner, count, outs) in [
        ("grow", &grow, i64::MAX, &["y"][..]),
        ("grow-64", &grow, 64, &["y"]),
        ("endless", &keep, i64::MAX, &["y"]),
        ("negative", &keep, i64::MIN, &["y"]),
        ("stack", &scans, i64::MAX, &["z", "y"]),
        ("few-results", &keep, 3, &["y", "a", "b"]),
    ] {
        let l = node("Loop", &["n", "true", "x"], outs, &[body("body", inner)]);
        add(&format!("loop-{name}"), model(&through(&[l], &[trip(count), truth()]), 17));
    }
    let forever = node("Loop", &["", "true", "x"], &["y"], &[body("body", &keep)]);
    add("loop-forever", model(&through(&[forever], &[truth()]), 17));
    let empty = node("Loop", &["n", "true", "x"], &["y"], &[body("body", &Msg::default())]);
    add("loop-empty-body", model(&through(&[empty], &[trip(3), truth()]), 17));
    let inner = node("Loop", &["n", "true", "s"], &["t"], &[body("body", &keep)]);
    let outer = graph(
        &[inner, n("Identity", &["c"], &["d"])],
        &[],
        &ports,
        &[info("d", &scalar(9)), info("t", &open1())],
    );
    let l = node("Loop", &["n", "true", "x"], &["y"], &[body("body", &outer)]);
    add("loop-loop", model(&through(&[l], &[trip(1 << 40), truth()]), 17));
    let scan = |g: &Msg, k: i64| node("Scan", &["x"], &["y"], &[body("body", g), int("num_scan_inputs", k)]);
    for k in [0, 1, 2, -1, i64::MAX] {
        add(&format!("scan-{k}"), model(&through(&[scan(&relu(), k)], &[]), 17));
    }
    let whens = [body("then_branch", &relu()), body("else_branch", &Msg::default())];
    let g =
        graph(&[node("If", &["c"], &["y"], &whens)], &[], &[info("c", &scalar(9))], &[info("y", &open1())]);
    add("if-empty-branch", model(&g, 17));
    let sequence = Msg::default().msg(4, &Msg::default().msg(1, &open1()));
    let g = graph(
        &[n("SequenceInsert", &["q", "x"], &["q2"]), n("SequenceInsert", &["q2", "q2"], &["y"])],
        &[],
        &[info("q", &sequence), info("x", &open1())],
        &[info("y", &sequence)],
    );
    add("sequence-in-itself", model(&g, 17));
    for d in [0, 99, -1, i64::from(i32::MAX)] {
        let g = graph(&[n("Identity", &["x"], &["y"])], &[], &[info("x", &typed(d, Some(&[Some(2)])))], &[]);
        add(&format!("input-type{d}"), model(&g, 17));
    }
    for d in [-1, i64::MIN, i64::MAX, 1 << 40] {
        let t = typed(1, Some(&[Some(d), Some(d)]));
        let g = graph(&[n("Relu", &["x"], &["y"])], &[], &[info("x", &t)], &[info("y", &t)]);
        add(&format!("input-dim{d}"), model(&g, 17));
    }
    let t = typed(1, Some(&[Some(1); 300]));
    add(
        "input-rank",
        model(&graph(&[n("Relu", &["x"], &["y"])], &[], &[info("x", &t)], &[info("y", &t)]), 17),
    );
    let g = graph(
        &[n("Relu", &["x"], &["y"])],
        &[],
        &[info("x", &Msg::default())],
        &[info("y", &Msg::default())],
    );
    add("input-untyped", model(&g, 17));
}

fn functions(add: &mut impl FnMut(&str, Msg)) {
    let function = |name: &str, nodes: &[Msg]| {
        Msg::default()
            .text(1, name)
            .text(4, "a")
            .text(5, "b")
            .all(7, nodes)
            .msg(9, &opset(17))
            .text(10, "own")
    };
    let call = |op: &str, i: &str, o: &str| node(op, &[i], &[o], &[]).text(7, "own");
    let with = |list: &[Msg], nodes: &[Msg]| {
        let own = Msg::default().text(1, "own").int(2, 1);
        model(&through(nodes, &[]), 17).msg(8, &own).all(25, list)
    };
    let main = [call("F", "x", "y")];
    add("function-of-itself", with(&[function("F", &[call("F", "a", "b")])], &main));
    let (f, g) = (function("F", &[call("G", "a", "b")]), function("G", &[call("F", "a", "b")]));
    add("functions-of-each-other", with(&[f, g], &main));
    let mut list = vec![function("F0", &[node("Relu", &["a"], &["b"], &[])])];
    for i in 1..31 {
        let inner = format!("F{}", i - 1);
        list.push(function(&format!("F{i}"), &[call(&inner, "a", "m"), call(&inner, "m", "b")]));
    }
    add("functions-doubling", with(&list, &[call("F30", "x", "y")]));
    let mut chain = vec![function("F0", &[node("Relu", &["a"], &["b"], &[])])];
    for i in 1..300 {
        chain.push(function(&format!("F{i}"), &[call(&format!("F{}", i - 1), "a", "b")]));
    }
    add("functions-deep", with(&chain, &[call("F299", "x", "y")]));
    add("function-empty", with(&[Msg::default()], &main));
    add("function-no-output", with(&[function("F", &[])], &main));
    add("function-twice", with(&[function("F", &[]), function("F", &[call("F", "a", "b")])], &main));
    let many: Vec<&str> = std::iter::repeat_n("x", 1000).collect();
    let wide = node("F", &many, &["y"], &[]).text(7, "own");
    add("function-many-arguments", with(&[function("F", &[])], &[wide]));
    let branch = graph(&[call("F", "a", "o")], &[], &[], &[info("o", &open1())]);
    let branches = [body("then_branch", &branch), body("else_branch", &branch)];
    let inside = function("F", &[node("If", &["a"], &["b"], &branches)]);
    add("function-in-its-branch", with(&[inside], &main));
    let reference = Msg::default().text(1, "axis").text(21, "axis").int(20, 2);
    let f = function("F", &[node("Softmax", &["a"], &["b"], &[reference])]);
    add("function-missing-attribute", with(&[f], &main));
}

fn tensors(add: &mut impl FnMut(&str, Msg)) {
    let mut plain = |name: &str, t: Msg| {
        add(name, model(&through(&[node("Add", &["x", "w"], &["y"], &[])], &[t]), 17));
    };
    for d in [0, 99, -1, 8, 14, 16, 17, 22, 23, 26] {
        plain(&format!("type{d}"), tensor("w", d, &[3], &[1; 12]));
    }
    plain("negative", tensor("w", 1, &[-1], &[0; 4]));
    plain("minimum", tensor("w", 1, &[i64::MIN], &[]));
    plain("overflow", tensor("w", 1, &[1 << 32, 1 << 32], &[]));
    plain("overflow-to-one", tensor("w", 1, &[1 << 62, 4, 1], &[0; 4]));
    plain("short", tensor("w", 1, &[100], &[0; 4]));
    plain("long", tensor("w", 1, &[1], &[0; 400]));
    plain("odd", tensor("w", 1, &[1], &[0; 3]));
    plain("empty-huge", tensor("w", 1, &[0, i64::MAX, i64::MAX], &[]));
    plain("rank", tensor("w", 1, &[1; 1000], &[0; 4]));
    plain("claims", tensor("w", 1, &[1 << 34], &[0; 4096]));
    plain("bool", tensor("w", 9, &[3], &[0, 2, 255]));
    plain("ints", dims(Msg::default(), 1, &[3]).int(2, 1).text(8, "w").bytes(7, &[0xff; 9]));
    plain("varints", dims(dims(Msg::default(), 1, &[2]).int(2, 7).text(8, "w"), 7, &[1, 2, 3]));
    plain("floats-odd", dims(Msg::default(), 1, &[2]).int(2, 1).text(8, "w").bytes(4, &[0; 7]));
    plain("segments", tensor("w", 1, &[1], &[0; 4]).msg(3, &Msg::default().int(1, 0).int(2, i64::MAX)));
    plain("cut", tensor("w", 1, &[1000], &[]).text(12, "cut:9:0:4000"));
    plain("cut-far", tensor("w", 1, &[1000], &[]).text(12, "cut:9:99999999:4000"));
    plain("cut-overflow", tensor("w", 1, &[1], &[]).text(12, "cut:9:18446744073709551615:4"));
    plain("pieces", tensor("w", 1, &[2000], &[0; 4000]).bytes(9, &[0; 4000]));
    let sparse = |values: Msg, indices: Msg, shape: &[i64]| {
        let s = dims(Msg::default().msg(1, &values).msg(2, &indices), 3, shape);
        model(&through(&[node("Add", &["x", "w"], &["y"], &[])], &[]).msg(15, &s), 17)
    };
    let one = || tensor("w", 1, &[1], &[0; 4]);
    let at = |i: i64| tensor("", 7, &[1], &i.to_le_bytes());
    add("sparse-far", sparse(one(), at(99), &[4]));
    add("sparse-negative", sparse(one(), at(-1), &[4]));
    add("sparse-minimum", sparse(one(), at(i64::MIN), &[4]));
    add("sparse-bomb", sparse(one(), at(0), &[1 << 36]));
    add("sparse-overflow", sparse(one(), at(0), &[1 << 32, 1 << 32]));
    add("sparse-several", sparse(one(), tensor("", 7, &[3], &[0; 24]), &[4]));
    add("sparse-columns", sparse(one(), tensor("", 7, &[1, 0], &[]), &[4]));
    add("sparse-floats", sparse(one(), tensor("", 1, &[1], &[0; 4]), &[4]));
    add("sparse-packed", sparse(tensor("w", 22, &[1], &[1]), at(0), &[4]));
    add("sparse-strings", sparse(tensor("w", 8, &[1], &[]).text(6, "s"), at(0), &[4]));
    add("sparse-attribute", {
        let s = dims(Msg::default().msg(1, &one()).msg(2, &at(1 << 50)), 3, &[1 << 51]);
        let a = Msg::default().text(1, "sparse_value").int(20, 11).msg(22, &s);
        model(
            &through(&[node("Constant", &[], &["w"], &[a]), node("Add", &["x", "w"], &["y"], &[])], &[]),
            17,
        )
    });
    for d in DType::ALL {
        let n = i64::from(d.onnx());
        let nodes = [node("Constant", &[], &["w"], &[value("value", &tensor("", n, &[1 << 20], &[]))])];
        add(&format!("constant-{d}"), model(&through(&nodes, &[]), 17));
    }
}

fn externals(list: &mut Vec<(String, Vec<u8>, Vec<Beside>)>) {
    let plain = node("Add", &["x", "w"], &["y"], &[]);
    let carriers = |t: Msg| {
        let dense = model(&through(std::slice::from_ref(&plain), std::slice::from_ref(&t)), 17);
        let constant = node("Constant", &[], &["w"], &[value("value", &t)]);
        let attribute = model(&through(&[constant, plain.clone()], &[]), 17);
        let indices = tensor("", 7, &[4], &[0; 32]);
        let s = dims(Msg::default().msg(1, &t).msg(2, &indices), 3, &[4]);
        let sparse = model(&through(std::slice::from_ref(&plain), &[]).msg(15, &s), 17);
        [("dense", dense), ("attribute", attribute), ("sparse", sparse)]
    };
    let places: [(&str, &str, &[Beside]); 16] = [
        ("up", "../weights.bin", &[]),
        ("up-inside", "folder/../../weights.bin", &[Beside::Folder]),
        ("absolute", "/etc/passwd", &[]),
        ("device", "/dev/zero", &[]),
        ("process", "/proc/self/mem", &[]),
        ("backslash", "..\\weights.bin", &[]),
        ("drive", "C:\\weights.bin", &[]),
        ("nul", "weights.bin\0.png", &[Beside::Weights]),
        ("empty", "", &[]),
        ("dot", ".", &[]),
        ("missing", "nothing.bin", &[]),
        ("symlink", "link.bin", &[Beside::Weights, Beside::Symlink]),
        ("hardlink", "hard.bin", &[Beside::Weights, Beside::Hardlink]),
        ("pipe", "pipe.bin", &[Beside::Pipe]),
        ("folder", "folder", &[Beside::Folder]),
        ("newline", "a\nb\u{1b}[31m", &[]),
    ];
    for (name, place, beside) in places {
        for (carrier, m) in carriers(external("w", &[4], &[("location", place)])) {
            list.push((format!("external-{name}-{carrier}"), m.0, beside.to_vec()));
        }
    }
    for (name, offset, length) in [
        ("offset", "1000000", "16"),
        ("offset-huge", "18446744073709551615", "16"),
        ("offset-text", "zero", "16"),
        ("offset-negative", "-1", "16"),
        ("length", "0", "1000000"),
        ("length-other", "0", "12"),
        ("length-huge", "1", "18446744073709551615"),
    ] {
        let entries = [("location", "weights.bin"), ("offset", offset), ("length", length)];
        for (carrier, m) in carriers(external("w", &[4], &entries)) {
            list.push((format!("external-{name}-{carrier}"), m.0, vec![Beside::Weights]));
        }
    }
    let huge = external("w", &[1 << 40], &[("location", "weights.bin")]);
    list.push((
        "external-claims".into(),
        model(&through(std::slice::from_ref(&plain), &[huge]), 17).0,
        vec![Beside::Weights],
    ));
    let none = external("w", &[4], &[]);
    list.push(("external-nowhere".into(), model(&through(&[plain], &[none]), 17).0, vec![]));
}
