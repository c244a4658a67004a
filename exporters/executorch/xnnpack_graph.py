"""The graph inside an XNNPACK partition, read from the bytes that the runtime will read."""

import importlib.resources
import json
import re
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader
from executorch.exir._serialize._flatbuffer import _flatc_decompile

_SCHEMA = "runtime_schema.fbs"
# Operators with weights or two factors: where the arithmetic is. Each has the id of what it multiplies by.
_FACTORS = ("filter_id", "input2_id")
_COMPUTING = {
    "XNNBatchMatrixMultiply",
    "XNNConv2d",
    "XNNConvTranspose2d",
    "XNNDepthwiseConv2d",
    "XNNFullyConnected",
}
_DTYPES = {
    "fp32": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
    "qint8": "int8",
    "quint8": "uint8",
    "qcint8": "int8",
    "qdint8": "int8",
    "qcint4": "int4",
    "qbint4": "int4",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionFacts:
    """What one partition holds and computes.

    Args:
        nodes: Number of nodes by XNNPACK's name of the operator.
        computing: Number of convolutions and matrix products by the type in which they multiply: that of quantised
            weights, otherwise that of the result.
        weights: Type and size in bytes of every constant with more than one dimension, by its key in the file.
    """

    nodes: Mapping[str, int]
    computing: Mapping[str, int]
    weights: Mapping[str, tuple[str, int]]


def read_partition(payload: bytes) -> PartitionFacts:
    """Decode the payload of one XNNPACK delegate of a ``.pte`` file."""
    graph = _decode(payload)
    values = [_tensor(value["xvalue_union"]) for value in graph["xvalues"]]
    types = {value["id_out"]: _dtype(value) for value in values}
    nodes = [(node["xnode_union_type"], node["xnode_union"]) for node in graph["xnodes"]]
    buffers = graph["constant_data"]
    weights = {
        buffers[value["constant_buffer_idx"]]["named_key"]: (
            _dtype(value),
            int(buffers[value["constant_buffer_idx"]]["size"]),
        )
        for value in values
        if value["constant_buffer_idx"] and value["num_dims"] > 1
    }
    return PartitionFacts(
        nodes=Counter(kind for kind, _ in nodes),
        computing=Counter(_arithmetic(node, types) for kind, node in nodes if kind in _COMPUTING),
        weights=weights,
    )


def _decode(payload: bytes) -> Any:
    header = XNNHeader.from_bytes(payload[: XNNHeader.EXPECTED_LENGTH])
    start = header.flatbuffer_offset
    with tempfile.TemporaryDirectory() as folder:
        schema = importlib.resources.files("executorch.backends.xnnpack.serialization") / _SCHEMA
        Path(folder, _SCHEMA).write_bytes(schema.read_bytes())
        Path(folder, "graph.bin").write_bytes(payload[start : start + header.flatbuffer_size])
        _flatc_decompile(folder, str(Path(folder, _SCHEMA)), str(Path(folder, "graph.bin")), ["--raw-binary"])
        text = Path(folder, "graph.json").read_text(encoding="utf-8")
    return json.loads(re.sub(r"([:\[,]\s*-?)inf\b", r"\1Infinity", text))


def _tensor(value: Mapping[str, Any]) -> Any:
    return value.get("tensor_value", value)


def _dtype(value: Mapping[str, Any]) -> str:
    name = str(value["datatype"]).removeprefix("xnn_datatype_")
    return _DTYPES.get(name, name)


def _arithmetic(node: Mapping[str, Any], types: Mapping[int, str]) -> str:
    factor = types[next(node[key] for key in _FACTORS if key in node)]
    return factor if "int" in factor else types[node["output_id"]]
