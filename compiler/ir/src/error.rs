//! One error type, sorted by whose fault it is; every message names the place and the next step.

use std::fmt;

/// Who has to act on an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The model breaks a rule of its format or of an operator.
    Model,
    /// Valid, but not implemented here.
    Unsupported,
    /// A size or count is above the configured budget.
    Limit,
    /// The data handed to the model does not fit it.
    Data,
    /// An invariant of this program broke: a bug worth reporting.
    Internal,
}

/// An error with its place: node, operator and tensor where they are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub blame: Blame,
    pub node: Option<String>,
    pub op: Option<String>,
    pub tensor: Option<String>,
    pub message: String,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    fn new(blame: Blame, message: impl Into<String>) -> Self {
        Error { blame, node: None, op: None, tensor: None, message: message.into() }
    }
    pub fn model(message: impl Into<String>) -> Self {
        Self::new(Blame::Model, message)
    }
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Blame::Unsupported, message)
    }
    pub fn limit(message: impl Into<String>) -> Self {
        Self::new(Blame::Limit, message)
    }
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(Blame::Data, message)
    }
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Blame::Internal, message)
    }
    /// Adds the node and operator unless an inner scope already named them.
    pub fn at(mut self, node: &str, op: &str) -> Self {
        if self.op.is_none() {
            self.node = Some(node.to_string());
            self.op = Some(op.to_string());
        }
        self
    }
    pub fn tensor(mut self, name: impl Into<String>) -> Self {
        self.tensor.get_or_insert(name.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.node, &self.op) {
            (Some(n), Some(o)) if !n.is_empty() => write!(f, "node '{}' ({o}): ", n.escape_debug())?,
            (_, Some(o)) => write!(f, "{o}: ")?,
            _ => {}
        }
        if let Some(t) = &self.tensor {
            write!(f, "tensor '{}': ", t.escape_debug())?;
        }
        match self.blame {
            Blame::Unsupported => write!(f, "unsupported: {}", self.message),
            Blame::Internal => write!(f, "internal error: {}", self.message),
            _ => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Error {}
