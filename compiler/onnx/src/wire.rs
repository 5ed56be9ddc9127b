//! Bounds-checked walk over the protobuf wire format, before any parser sees the bytes.
//!
//! It follows the ONNX message types, refuses groups, bad lengths, deep nesting and more items than memory should hold,
//! drops fields that are not part of the format or have another wire type than it says, and cuts large tensor data out.
//! What remains, the skeleton, is small and safe to parse; the weights stay where they are and are found by the position
//! that the skeleton carries in their `doc_string`.

use ir::{Error, Result, budget};

/// Deepest nesting of messages.
const MAX_DEPTH: usize = 96;
/// Tensor data longer than this stays in the file.
const CUT: usize = 1024;
/// Most memory the parsed skeleton may take, estimated from its items.
const MAX_PARSED: usize = 512 << 20;
/// What one string takes besides its bytes.
const STRING: usize = 24;

/// The message types of onnx.proto.
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
    /// `Tensor` and `SparseTensor` of a type.
    TypeTensor,
    /// `Sequence` and `Optional` of a type.
    TypeElement,
    TypeMap,
    Shape,
    Dimension,
    OpsetId,
    Entry,
}

/// What a field holds, and with it the wire types it may have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Nested(Message),
    /// A string or bytes.
    Text,
    Int,
    /// Repeated, packed or not.
    Ints,
    Float,
    Floats,
    Doubles,
    Drop,
}

fn field(m: Message, number: u32) -> Field {
    use Field::*;
    use Message::*;
    match (m, number) {
        (Model, 1 | 5) => Int,
        (Model, 2 | 3 | 4 | 6) => Text,
        (Model, 7) => Nested(Graph),
        (Model, 8) => Nested(OpsetId),
        (Model, 14) => Nested(Entry),
        (Model, 25) => Nested(Function),
        (Graph, 1) => Nested(Node),
        (Graph, 2) => Text,
        (Graph, 5) => Nested(Tensor),
        (Graph, 11..=13) => Nested(ValueInfo),
        (Graph, 15) => Nested(Sparse),
        (Node, 1..=4 | 7 | 8) => Text,
        (Node, 5) => Nested(Attribute),
        (Attribute, 1 | 4 | 9 | 21) => Text,
        (Attribute, 2) => Float,
        (Attribute, 3 | 20) => Int,
        (Attribute, 5 | 10) => Nested(Tensor),
        (Attribute, 6 | 11) => Nested(Graph),
        (Attribute, 7) => Floats,
        (Attribute, 8) => Ints,
        (Attribute, 14 | 15) => Nested(Type),
        (Attribute, 22 | 23) => Nested(Sparse),
        (Tensor, 1 | 5 | 7 | 11) => Ints,
        (Tensor, 2 | 14) => Int,
        (Tensor, 4) => Floats,
        (Tensor, 6 | 8 | 9) => Text,
        (Tensor, 10) => Doubles,
        (Tensor, 13) => Nested(Entry),
        (Sparse, 1 | 2) => Nested(Tensor),
        (Sparse, 3) => Ints,
        (Function, 1 | 4 | 5 | 6 | 10 | 13) => Text,
        (Function, 7) => Nested(Node),
        (Function, 9) => Nested(OpsetId),
        (Function, 11) => Nested(Attribute),
        (ValueInfo, 1) => Text,
        (ValueInfo, 2) => Nested(Type),
        (Type, 1 | 8) => Nested(TypeTensor),
        (Type, 4 | 9) => Nested(TypeElement),
        (Type, 5) => Nested(TypeMap),
        (TypeTensor, 1) => Int,
        (TypeTensor, 2) => Nested(Shape),
        (TypeElement, 1) => Nested(Type),
        (TypeMap, 1) => Int,
        (TypeMap, 2) => Nested(Type),
        (Shape, 1) => Nested(Dimension),
        (Dimension, 1) => Int,
        (Dimension, 2) => Text,
        (OpsetId, 1) => Text,
        (OpsetId, 2) => Int,
        (Entry, 1 | 2) => Text,
        _ => Drop,
    }
}

/// About what one parsed message takes in memory, in the parser's form and in the graph made from it.
fn size(m: Message) -> usize {
    use Message::*;
    match m {
        Model | Graph | Node | Attribute | Tensor | Sparse | Function => 800,
        ValueInfo | Type | TypeTensor | TypeElement | TypeMap | Shape => 200,
        Dimension | OpsetId | Entry => 100,
    }
}

/// Where a tensor's data is: the field it stands in, its offset in the file, its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub field: u32,
    pub offset: usize,
    pub len: usize,
}

impl Cut {
    /// The position that [`skeleton`] left in place of a tensor's data.
    pub fn find(doc_string: &str) -> Option<Cut> {
        let mut parts = doc_string.strip_prefix("cut:")?.split(':');
        let mut part = || parts.next();
        Some(Cut { field: part()?.parse().ok()?, offset: part()?.parse().ok()?, len: part()?.parse().ok()? })
    }
}

struct Scanner<'a> {
    bytes: &'a [u8],
    parsed: usize,
}

/// A field's tag and, for delimited ones, its content.
#[derive(Clone, Copy)]
struct Span {
    tag: usize,
    start: usize,
    end: usize,
}

/// The skeleton of a `ModelProto`.
pub fn skeleton(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    Scanner { bytes, parsed: 0 }.message(Message::Model, 0, bytes.len(), 0, &mut out)?;
    Ok(out)
}

