//! Bounds-checked walk over the protobuf wire format, before any parser sees the bytes.
//!
//! It follows the ONNX message types, refuses groups, bad lengths and deep nesting, drops fields that are not part of the
//! format, and cuts large `raw_data` out. What remains, the skeleton, is small and safe to parse; the weights stay where
//! they are and are found by the offset that the skeleton carries in their `doc_string`.

use ir::{Error, Result};

/// Deepest nesting of messages.
const MAX_DEPTH: usize = 96;
/// Raw data longer than this stays in the file.
const CUT: usize = 1024;

/// The message types that need to be told apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Sparse,
    Function,
    ValueInfo,
    Type,
    TypeTensor,
    TypeNested,
    Shape,
    /// Scalar and string fields only.
    Flat,
}

/// What to do with a length-delimited field.
enum Field {
    Nested(Message),
    /// Strings, bytes and packed numbers.
    Keep,
    Drop,
}

fn field(m: Message, number: u32) -> Field {
    use Field::*;
    use Message::*;
    match (m, number) {
        (Model, 7) => Nested(Graph),
        (Model, 8 | 14) => Nested(Flat),
        (Model, 25) => Nested(Function),
        (Model, 2..=6) => Keep,
        (Graph, 1) => Nested(Node),
        (Graph, 5) => Nested(Tensor),
        (Graph, 15) => Nested(Sparse),
        (Graph, 11..=13) => Nested(ValueInfo),
        (Graph, 2) => Keep,
        (Node, 5) => Nested(Attribute),
        (Node, 1..=4 | 7 | 8) => Keep,
        (Attribute, 5) => Nested(Tensor),
        (Attribute, 6) => Nested(Graph),
        (Attribute, 10) => Nested(Tensor),
        (Attribute, 11) => Nested(Graph),
        (Attribute, 14 | 15) => Nested(Type),
        (Attribute, 22 | 23) => Nested(Sparse),
        (Attribute, 1..=4 | 7..=9 | 21) => Keep,
        (Sparse, 1 | 2) => Nested(Tensor),
        (Sparse, 3) => Keep,
        (Tensor, 13) => Nested(Flat),
        (Tensor, 1 | 2 | 4..=11 | 14) => Keep,
        (Function, 7) => Nested(Node),
        (Function, 9) => Nested(Flat),
        (Function, 11) => Nested(Attribute),
        (Function, 1..=6 | 10 | 13) => Keep,
        (ValueInfo, 2) => Nested(Type),
        (ValueInfo, 1) => Keep,
        (Type, 1 | 8) => Nested(TypeTensor),
        (Type, 4 | 5 | 9) => Nested(TypeNested),
        (TypeTensor, 2) => Nested(Shape),
        (TypeNested, 1 | 2) => Nested(Type),
        (Shape, 1) => Nested(Flat),
        (Flat, _) => Keep,
        _ => Drop,
    }
}

/// A varint field that may be huge in count but never in size.
fn keeps_scalar(m: Message, number: u32) -> bool {
    !matches!((m, number), (Message::Model | Message::Graph, 16..))
}

struct Scanner<'a> {
    bytes: &'a [u8],
}

/// The skeleton of a `ModelProto`.
pub fn skeleton(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    Scanner { bytes }.message(Message::Model, 0, bytes.len(), 0, &mut out)?;
    Ok(out)
}

/// Offset and length that [`skeleton`] left in place of raw data.
pub fn cut_position(doc_string: &str) -> Option<(usize, usize)> {
    let (offset, len) = doc_string.strip_prefix("cut:")?.split_once(':')?;
    Some((offset.parse().ok()?, len.parse().ok()?))
}

