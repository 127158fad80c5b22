"""Import from and export to ONNX.

Only modules in here import the ``onnx`` package, and other code imports them where it uses them, so
the method works without the package.
"""
