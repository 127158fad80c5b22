"""ONNX in and out. What needs the ``onnx`` package imports it there: the method itself does not."""
