"""What a runtime makes of a network, told beforehand: a trace of the torch module, and each runtime's rules over it.

    trace     torch module -> ops with shapes                       (calls: what each of torch's functions is called with)
    onnx_*    ops -> ONNX's, onnxruntime's fusions, then `nchwc`, its blocked layout
    tflite_*  ops -> TFLite's, the converter's simplifications, with `layout`: where images have their channels last
    xnnpack   what XNNPACK folds and splits
    rules     what fuses with what, as data

The rules were found by running the runtimes and are held against them by tests; where none is known for an op, there is
an error and no list.
"""

from __future__ import annotations