/// The integers of a packed field.
pub fn packed(bytes: &[u8]) -> Result<Vec<u64>> {
    let count = bytes.iter().filter(|b| **b < 0x80).count();
    let mut values = budget::vec(count)?;
    let (scanner, mut at) = (Scanner { bytes, parsed: 0 }, 0);
    while at < bytes.len() {
        values.push(scanner.varint(&mut at, bytes.len())?);
    }
    Ok(values)
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

    fn charge(&mut self, bytes: usize) -> Result<()> {
        self.parsed = self.parsed.saturating_add(bytes);
        if self.parsed > MAX_PARSED {
            return Err(Error::limit("the file has too many nodes, attributes, types or inline values"));
        }
        Ok(())
    }

    fn message(
        &mut self,
        m: Message,
        start: usize,
        end: usize,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::limit(format!("messages nest deeper than {MAX_DEPTH} at byte {start}")));
        }
        self.charge(size(m))?;
        let mut cut = None;
        let mut at = start;
        while at < end {
            let tag_at = at;
            let tag = self.varint(&mut at, end)?;
            let number = u32::try_from(tag >> 3).ok().filter(|&n| n > 0);
            let number = number
                .ok_or_else(|| Error::model(format!("not an ONNX file: bad field at byte {tag_at}")))?;
            let kind = field(m, number);
            let body = at;
            let fixed = |n: usize| body.checked_add(n).filter(|&a| a <= end).ok_or_else(|| truncated(body));
            let scalar = match tag & 7 {
                0 => {
                    self.varint(&mut at, end)?;
                    matches!(kind, Field::Int | Field::Ints)
                }
                1 => {
                    at = fixed(8)?;
                    kind == Field::Doubles
                }
                5 => {
                    at = fixed(4)?;
                    matches!(kind, Field::Float | Field::Floats)
                }
                2 => {
                    let len = self.varint(&mut at, end)?;
                    let stop =
                        usize::try_from(len).ok().and_then(|l| at.checked_add(l)).filter(|&s| s <= end);
                    let span = Span { tag: tag_at, start: at, end: stop.ok_or_else(|| truncated(at))? };
                    at = span.end;
                    if m == Message::Tensor && is_data(number) && span.end - span.start > CUT {
                        let position = Cut { field: number, offset: span.start, len: span.end - span.start };
                        if cut.replace(position).is_some() {
                            return Err(Error::model(format!("tensor data in pieces at byte {tag_at}")));
                        }
                    } else {
                        self.delimited(kind, number, span, depth, out)?;
                    }
                    false
                }
                _ => return Err(Error::model(format!("not an ONNX file: group at byte {tag_at}"))),
            };
            if scalar {
                self.charge(8)?;
                out.extend_from_slice(&self.bytes[tag_at..at]);
            }
        }
        if let Some(Cut { field, offset, len }) = cut {
            put_delimited(DOC_STRING, format!("cut:{field}:{offset}:{len}").as_bytes(), out);
        }
        Ok(())
    }

    fn delimited(
        &mut self,
        kind: Field,
        number: u32,
        span: Span,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let len = span.end - span.start;
        match kind {
            Field::Nested(inner) => {
                let mut nested = Vec::new();
                self.message(inner, span.start, span.end, depth + 1, &mut nested)?;
                put_delimited(number, &nested, out);
                return Ok(());
            }
            Field::Text => self.charge(len.saturating_add(STRING))?,
            Field::Ints => self.charge(len.saturating_mul(8))?,
            Field::Floats | Field::Doubles => self.charge(len)?,
            Field::Int | Field::Float | Field::Drop => return Ok(()),
        }
        out.extend_from_slice(&self.bytes[span.tag..span.end]);
        Ok(())
    }
}

const DOC_STRING: u32 = 12;

/// Fields of a tensor that hold its elements (strings excepted).
fn is_data(number: u32) -> bool {
    matches!(number, 4 | 5 | 7 | 9 | 10 | 11)
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
        let cut = Cut::find(&text[text.find("cut:").unwrap()..]).unwrap();
        assert_eq!(cut.field, 9);
        assert_eq!(&model[cut.offset..cut.offset + cut.len], &[7u8; 5000]);
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

    #[test]
    fn item_bombs_are_refused() {
        // Two bytes of file per empty node, 3 MB in all.
        let nodes = [0x0au8, 0].repeat(1_500_000);
        let mut model = Vec::new();
        put_delimited(7, &nodes, &mut model);
        assert_eq!(skeleton(&model).unwrap_err().blame, ir::Blame::Limit);
    }

    #[test]
    fn unknown_fields_and_wrong_wire_types_are_dropped() {
        let mut model = Vec::new();
        put_delimited(1, b"a version is no string", &mut model);
        put_delimited(99, b"unknown", &mut model);
        put_varint(99 << 3 | 5, &mut model);
        model.extend([0; 4]);
        assert!(skeleton(&model).unwrap().is_empty());
    }

    #[test]
    fn data_in_pieces_is_refused() {
        let (mut tensor, mut graph, mut model) = (vec![], vec![], vec![]);
        put_delimited(9, &[7u8; 5000], &mut tensor);
        put_delimited(4, &[7u8; 5000], &mut tensor);
        put_delimited(5, &tensor, &mut graph);
        put_delimited(7, &graph, &mut model);
        assert!(skeleton(&model).is_err());
    }

    #[test]
    fn packed_numbers_come_back() {
        let mut bytes = Vec::new();
        let values = [0, 1, 127, 128, u64::MAX, (-3i64).cast_unsigned()];
        values.iter().for_each(|v| put_varint(*v, &mut bytes));
        assert_eq!(packed(&bytes).unwrap(), values);
        assert!(packed(&bytes[..bytes.len() - 1]).is_err());
    }
}
