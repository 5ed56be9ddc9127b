//! compress-onnx
