"""A graph in float32 -> the same with int8 weights and products: fixed scales, so that no pair depends on its neighbours."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Feed = Mapping[str, NDArray[Any]]
Array = NDArray[np.float32]

NARROW = 16  # columns: products of fewer, as the heads', cost nothing, and their rounding would count most
OUTLIER = 2.0
"""A channel whose range is so many times that of all but one in a hundred would take the digits of all others."""


@dataclass
class _Range:
    """What a product's input was seen to hold, per channel."""

    low: Array
    high: Array

    def widen(self, values: Array) -> None:
        rows = values.reshape(-1, values.shape[-1])
        np.minimum(self.low, rows.min(0), out=self.low)
        np.maximum(self.high, rows.max(0), out=self.high)


def quantise(source: Path, out: Path, feeds: Iterable[Feed], *, leave: Callable[[str], bool]) -> int:
    """Write a graph whose products of states and weights are computed in int8, with a scale per column of the weights.

    The word embeddings become int8 too, with a scale per word: they are most of the file. Recurrence, attention, normalisation
    and heads stay in float32.

    Args:
        source: the graph in float32.
        out: where to write.
        feeds: inputs to see the states' ranges on.
        leave: which weights stay in float32, by name.

    Returns:
        How many products are computed in int8.
    """
    import onnx

    model = onnx.load(source)
    weights = {each.name: each for each in model.graph.initializer}
    inputs: dict[str, list[NodeProto]] = {}  # each tensor that is quantised, and all products that read it
    for node in model.graph.node:
        if node.op_type in ("Gemm", "MatMul") and node.input[1] in weights and not leave(node.input[1]):
            shape = weights[node.input[1]].dims
            if len(shape) == 2 and min(shape) >= NARROW:
                inputs.setdefault(node.input[0], []).append(node)
    ranges = _ranges(model, list(inputs), feeds)
    editor = _Editor(model)
    for name, products in inputs.items():
        editor.replace(name, products, ranges[name])
    editor.shrink_tables()
    editor.save(out)
    return sum(len(products) for products in inputs.values())


def _ranges(model: ModelProto, names: list[str], feeds: Iterable[Feed]) -> dict[str, _Range]:
    import onnx

    from empathy_kit.inference.graph import open_session

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    watched.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    run = open_session(watched.SerializeToString())
    found: dict[str, _Range] = {}
    for feed in feeds:
        for name, values in zip(names, run.run(None, dict(feed)), strict=True):
            if name not in found:
                width = values.shape[-1]
                found[name] = _Range(np.full(width, np.inf, np.float32), np.full(width, -np.inf, np.float32))
            found[name].widen(values)
    return found


