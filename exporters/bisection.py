"""Which layer of an exported network is the first to differ from PyTorch."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, fx

from exporters.artifact import Artifact
from exporters.capture import capture
from exporters.errors import ExportError, ParityError
from exporters.exporter import Exporter, Request
from exporters.layers import module_path
from exporters.network import Network, with_taps
from exporters.parity import OutputParity, Tolerance, compare
from exporters.runtimes import SESSIONS, import_runtime
from exporters.session import Session
from exporters.sessions.pytorch import PyTorchSession
from exporters.threads import available_threads
from exporters.verification import batches_for

Batch = Mapping[str, np.ndarray]
_NOWHERE = (
    "every layer agrees where its output is taken out: the converter joins layers wrongly, or the error grows within "
    "the tolerance of each"
)


@runtime_checkable
class TracingSession(Protocol):
    """A session that can return what is computed on the way."""

    def trace(self, inputs: Batch) -> dict[str, np.ndarray]:
        """Values by the name of their node in the captured program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """Where an exported network leaves the path of PyTorch.

    Args:
        layers: Module paths among which the first error is: one, unless the file has joined several into one.
        operator: What computes the first value that differs.
        parity: Figures of that value.
        last_agreeing: Module path of the last value before it that agrees; ``None`` if there is none.
    """

    layers: tuple[str, ...]
    operator: str
    parity: OutputParity
    last_agreeing: str | None

    def __str__(self) -> str:
        """One sentence."""
        names = " or ".join(f"`{layer}`" if layer else "the network itself" for layer in self.layers)
        before = f"; last agreeing `{self.last_agreeing}`" if self.last_agreeing else ""
        return f"first divergence in layer {names} ({self.operator}), relative L2 {self.parity.relative_l2:.2g}{before}"


def explain(
    error: ParityError,
    exporter: Exporter,
    artifact: Artifact,
    network: Network,
    request: Request,
    *,
    tolerance: Tolerance,
) -> ParityError:
    """The error of a file that does not compute what PyTorch computes, with the first layer that differs.

    Args:
        error: What the comparison raised.
        exporter: Wrote the file.
        artifact: The file.
        network: What it has to compute.
        request: What the exporter was asked for.
        tolerance: Largest errors allowed, of a layer as of the outputs.

    Returns:
        The same error with one more sentence; as it is where names or shapes differ already.
    """
    if error.report is None:
        return error
    try:
        found = locate(exporter, artifact, network, request, tolerance=tolerance)
        sentence = str(found) if found else _NOWHERE
    except ExportError as failure:
        sentence = f"the first layer that differs could not be found: {failure}"
    return ParityError(f"{error}\n  {sentence}.", error.report)


def locate(
    exporter: Exporter, artifact: Artifact, network: Network, request: Request, *, tolerance: Tolerance
) -> Divergence | None:
    """Find the first layer that differs, by the file's own intermediate values where its runtime has them.

    Where it has not, or where the file has joined several layers, the network is converted once more with the outputs
    of its submodules as further outputs.

    Returns:
        The place; ``None`` if every value that can be seen agrees.
    """
    found = None
    session = open_session(artifact)
    if isinstance(session, TracingSession):
        found = _by_trace(session, network, artifact, tolerance)
        # int8 ends here: another graph is quantised otherwise, so that converting again tells of another file.
        if found is not None and (len(found.layers) == 1 or artifact.precision == "int8"):
            return found
    return _by_conversion(exporter, artifact, network, request, tolerance) or found


def open_session(artifact: Artifact) -> Session:
    """Open a file as its parity is checked: in its own types, and no lower than float32 where it does not say."""
    precision = "default" if artifact.precision == "bf16" else "fp32"
    opened: Session = import_runtime(SESSIONS, artifact.format)(
        artifact, threads=available_threads(), precision=precision
    )
    return opened


