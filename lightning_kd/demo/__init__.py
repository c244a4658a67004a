"""The whole path on handwritten digits without a download; needs the extras report, onnx, openvino and coreml."""
