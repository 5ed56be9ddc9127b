//! From text to the tree.

use super::lex::{Place, Token, tokens};
use super::syntax::{AttrText, Formal, GraphText, NodeText, Source, reserved};
use super::{SideTable, error_at, fill, literal};
use crate::{Attr, DType, Dim, Error, Meta, Result, Tensor, TensorType, ValueType};

/// Deepest nesting of subgraphs and of types.
const MAX_DEPTH: usize = 32;

/// A graph, with what an optional model header says.
pub fn model(text: &str, table: &SideTable) -> Result<(Meta, GraphText)> {
    let mut p = Parser { tokens: tokens(text)?, at: 0, table, depth: 0 };
    let meta = if p.accept('<') { p.header()? } else { Meta::default() };
    let g = p.graph()?;
    match p.peek() {
        Token::End => Ok((meta, g)),
        t => Err(p.error(format!("expected the end, found {t:?}"))),
    }
}

struct Parser<'a> {
    tokens: Vec<(Token, Place)>,
    at: usize,
    table: &'a SideTable,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |t| &t.0)
    }
    fn peek_after(&self) -> &Token {
        self.tokens.get(self.at + 1).map_or(&Token::End, |t| &t.0)
    }
    fn place(&self) -> Place {
        let last = self.tokens.len().saturating_sub(1);
        self.tokens.get(self.at.min(last)).map_or(Place { line: 1, column: 1 }, |t| t.1)
    }
    fn error(&self, message: impl std::fmt::Display) -> Error {
        error_at(self.place(), message)
    }
    fn next(&mut self) -> Token {
        let t = self.peek().clone();
        self.at += 1;
        t
    }
    fn is(&self, c: char) -> bool {
        *self.peek() == Token::Mark(c)
    }
    fn accept(&mut self, c: char) -> bool {
        let yes = self.is(c);
        self.at += usize::from(yes);
        yes
    }
    fn expect(&mut self, c: char) -> Result<()> {
        if self.accept(c) {
            Ok(())
        } else {
            Err(self.error(format!("expected '{c}', found {:?}", self.peek())))
        }
    }
    /// Puts the place into errors of a part that knows none.
    fn located<T>(&self, place: Place, r: Result<T>) -> Result<T> {
        r.map_err(|e| Error { message: error_at(place, &e.message).message, ..e })
    }
    fn deeper<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth >= MAX_DEPTH {
            return Err(Error::limit(format!("nests deeper than {MAX_DEPTH}")));
        }
        self.depth += 1;
        let r = f(self);
        self.depth -= 1;
        r
    }

    /// Items with commas between, up to `end`, which is consumed.
    fn list<T>(&mut self, end: char, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut out = Vec::new();
        while !self.accept(end) {
            out.push(item(self)?);
            if !self.is(end) {
                self.expect(',')?;
            }
        }
        Ok(out)
    }

    fn name(&mut self) -> Result<String> {
        let (Token::Word(s) | Token::Str(s)) = self.peek() else {
            return Err(self.error(format!("expected a name, found {:?}", self.peek())));
        };
        let s = s.clone();
        self.at += 1;
        Ok(s)
    }

    fn string(&mut self) -> Result<String> {
        match self.next() {
            Token::Str(s) => Ok(s),
            t => Err(self.error(format!("expected a string, found {t:?}"))),
        }
    }

    fn number<T: std::str::FromStr>(&mut self) -> Result<T> {
        let place = self.place();
        let t = self.next();
        self.located(place, literal::number(&t))
    }

    /// `"key": value` pairs in brackets.
    fn pairs<T>(&mut self, value: impl Fn(&mut Self) -> Result<T>) -> Result<Vec<(String, T)>> {
        self.expect('[')?;
        self.list(']', |p| {
            let key = p.string()?;
            p.expect(':')?;
            Ok((key, value(p)?))
        })
    }

    fn header(&mut self) -> Result<Meta> {
        let mut meta = Meta::default();
        self.list('>', |p| {
            let key = p.name()?;
            p.expect(':')?;
            match key.as_str() {
                "opset_import" => {
                    let versions = p.pairs(|p| p.number::<i64>())?;
                    let standard = versions.iter().find(|(d, _)| d.is_empty() || d == "ai.onnx");
                    meta.opset = standard.map_or(0, |v| v.1);
                }
                "producer_name" => meta.producer = p.string()?,
                "doc_string" => meta.doc = p.string()?,
                "metadata_props" => meta.properties = p.pairs(Self::string)?.into_iter().collect(),
                "ir_version" | "model_version" => {
                    p.number::<i64>()?;
                }
                "domain" | "producer_version" => {
                    p.string()?;
                }
                k => return Err(p.error(format!("unknown field '{k}'"))),
            }
            Ok(())
        })?;
        Ok(meta)
    }

    fn graph(&mut self) -> Result<GraphText> {
        self.deeper(|p| {
            let name = p.name()?;
            p.expect('(')?;
            let inputs = p.list(')', Self::formal)?;
            if p.next() != Token::Arrow {
                p.at -= 1;
                return Err(p.error("expected '=>'"));
            }
            p.expect('(')?;
            let outputs = p.list(')', |p| {
                let f = p.formal()?;
                let value = if p.accept('=') { p.name()? } else { f.name.clone() };
                Ok((f, value))
            })?;
            let values = if p.accept('<') { p.list('>', Self::declared)? } else { Vec::new() };
            p.expect('{')?;
            let mut nodes = Vec::new();
            while !p.accept('}') {
                nodes.push(p.node()?);
            }
            Ok(GraphText { name, inputs, outputs, values, nodes })
        })
    }

    /// True before a type: its first word is reserved, and no quotes are around it.
    fn at_type(&self) -> bool {
        matches!(self.peek(), Token::Word(w) if reserved(w)) || self.is('?')
    }

    fn formal(&mut self) -> Result<Formal> {
        let place = self.place();
        let ty = if self.at_type() { self.value_type()? } else { ValueType::Unknown };
        Ok(Formal { name: self.name()?, ty, place })
    }

    /// An entry of the list after the outputs: an initializer, a capture or the type of a node's output.
    fn declared(&mut self) -> Result<(Formal, Source)> {
        let f = self.formal()?;
        if !self.accept('=') {
            return Ok((f, Source::Node));
        }
        if let (Token::Mark('['), Token::Str(key)) = (self.peek(), self.peek_after())
            && key == "capture"
        {
            let place = self.place();
            let pairs = self.pairs(Self::string)?;
            let number = pairs.first().and_then(|(_, n)| n.parse().ok());
            let number = number.ok_or_else(|| error_at(place, "a capture is named by its number"))?;
            return Ok((f, Source::Capture(number)));
        }
        let t = self.data(&f.ty)?;
        Ok((f, Source::Data(t)))
    }

    /// Elements in braces, or where they are to be found.
    fn data(&mut self, ty: &ValueType) -> Result<Tensor> {
        let place = self.place();
        let (Some(dtype), Some(shape)) = (ty.dtype(), ty.concrete()) else {
            return Err(self.error(format!("a tensor needs a type and a fixed shape, has {ty}")));
        };
        if self.accept('{') {
            let items = self.list('}', |p| Ok(p.next()))?;
            return self.located(place, literal::parse(dtype, &shape, &items));
        }
        let pairs = self.pairs(Self::string)?;
        let location = pairs.iter().find(|(k, _)| k == "location").map(|(_, v)| v.as_str());
        let location = location.ok_or_else(|| error_at(place, "no \"location\" is given"))?;
        if let Some(spec) = location.strip_prefix("fill:") {
            return self.located(place, fill::tensor(spec, dtype, &shape));
        }
        let t = self.table.get(location);
        let t = t.ok_or_else(|| error_at(place, format!("no tensor {location:?} in the side table")))?;
        if t.dtype() != dtype || t.shape() != &shape[..] {
            return Err(error_at(place, format!("{location:?} holds {}, not {ty}", ValueType::of(t))));
        }
        Ok(t.clone())
    }

    fn value_type(&mut self) -> Result<ValueType> {
        self.deeper(|p| {
            if p.accept('?') {
                return Ok(ValueType::Unknown);
            }
            let word = p.name()?;
            if let "seq" | "optional" = word.as_str() {
                p.expect('(')?;
                let inner = Box::new(p.value_type()?);
                p.expect(')')?;
                return Ok(if word == "seq" {
                    ValueType::Sequence(inner)
                } else {
                    ValueType::Optional(inner)
                });
            }
            let dtype = DType::from_name(&word).ok_or_else(|| p.error(format!("'{word}' is not a type")))?;
            if !p.accept('[') {
                return Ok(ValueType::known(dtype, &[]));
            }
            let dims = p.list(']', Self::dim)?;
            Ok(ValueType::Tensor(TensorType { dtype, shape: (!dims.is_empty()).then_some(dims) }))
        })
    }

    fn dim(&mut self) -> Result<Dim> {
        if self.accept('?') {
            return Ok(Dim::Unknown);
        }
        match self.peek() {
            Token::Number(_) => Ok(Dim::Known(self.number()?)),
            _ => Ok(Dim::symbol(&self.name()?)),
        }
    }

    fn node(&mut self) -> Result<NodeText> {
        let place = self.place();
        let mut name = String::new();
        if self.accept('[') {
            name = self.name()?;
            self.expect(']')?;
        }
        let outputs = self.list('=', Self::name)?;
        let mut parts = vec![self.name()?];
        while self.accept('.') {
            parts.push(self.name()?);
        }
        let op = parts.pop().unwrap_or_default();
        let domain = match parts.join(".") {
            d if d == "ir" => "ir.".to_string(),
            d => d,
        };
        let mut attrs = if self.accept('<') { self.list('>', Self::attribute)? } else { Vec::new() };
        self.expect('(')?;
        // Nothing between two commas is an absent input.
        let inputs = self.list(')', |p| if p.is(',') { Ok(String::new()) } else { p.name() })?;
        if attrs.is_empty() && self.accept('<') {
            attrs = self.list('>', Self::attribute)?;
        }
        attrs.sort_by(|a, b| a.0.cmp(&b.0));
        if let Some(w) = attrs.windows(2).find(|w| w[0].0 == w[1].0) {
            return Err(error_at(place, format!("attribute '{}' is given twice", w[0].0)));
        }
        Ok(NodeText { place, name, outputs, domain, op, inputs, attrs })
    }

    fn attribute(&mut self) -> Result<(String, AttrText)> {
        let name = self.name()?;
        let kind = if self.accept(':') { self.name()? } else { String::new() };
        self.expect('=')?;
        let kind = if kind.is_empty() { self.guess()? } else { kind };
        let plain = |a: Attr| AttrText::Plain(a);
        let value = match kind.as_str() {
            "int" => plain(Attr::Int(self.number()?)),
            "float" => plain(Attr::Float(self.number()?)),
            "string" => plain(Attr::Str(self.string()?)),
            "tensor" => plain(Attr::Tensor(self.tensor()?)),
            "type_proto" => plain(Attr::Type(self.value_type()?)),
            "graph" => AttrText::Graph(Box::new(self.graph()?)),
            "ints" => plain(Attr::Ints(self.items(Self::number)?)),
            "floats" => plain(Attr::Floats(self.items(Self::number)?)),
            "strings" => plain(Attr::Strs(self.items(Self::string)?)),
            "tensors" => plain(Attr::Tensors(self.items(Self::tensor)?)),
            "type_protos" => plain(Attr::Types(self.items(Self::value_type)?)),
            "graphs" => AttrText::Graphs(self.items(Self::graph)?),
            k => return Err(self.error(format!("'{k}' is not a kind of attribute"))),
        };
        Ok((name, value))
    }

    fn items<T>(&mut self, item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        self.expect('[')?;
        self.list(']', item)
    }

    /// The kind of an attribute that does not say it.
    fn guess(&self) -> Result<String> {
        let one = |t: &Token| match t {
            Token::Number(s) if s.parse::<i64>().is_ok() => Some("int"),
            Token::Number(_) => Some("float"),
            Token::Word(w) if DType::from_name(w).is_some() => Some("tensor"),
            Token::Word(w) if reserved(w) => Some("float"),
            Token::Word(_) => Some("graph"),
            Token::Str(_) => Some("string"),
            _ => None,
        };
        let kind = match (self.peek(), self.peek_after()) {
            (Token::Mark('['), Token::Mark(']')) => Some("ints".to_string()),
            (Token::Mark('['), t) => one(t).map(|k| format!("{k}s")),
            // A graph may have a quoted name.
            (Token::Str(_), Token::Mark('(')) => Some("graph".to_string()),
            (t, _) => one(t).map(str::to_string),
        };
        kind.ok_or_else(|| self.error(format!("expected a value, found {:?}", self.peek())))
    }

    /// A tensor as an attribute: type, an optional name, elements.
    fn tensor(&mut self) -> Result<Tensor> {
        let ty = self.value_type()?;
        if matches!(self.peek(), Token::Word(_) | Token::Str(_)) {
            self.next();
        }
        self.accept('=');
        self.data(&ty)
    }
}