def _by_conversion(
    exporter: Exporter, artifact: Artifact, network: Network, request: Request, tolerance: Tolerance
) -> Divergence | None:
    modules = dict(network.module.module.named_modules())
    paths = [path for path in modules if path and "parametrizations" not in path]
    tapped = with_taps(network, paths)
    if artifact.quantization is not None:
        # Behind a comma a recipe's name says which layers were put back into floating point.
        recipe = artifact.quantization.recipe.partition(",")[0]
        request = replace(request, quantization=replace(request.quantization, recipe=recipe))
    with tempfile.TemporaryDirectory(dir=artifact.path.parent) as folder:
        path = Path(folder, artifact.path.name)
        exporter.convert(tapped, path, request)
        session = open_session(replace(artifact, path=path, signature=tapped.signature))
        batches = batches_for(network, artifact.precision)
        references = [PyTorchSession(tapped).run(batch) for batch in batches]
        outputs = [session.run(batch) for batch in batches]
    last = None
    for spec in tapped.signature.outputs[len(network.signature.outputs) :]:
        layer = paths[int(spec.name.rpartition("_")[2])]
        parity = compare(spec.name, [out[spec.name] for out in outputs], [ref[spec.name] for ref in references])
        if not parity.within(tolerance):
            name = type(modules[layer]).__name__
            return Divergence(layers=(layer,), operator=name, parity=parity, last_agreeing=last)
        last = layer
    return None


def _by_trace(session: TracingSession, network: Network, artifact: Artifact, tolerance: Tolerance) -> Divergence | None:
    graph = capture(network).run_decompositions({}).module()
    for batch in batches_for(network, artifact.precision):
        reference = _Recorder(graph)
        with torch.no_grad():
            reference.run(*(torch.from_numpy(batch[spec.name].copy()) for spec in network.signature.inputs))
        found = _first_divergence(graph.graph, reference.values, session.trace(batch), tolerance)
        if found is not None:
            return found
    return None


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps every floating-point tensor by the name of its node."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.values: dict[str, np.ndarray] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.op == "call_function" and isinstance(result, Tensor) and result.is_floating_point():
            self.values[n.name] = result.numpy().copy()
        return result


def _first_divergence(
    graph: fx.Graph, references: Mapping[str, np.ndarray], values: Mapping[str, np.ndarray], tolerance: Tolerance
) -> Divergence | None:
    parities = {
        node: compare(node.name, [values[node.name]], [references[node.name]])
        for node in graph.nodes
        if node.name in references and node.name in values
        # Another shape is another value: converters decompose differently and count their names anew.
        if values[node.name].shape == references[node.name].shape
    }
    agreeing = {node: parity.within(tolerance) for node, parity in parities.items()}
    for node in parities:
        if not agreeing[node] and _spreads(node, agreeing):
            origin, before = _origin(node, agreeing)
            layers = tuple(dict.fromkeys(module_path(each) for each in origin))
            return Divergence(
                layers=layers,
                operator=_operator(origin[-1]),
                parity=parities[node],
                last_agreeing=module_path(before) if before is not None else None,
            )
    return None


def _spreads(node: fx.Node, agreeing: Mapping[fx.Node, bool]) -> bool:
    """Whether what follows from a value differs as well; if not, only its name is that of another value."""
    following = list(_nearest(node.users, agreeing))
    return not following or not all(agreeing[each] for each in following)


def _nearest(users: Sequence[fx.Node] | Mapping[fx.Node, None], agreeing: Mapping[fx.Node, bool]) -> Iterator[fx.Node]:
    pending, seen = list(users), set()
    while pending:
        node = pending.pop()
        if node in agreeing:
            yield node
        elif node not in seen:
            seen.add(node)
            pending += node.users


def _origin(node: fx.Node, agreeing: Mapping[fx.Node, bool]) -> tuple[list[fx.Node], fx.Node | None]:
    """The operators between agreeing values and a differing one, in their order, and the last agreeing value."""
    order = {each: index for index, each in enumerate(node.graph.nodes)}
    found, before, pending = {node}, [], list(node.all_input_nodes)
    while pending:
        each = pending.pop()
        if agreeing.get(each):
            before.append(each)
        elif each.op == "call_function" and each not in found:
            found.add(each)
            pending += each.all_input_nodes
    return sorted(found, key=order.__getitem__), max(before, key=order.__getitem__, default=None)


def _operator(node: fx.Node) -> str:
    source = node
    while not isinstance(source.target, torch._ops.OpOverload) and source.all_input_nodes:  # noqa: SLF001
        source = source.all_input_nodes[0]
    return str(source.target).removesuffix(".default")