impl Scanner<'_> {
    fn varint(&self, at: &mut usize, end: usize) -> Result<u64> {
        let mut v = 0u64;
        for shift in (0..70).step_by(7) {
            let b = *self.bytes.get(*at).filter(|_| *at < end).ok_or_else(|| truncated(*at))?;
            *at += 1;
            if shift == 63 && b > 1 {
                break;
            }
            v |= u64::from(b & 0x7f) << shift;
            if b < 0x80 {
                return Ok(v);
            }
        }
        Err(Error::model(format!("not an ONNX file: bad number at byte {at}")))
    }

    fn message(&self, m: Message, start: usize, end: usize, depth: usize, out: &mut Vec<u8>) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::limit(format!("messages nest deeper than {MAX_DEPTH} at byte {start}")));
        }
        let mut at = start;
        while at < end {
            let tag_at = at;
            let tag = self.varint(&mut at, end)?;
            let number = u32::try_from(tag >> 3).ok().filter(|&n| n > 0);
            let number = number
                .ok_or_else(|| Error::model(format!("not an ONNX file: bad field at byte {tag_at}")))?;
            match tag & 7 {
                0 => {
                    self.varint(&mut at, end)?;
                    if keeps_scalar(m, number) {
                        out.extend_from_slice(&self.bytes[tag_at..at]);
                    }
                }
                w @ (1 | 5) => {
                    let n = if w == 1 { 8 } else { 4 };
                    at = at.checked_add(n).filter(|&a| a <= end).ok_or_else(|| truncated(at))?;
                    out.extend_from_slice(&self.bytes[tag_at..at]);
                }
                2 => {
                    let len = self.varint(&mut at, end)?;
                    let stop =
                        usize::try_from(len).ok().and_then(|l| at.checked_add(l)).filter(|&s| s <= end);
                    let stop = stop.ok_or_else(|| truncated(at))?;
                    self.delimited(m, number, (tag_at, at, stop), depth, out)?;
                    at = stop;
                }
                _ => return Err(Error::model(format!("not an ONNX file: group at byte {tag_at}"))),
            }
        }
        Ok(())
    }

    fn delimited(
        &self,
        m: Message,
        number: u32,
        (tag_at, start, stop): (usize, usize, usize),
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        if m == Message::Tensor && number == 9 && stop - start > CUT {
            let note = format!("cut:{start}:{}", stop - start);
            put_delimited(12, note.as_bytes(), out);
            return Ok(());
        }
        match field(m, number) {
            Field::Keep => out.extend_from_slice(&self.bytes[tag_at..stop]),
            Field::Drop => {}
            Field::Nested(inner) => {
                let mut nested = Vec::new();
                self.message(inner, start, stop, depth + 1, &mut nested)?;
                put_delimited(number, &nested, out);
            }
        }
        Ok(())
    }
}

fn truncated(at: usize) -> Error {
    Error::model(format!("the file is cut short or not ONNX: byte {at} is past the end of its message"))
}

/// Appends a varint.
pub fn put_varint(mut v: u64, out: &mut Vec<u8>) {
    while v >= 0x80 {
        out.push((v as u8) | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

/// Appends a length-delimited field.
pub fn put_delimited(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3 | 2, out);
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_groups_are_refused() {
        // Field 100 as a start-group tag, 200,000 times: a recursive parser would overflow its stack.
        let bytes = [0xa3u8, 0x06].repeat(200_000);
        assert!(skeleton(&bytes).unwrap_err().message.contains("group"));
    }

    #[test]
    fn deep_graphs_are_refused() {
        let mut graph = Vec::new();
        for _ in 0..200 {
            let (mut attribute, mut node, mut outer) = (vec![], vec![], vec![]);
            put_delimited(6, &graph, &mut attribute);
            put_delimited(5, &attribute, &mut node);
            put_delimited(1, &node, &mut outer);
            graph = outer;
        }
        let mut model = Vec::new();
        put_delimited(7, &graph, &mut model);
        assert!(skeleton(&model).unwrap_err().message.contains("nest"));
    }

    #[test]
    fn raw_data_is_cut_and_found() {
        let (mut tensor, mut graph, mut model) = (vec![], vec![], vec![]);
        put_delimited(9, &[7u8; 5000], &mut tensor);
        put_delimited(5, &tensor, &mut graph);
        put_delimited(7, &graph, &mut model);
        let s = skeleton(&model).unwrap();
        assert!(s.len() < 64);
        let text = String::from_utf8_lossy(&s).into_owned();
        let (offset, len) = cut_position(&text[text.find("cut:").unwrap()..]).unwrap();
        assert_eq!(&model[offset..offset + len], &[7u8; 5000]);
    }

    #[test]
    fn every_truncation_is_an_error_or_a_shorter_message() {
        let (mut node, mut graph, mut model) = (vec![], vec![], vec![]);
        put_delimited(4, b"Relu", &mut node);
        put_delimited(1, &node, &mut graph);
        put_delimited(7, &graph, &mut model);
        for n in 1..model.len() {
            assert!(skeleton(&model[..n]).is_err(), "{n}");
        }
    }
}
