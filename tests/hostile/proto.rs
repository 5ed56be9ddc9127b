//! ONNX messages by hand, right or wrong: no checks, so that any file can be made.

use ir::{DType, Tensor};
use onnx::wire::{put_delimited, put_varint};

/// One message under construction.
#[derive(Clone, Default)]
pub struct Msg(pub Vec<u8>);

impl Msg {
    pub fn int(mut self, field: u32, v: i64) -> Msg {
        put_varint(u64::from(field) << 3, &mut self.0);
        put_varint(v.cast_unsigned(), &mut self.0);
        self
    }
    pub fn float(mut self, field: u32, v: f32) -> Msg {
        put_varint(u64::from(field) << 3 | 5, &mut self.0);
        self.0.extend(v.to_le_bytes());
        self
    }
    pub fn bytes(mut self, field: u32, v: &[u8]) -> Msg {
        put_delimited(field, v, &mut self.0);
        self
    }
    pub fn text(self, field: u32, v: &str) -> Msg {
        self.bytes(field, v.as_bytes())
    }
    pub fn msg(self, field: u32, v: &Msg) -> Msg {
        self.bytes(field, &v.0)
    }
    pub fn all(self, field: u32, v: &[Msg]) -> Msg {
        v.iter().fold(self, |m, x| m.msg(field, x))
    }
}

pub fn dims(m: Msg, field: u32, v: &[i64]) -> Msg {
    let mut packed = Vec::new();
    v.iter().for_each(|x| put_varint(x.cast_unsigned(), &mut packed));
    m.bytes(field, &packed)
}

/// A `TensorProto` with whatever it claims to be.
pub fn tensor(name: &str, dtype: i64, shape: &[i64], raw: &[u8]) -> Msg {
    dims(Msg::default(), 1, shape).int(2, dtype).text(8, name).bytes(9, raw)
}

/// A `TensorProto` whose data is said to be in another file.
pub fn external(name: &str, shape: &[i64], entries: &[(&str, &str)]) -> Msg {
    let entry = |(k, v): &(&str, &str)| Msg::default().text(1, k).text(2, v);
    let entries: Vec<Msg> = entries.iter().map(entry).collect();
    dims(Msg::default(), 1, shape).int(2, 1).text(8, name).all(13, &entries).int(14, 1)
}

pub fn honest(name: &str, t: &Tensor) -> Msg {
    let shape: Vec<i64> = t.shape().iter().map(|&d| d as i64).collect();
    if t.dtype() == DType::String {
        let m = dims(Msg::default(), 1, &shape).int(2, 8).text(8, name);
        return t.string_data().unwrap().iter().fold(m, |m, s| m.text(6, s));
    }
    tensor(name, i64::from(t.dtype().onnx()), &shape, t.bytes())
}

fn attr(name: &str, kind: i64) -> Msg {
    Msg::default().text(1, name).int(20, kind)
}
pub fn int(name: &str, v: i64) -> Msg {
    attr(name, 2).int(3, v)
}
pub fn float(name: &str, v: f32) -> Msg {
    attr(name, 1).float(2, v)
}
pub fn string(name: &str, v: &str) -> Msg {
    attr(name, 3).text(4, v)
}
pub fn ints(name: &str, v: &[i64]) -> Msg {
    dims(attr(name, 7), 8, v)
}
pub fn floats(name: &str, v: &[f32]) -> Msg {
    let bytes: Vec<u8> = v.iter().flat_map(|x| x.to_le_bytes()).collect();
    attr(name, 6).bytes(7, &bytes)
}
pub fn strings(name: &str, v: &[&str]) -> Msg {
    v.iter().fold(attr(name, 8), |m, s| m.text(9, s))
}
pub fn value(name: &str, t: &Msg) -> Msg {
    attr(name, 4).msg(5, t)
}
pub fn body(name: &str, g: &Msg) -> Msg {
    attr(name, 5).msg(6, g)
}

pub fn node(op: &str, inputs: &[&str], outputs: &[&str], attrs: &[Msg]) -> Msg {
    let m = inputs.iter().fold(Msg::default(), |m, i| m.text(1, i));
    outputs.iter().fold(m, |m, o| m.text(2, o)).text(3, op).text(4, op).all(5, attrs)
}

/// A tensor type; `None` is an open dim, no shape an open rank.
pub fn typed(dtype: i64, shape: Option<&[Option<i64>]>) -> Msg {
    let dim = |d: &Option<i64>| d.map_or(Msg::default(), |n| Msg::default().int(1, n));
    let mut inner = Msg::default().int(1, dtype);
    if let Some(s) = shape {
        inner = inner.msg(2, &Msg::default().all(1, &s.iter().map(dim).collect::<Vec<_>>()));
    }
    Msg::default().msg(1, &inner)
}

pub fn info(name: &str, ty: &Msg) -> Msg {
    Msg::default().text(1, name).msg(2, ty)
}

/// Inputs and outputs by name and type.
pub fn graph(nodes: &[Msg], constants: &[Msg], inputs: &[Msg], outputs: &[Msg]) -> Msg {
    Msg::default().all(1, nodes).text(2, "g").all(5, constants).all(11, inputs).all(12, outputs)
}

pub fn opset(version: i64) -> Msg {
    Msg::default().text(1, "").int(2, version)
}

pub fn model(g: &Msg, version: i64) -> Msg {
    Msg::default().int(1, 10).msg(7, g).msg(8, &opset(version))
}