class _Editor:
    """A graph while it is rewritten."""

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.weights = {each.name: each for each in model.graph.initializer}
        self.after: dict[str, list[NodeProto]] = {}  # what a node is replaced by, by its output
        self.added: dict[str, NDArray[Any]] = {}

    def constant(self, name: str, value: NDArray[Any]) -> str:
        self.added[name] = value
        return name

    def replace(self, name: str, products: list[NodeProto], seen: _Range) -> None:
        """QuantizeLinear in front, MatMulIntegerToFloat for each product, and a way around for the outliers."""
        from onnx import helper

        width = len(seen.low)
        matrices = [self._matrix(node) for node in products]  # (K, N)
        largest = np.maximum(np.abs(seen.low), np.abs(seen.high))
        limit = OUTLIER * np.sort(largest)[-1 - width // 100]
        far = np.flatnonzero(largest > limit)
        steps, share, aside = [], np.ones(width, np.float32), np.zeros(width, bool)
        source = name
        if len(far) and len(products) == 1 and matrices[0].shape[1] <= width:
            aside[far] = True
            where = self.constant(f"{name}_far", far.astype(np.int64))
            steps.append(helper.make_node("Gather", [name, where], [f"{name}_outliers"], axis=-1))
        elif len(far):
            share[far] = largest[far] / (limit / OUTLIER)
            source = f"{name}_levelled"
            steps.append(helper.make_node("Mul", [name, self.constant(f"{name}_share", 1 / share)], [source]))
        low = min(float((seen.low / share)[~aside].min()), 0.0)
        high = max(float((seen.high / share)[~aside].max()), 0.0)
        scale = (high - low) / 255 or 1.0
        scales = [
            self.constant(f"{name}_scale", np.asarray(scale, np.float32)),
            self.constant(f"{name}_zero", np.asarray(np.clip(np.rint(-low / scale), 0, 255), np.uint8)),
        ]
        steps.append(helper.make_node("QuantizeLinear", [source, *scales], [f"{name}_int8"]))
        for at, (node, matrix) in enumerate(zip(products, matrices, strict=True)):
            moved = np.where(aside[:, None], 0, matrix * share[:, None])
            columns = np.maximum(np.abs(moved).max(0), 1e-12) / 127
            out = node.output[0]
            own = f"{out}_weight"  # not the weight's name: products with other inputs may share it, and its columns are theirs
            table = self.constant(f"{own}_int8", np.rint(moved / columns).astype(np.int8))
            sizes = self.constant(f"{own}_scales", columns.astype(np.float32))
            bias = list(node.input[2:3])
            product = [f"{name}_int8", table, scales[0], sizes, scales[1]]
            added = []
            if aside.any():
                rest = [f"{name}_outliers", self.constant(f"{own}_outliers", matrix[aside])]
                added = [
                    helper.make_node("Gemm" if bias else "MatMul", [*rest, *bias], [f"{out}_far"]),
                    helper.make_node("Add", [f"{out}_near", f"{out}_far"], [out]),
                ]
                bias, out = [], f"{out}_near"
            inputs = [*product, "", *bias] if bias else product
            fused = helper.make_node("MatMulIntegerToFloat", inputs, [out], domain="com.microsoft")
            self.after[node.output[0]] = [*(steps if at == 0 else []), fused, *added]

    def shrink_tables(self) -> None:
        """Embeddings as int8, with a scale per row."""
        from onnx import TensorProto, helper, numpy_helper

        for node in self.model.graph.node:
            table = self.weights.get(node.input[0]) if node.op_type == "Gather" else None
            if table is None or len(table.dims) != 2 or table.dims[0] * table.dims[1] < 1 << 16:
                continue
            rows = numpy_helper.to_array(table)
            scales = np.maximum(np.abs(rows).max(1, keepdims=True), 1e-12) / 127
            name, out = table.name, node.output[0]
            small = self.constant(f"{name}_int8", np.rint(rows / scales).astype(np.int8))
            sizes = self.constant(f"{name}_scales", scales.astype(np.float32))
            self.after[node.output[0]] = [
                helper.make_node("Gather", [small, node.input[1]], [f"{out}_int8"], axis=0),
                helper.make_node("Cast", [f"{out}_int8"], [f"{out}_float"], to=TensorProto.FLOAT),
                helper.make_node("Gather", [sizes, node.input[1]], [f"{out}_scale"], axis=0),
                helper.make_node("Mul", [f"{out}_float", f"{out}_scale"], [out]),
            ]

    def save(self, out: Path) -> None:
        import onnx
        from onnx import helper, numpy_helper

        graph = self.model.graph
        nodes = [new for node in graph.node for new in self.after.get(node.output[0], [node])]
        del graph.node[:]
        graph.node.extend(nodes)
        used = {name for node in nodes for name in node.input}
        kept = [each for each in graph.initializer if each.name in used]
        kept += [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in self.added.items()]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        del graph.value_info[:]
        self.model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
        onnx.save(self.model, out)

    def _matrix(self, node: NodeProto) -> Array:
        from onnx import numpy_helper

        found: Array = numpy_helper.to_array(self.weights[node.input[1]]).astype(np.float32)
        turned = any(each.name == "transB" and each.i for each in node.attribute)
        return found.T if turned else found
