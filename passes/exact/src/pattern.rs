//! Patterns over e-nodes: read from text, matched by backtracking over a short list of steps, instantiated.

use crate::facts::Egraph;
use crate::language::{ENode, OpId, Symbol};
use egg::Id;
use smallvec::SmallVec;

/// A pattern as it is written: `(Mul ?a (Relu ?b ?x) _)`, or `(Concat ?a ...)` where any number of inputs follow.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Term {
    Var(&'static str),
    Node(Symbol, Vec<Term>),
    Rest,
}

impl Term {
    /// Levels below this term.
    fn depth(&self) -> usize {
        match self {
            Term::Var(_) | Term::Rest => 0,
            Term::Node(_, children) => children.iter().map(|c| 1 + c.depth()).max().unwrap_or(0),
        }
    }
}

/// Classes that a match bound, by register.
pub type Registers = SmallVec<[Id; 16]>;

#[derive(Debug, Clone, Copy)]
enum Step {
    /// For each node of this symbol and arity in the class of a register: its children become the next registers.
    Node { at: usize, symbol: Symbol, arity: Arity, out: usize },
    /// Both registers hold one class.
    Same(usize, usize),
}

#[derive(Debug, Clone, Copy)]
enum Arity {
    Exactly(usize),
    AtLeast(usize),
}

impl Arity {
    fn fits(self, children: usize) -> bool {
        match self {
            Arity::Exactly(n) => children == n,
            Arity::AtLeast(n) => children >= n,
        }
    }
}

/// The nodes of every class of a rebuilt e-graph by the number of the class: their children are canonical, so that matching
/// asks neither union-find nor a hash table.
pub struct Classes<'a> {
    nodes: Vec<&'a [ENode]>,
    /// Operators that are somewhere, by number.
    present: Vec<bool>,
}

impl<'a> Classes<'a> {
    /// `egraph` must be rebuilt.
    pub fn of(egraph: &'a Egraph) -> Classes<'a> {
        let count = egraph.classes().map(|c| usize::from(c.id) + 1).max().unwrap_or(0);
        let (mut nodes, mut present): (Vec<&[ENode]>, _) = (vec![&[]; count], vec![false; OpId::count()]);
        for c in egraph.classes() {
            nodes[usize::from(c.id)] = &c.nodes;
            for n in &c.nodes {
                if let Symbol::Op(op) = n.symbol {
                    present[op.index()] = true;
                }
            }
        }
        Classes { nodes, present }
    }

    fn nodes(&self, class: Id) -> &'a [ENode] {
        self.nodes.get(usize::from(class)).copied().unwrap_or_default()
    }
}

/// A left side, ready to match.
#[derive(Debug)]
pub struct Left {
    steps: Vec<Step>,
    /// Levels below the root of what is bound lowest.
    depth: usize,
    vars: Vec<(&'static str, usize)>,
    /// The first register of `...`: it and all after it are bound by that.
    rest: Option<usize>,
}

/// A right side, ready to be built: terms over the registers of a left side.
#[derive(Debug)]
pub enum Template {
    Register(usize),
    Node(Symbol, Vec<Template>),
}

impl Left {
    /// Reads a pattern; an error when it names an operator that does not exist, or is a variable alone.
    pub fn parse(text: &'static str) -> Result<Left, String> {
        let whole = term(text)?;
        let depth = whole.depth();
        let Term::Node(root, children) = whole else {
            return Err(format!("pattern {text} matches everything"));
        };
        let mut left = Left { steps: Vec::new(), depth, vars: Vec::new(), rest: None };
        let mut next = 1;
        left.node(0, root, &children, &mut next);
        let last = left.steps.iter().rev().find(|s| matches!(s, Step::Node { .. }));
        match (left.rest, last) {
            (Some(_), Some(Step::Node { arity: Arity::Exactly(_), .. })) => {
                Err(format!("in {text} more is matched after '...'"))
            }
            _ => Ok(left),
        }
    }

    fn node(&mut self, at: usize, symbol: Symbol, children: &[Term], next: &mut usize) {
        let out = *next;
        let (children, arity) = match children.split_last() {
            Some((Term::Rest, first)) => (first, Arity::AtLeast(first.len())),
            _ => (children, Arity::Exactly(children.len())),
        };
        *next += children.len();
        self.steps.push(Step::Node { at, symbol, arity, out });
        if matches!(arity, Arity::AtLeast(_)) {
            self.rest = Some(*next);
        }
        // What can fail at once comes before what has to be searched.
        for (i, c) in children.iter().enumerate() {
            match c {
                Term::Var(v) => match self.register(v) {
                    Some(r) => self.steps.push(Step::Same(r, out + i)),
                    None => self.vars.push((v, out + i)),
                },
                Term::Node(s, c) if c.is_empty() => self.node(out + i, *s, c, next),
                Term::Node(..) | Term::Rest => {}
            }
        }
        for (i, c) in children.iter().enumerate() {
            if let Term::Node(s, c) = c
                && !c.is_empty()
            {
                self.node(out + i, *s, c, next);
            }
        }
    }

