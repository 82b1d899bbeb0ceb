"""Describe the bit-widths of a student for its model card. In: the student's network and its library. Out: Markdown, empty in float32."""

from __future__ import annotations

from collections import Counter

from torch import nn

from kd_env.models.low_bit import layers_of
from kd_env.models.low_bit_files import FILE

RESTORE = """```python
from kd_env.models.low_bit_files import restore

restore(classify.model, "PATH OF THIS FOLDER")
```"""


def low_bit_section(network: nn.Module, library: str) -> str:
    """Return the section: bits and sizes of the quantised layers, and how to open the student with quantised inputs.

    Args:
        network: network of the student, as it was read from its folder.
        library: library that opens the folder, ``transformers`` or ``kd-env``.
    """
    layers, weights = Counter[int](), Counter[int]()
    for _, layer in layers_of(network):
        bits = layer.weight_quantizer.bits
        layers[bits] += 1
        weights[bits] += layer.weight.numel()
    if not layers:
        return ""
    rows = [f"| {bits} | {layers[bits]} | {weights[bits]:,} | {weights[bits] * bits / 8e6:.3f} |" for bits in sorted(layers)]
    text = [
        "Weights and inputs of these layers are multiples of step sizes that were learned. Embeddings, norms and biases are in float32.",
        "All scores of this card are of the quantised student.",
        f"`model.safetensors` has the quantised weights as float32, and `{FILE}` the steps.",
    ]
    lines = ["| bits | layers | weights | MB if packed |", "| --- | --- | --- | --- |", *rows, "", *text]
    if library == "transformers":
        lines += ["Transformers alone does not quantise the inputs of layers, so its outputs differ. These lines change that:", "", RESTORE]
    return "\n".join(["## Bit-width", "", *lines])
