"""Export to TensorRT 10 and 11: a complete engine input, and the engine itself where there is a GPU.

`exporter` makes and checks the engine input. `options`, `engine`, `inspector` and `build` make the engine; they are
copied into every export and run on its target, so they need nothing but Python 3.10 and TensorRT.
"""