    /// Levels below the root that a match reads.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Whether all operators of the pattern are somewhere in the e-graph.
    pub fn possible(&self, classes: &Classes) -> bool {
        self.steps.iter().all(|s| match s {
            Step::Node { symbol: Symbol::Op(op), .. } => classes.present[op.index()],
            _ => true,
        })
    }

    /// Register of a variable.
    pub fn register(&self, var: &str) -> Option<usize> {
        self.vars.iter().find(|(v, _)| *v == var).map(|v| v.1)
    }

    /// The first register of what `...` stands for.
    pub fn rest(&self) -> Option<usize> {
        self.rest
    }

    /// Appends the matches at `class` until `found` has `most`: in a class of n nodes of itself a pattern of two of them has
    /// n² matches.
    pub fn matches(&self, classes: &Classes, class: Id, most: usize, found: &mut Vec<Registers>) {
        let mut registers = Registers::new();
        registers.push(class);
        run(classes, &self.steps, &mut registers, most, found);
    }
}

fn run(
    classes: &Classes,
    steps: &[Step],
    registers: &mut Registers,
    most: usize,
    found: &mut Vec<Registers>,
) {
    if found.len() >= most {
        return;
    }
    let Some((step, rest)) = steps.split_first() else {
        found.push(registers.clone());
        return;
    };
    match *step {
        Step::Same(a, b) => {
            if registers[a] == registers[b] {
                run(classes, rest, registers, most, found);
            }
        }
        Step::Node { at, symbol, arity, out } => {
            for n in classes.nodes(registers[at]) {
                if n.symbol == symbol && arity.fits(n.children.len()) {
                    registers.truncate(out);
                    registers.extend_from_slice(&n.children);
                    run(classes, rest, registers, most, found);
                }
            }
        }
    }
}

impl Template {
    /// Reads a right side over the variables of `left`.
    pub fn parse(text: &'static str, left: &Left) -> Result<Template, String> {
        Template::of(term(text)?, left)
    }

    fn of(t: Term, left: &Left) -> Result<Template, String> {
        Ok(match t {
            Term::Var(v) => {
                Template::Register(left.register(v).ok_or_else(|| format!("{v} is not on the left side"))?)
            }
            Term::Node(s, c) => {
                Template::Node(s, c.into_iter().map(|c| Template::of(c, left)).collect::<Result<_, _>>()?)
            }
            Term::Rest => return Err("'...' is for left sides".into()),
        })
    }

    /// The class of the instance, added where it is not there yet.
    pub fn build(&self, egraph: &mut Egraph, registers: &[Id]) -> Id {
        match self {
            Template::Register(r) => registers[*r],
            Template::Node(symbol, children) => {
                let children = children.iter().map(|c| c.build(egraph, registers)).collect();
                egraph.add(ENode { symbol: *symbol, children })
            }
        }
    }
}

/// Reads one term and nothing after it.
fn term(text: &'static str) -> Result<Term, String> {
    let mut rest = text;
    let t = read(&mut rest)?;
    if rest.trim().is_empty() { Ok(t) } else { Err(format!("'{rest}' after the end of {text}")) }
}

fn read(rest: &mut &'static str) -> Result<Term, String> {
    *rest = rest.trim_start();
    let Some(inside) = rest.strip_prefix('(') else {
        let name = word(rest);
        return if name == "..." {
            Ok(Term::Rest)
        } else if name.starts_with('?') {
            Ok(Term::Var(name))
        } else {
            Ok(Term::Node(symbol(name)?, vec![]))
        };
    };
    *rest = inside;
    let name = word(rest);
    let mut children = Vec::new();
    loop {
        *rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix(')') {
            *rest = after;
            return Ok(Term::Node(symbol(name)?, children));
        }
        if rest.is_empty() {
            return Err("a parenthesis is not closed".into());
        }
        if children.last() == Some(&Term::Rest) {
            return Err("something follows '...'".into());
        }
        children.push(read(rest)?);
    }
}

fn word(rest: &mut &'static str) -> &'static str {
    let end = rest.find(|c: char| c.is_whitespace() || c == '(' || c == ')').unwrap_or(rest.len());
    let (name, after) = rest.split_at(end);
    *rest = after;
    name
}

/// Patterns name operators as they are printed: `Conv`, `ir.FusedConv`, and `_` for an absent input.
fn symbol(name: &str) -> Result<Symbol, String> {
    if name == "_" { Ok(Symbol::Absent) } else { OpId::named(name).map(Symbol::Op) }
}
