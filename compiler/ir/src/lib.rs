//! The intermediate representation: graph, tensors, types, the operator trait, text form, inference, verifier and the reference walk.
#![deny(unsafe_code)]

mod attr;
pub mod budget;
mod dtype;
mod error;
mod evaluate;
mod graph;
mod infer;
mod kind;
pub mod minifloat;
mod operator;
mod tensor;
pub mod text;
mod types;
mod verify;

pub use attr::{Attr, Attrs};
pub use dtype::DType;
pub use error::{Blame, Error, Result};
pub use evaluate::{Evaluate, Feeds, Outcome, Reference, run_subgraph, too_few_results};
pub use graph::{Def, Graph, Meta, Node, NodeId, Output, Port, Use, ValueId};
pub use infer::{forget_shapes, infer, infer_node, infer_values, infer_with};
pub use kind::{Binary, Expr, Kind, Unary};
pub use operator::{
    Accuracy, Arity, AttrFormal, AttrKind, EvalCx, Formal, InferCx, InferSubgraph, Lookup, Operator,
    RunSubgraph, Signature, Types, check_form, qualified,
};
pub use tensor::{Bytes, Element, Shape, Tensor};
pub use types::{Dim, TensorType, Value, ValueType};
pub use verify::verify;
