//! The only file that names onnx-protobuf: the message types, renamed where ours would collide.

pub use onnx_protobuf::attribute_proto::AttributeType;
pub use onnx_protobuf::tensor_proto::DataLocation;
pub use onnx_protobuf::tensor_shape_proto::dimension::Value as DimValue;
pub use onnx_protobuf::type_proto::Value as TypeValue;
pub use onnx_protobuf::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto,
    TypeProto, ValueInfoProto,
};

#[cfg(test)]
pub use onnx_protobuf::type_proto::{Optional as OptionalOf, Sequence as SequenceOf};

use ir::{Error, Result};
pub use onnx_protobuf::Message;

/// Parses a skeleton made by [`crate::wire::skeleton`].
pub fn parse(skeleton: &[u8]) -> Result<ModelProto> {
    ModelProto::parse_from_bytes(skeleton).map_err(|e| Error::model(format!("not an ONNX file: {e}")))
}
