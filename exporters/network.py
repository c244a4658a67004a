"""The bare network an export starts from: tensors in by position, tensors out as a tuple, every one of them named."""

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._dynamo import OptimizedModule

from exporters.errors import CaptureError
from exporters.example import ExampleInputs, at_sizes, bind_example, cast_floats, sizes_of, with_batch
from exporters.quantization.attachment import quantization_of
from exporters.signature import BATCH, DimensionRange, Signature, TensorSpec
from exporters.spec import ExportSpec

if TYPE_CHECKING:
    from torch.export import ExportedProgram

# What PyTorch raises when user code meets something that tracing or copying cannot do; it has no common base.
TORCH_ERRORS = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError)


class PositionalNetwork(nn.Module):
    """A module behind one calling convention: tensors by position in, a flat tuple of tensors out.

    Args:
        module: The network.
        keywords: Names of the trailing inputs that ``module`` takes by keyword.
        dtype: Type in which ``module`` computes; floating-point inputs are cast to it and outputs back to float32.
        taps: Paths of submodules whose floating-point tensors are returned as well, in the order of their calls.
    """

    def __init__(
        self,
        module: nn.Module,
        keywords: Sequence[str] = (),
        *,
        dtype: torch.dtype = torch.float32,
        taps: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.module = module
        self.keywords = tuple(keywords)
        self.dtype = dtype
        self.taps = tuple(taps)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The module's tensors, in the order of their names."""
        return tuple(tensor for _, tensor in self.named(*inputs))

    def named(self, *inputs: Tensor) -> list[tuple[str, Tensor]]:
        """The module's tensors with their names."""
        cast = [cast_floats(tensor, self.dtype) for tensor in inputs]
        positional = len(cast) - len(self.keywords)
        with self._tapped() as seen:
            output = self.module(*cast[:positional], **dict(zip(self.keywords, cast[positional:], strict=True)))
        return [(name, cast_floats(tensor, torch.float32)) for name, tensor in (*named_tensors(output), *seen)]

    @contextmanager
    def _tapped(self) -> Iterator[list[tuple[str, Tensor]]]:
        seen: list[tuple[str, Tensor]] = []

        def keep(tap: int, output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point():
                # Computed anew: a later operation may work in place, and OpenVINO refuses one tensor as two outputs.
                seen.append((f"tap_{len(seen)}_{tap}", output * 1.0))

        with ExitStack() as hooks:
            for tap, path in enumerate(self.taps):
                module = self.module.get_submodule(path)
                handle = module.register_forward_hook(lambda _, __, output, tap=tap: keep(tap, output))
                hooks.callback(handle.remove)
            yield seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """An evaluation copy of a module with named inputs and outputs.

    Args:
        module: The copy: on the CPU, in float32, without gradients.
        signature: Names, shapes and dtypes.
        example: Inputs of the shapes in ``signature``; a dynamic batch has at least two samples, because
            `torch.export` takes a size of one for a constant.
        samples: Real inputs by name to verify on beside those that are drawn; empty if there are none.
    """

    module: PositionalNetwork
    signature: Signature
    example: tuple[Tensor, ...]
    samples: tuple[Mapping[str, np.ndarray], ...] = ()
    # What `exporters.capture.capture` found, so that one capture serves every runtime.
    captured: "list[ExportedProgram]" = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def example_arrays(self) -> dict[str, np.ndarray]:
        """The example by input name."""
        return {spec.name: tensor.numpy() for spec, tensor in zip(self.signature.inputs, self.example, strict=True)}

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """Weights ``(output, input, ...)`` of convolutions and linear layers, by module path."""
        kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
        modules = self.module.module.named_modules()
        return {name: module.weight.detach().numpy() for name, module in modules if isinstance(module, kinds)}


def prepare(
    model: nn.Module, example_inputs: ExampleInputs | ExportSpec, *, batch: DimensionRange | None = None
) -> Network:
    """Copy a module and name its inputs and outputs; the module itself is left as it is.

    Inputs are named after the parameters of ``forward``. A single output is named ``output``, those of a tuple
    ``output_0``, ``output_1`` and so on, those of a mapping or named tuple by its keys, nested ones by keys joined with
    ``_``. Hooks are part of the network: the copy calls the same ones.

    Args:
        model: The network; a LightningModule stands for its ``forward``.
        example_inputs: A tensor, a tuple of tensors, or a mapping from parameter names of ``forward`` to tensors.
            Floating-point tensors are taken as float32. Or an `ExportSpec`, from which an example is drawn.
        batch: Accepted sizes of dimension 0 of every input; ``None`` fixes every dimension to the example's. Not beside
            an `ExportSpec`, which has its own.

    Returns:
        The network, ready to be captured or run.

    Raises:
        CaptureError: If the inputs do not fit ``forward``, the module cannot be copied or run, or it returns something
            that is not a tensor, a sequence, a mapping or ``None``.
        QuantizationError: If it is fake-quantised, and a range was never measured.

    Example:
        >>> import torch
        >>> from exporters.network import prepare
        >>> prepare(torch.nn.Linear(3, 2), torch.zeros(1, 3)).signature.outputs
        (TensorSpec(name='output', shape=(1, 2), dtype='float32'),)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"`model` must be a torch.nn.Module, got {type(model).__name__}.")
    module = _evaluation_copy(model)
    if isinstance(example_inputs, ExportSpec):
        if batch is not None:
            raise ValueError(
                "`dynamic_batch` must be left out with an ExportSpec, got both; give `dimensions` a batch."
            )
        return _from_spec(module, example_inputs)
    example, keywords, names = bind_example(module.forward, example_inputs)
    if batch is not None:
        example = with_batch(example, names, batch)
    network = PositionalNetwork(module, keywords).eval()
    inputs = tuple(
        _tensor_spec(name, tensor, ((BATCH, *tensor.shape[1:]) if batch else tensor.shape))
        for name, tensor in zip(names, example, strict=True)
    )
    return _with_outputs(network, inputs, {BATCH: batch} if batch else {}, example)


def resized(network: Network, sizes: Mapping[str, int]) -> Network:
    """The same network with an example of other sizes: elements of the present one, repeated or cut.

    Args:
        network: The network.
        sizes: Size of every dynamic dimension.

    Returns:
        The network; it is not captured yet.
    """
    return replace(network, example=at_sizes(network.example, network.signature.inputs, sizes))


def _from_spec(module: nn.Module, spec: ExportSpec) -> Network:
    drawn = {name: torch.from_numpy(array) for name, array in spec.draw(spec.typical_sizes(), seed=0).items()}
    by_name = {each.name: each for each in spec.inputs}
    example, keywords, names = bind_example(module.forward, drawn)
    network = PositionalNetwork(module, keywords).eval()
    return _with_outputs(network, tuple(by_name[name] for name in names), spec.dimensions, example)


def _with_outputs(
    network: PositionalNetwork,
    inputs: tuple[TensorSpec, ...],
    dimensions: Mapping[str, DimensionRange],
    example: tuple[Tensor, ...],
) -> Network:
    outputs = _outputs(network, example, inputs, dimensions)
    signature = Signature(inputs=inputs, outputs=outputs, dimensions=dict(dimensions))
    return Network(module=network, signature=signature, example=example)


def as_type(network: Network, dtype: torch.dtype) -> Network:
    """The same network computed in a narrower floating-point type between float32 inputs and outputs."""
    inner = network.module
    module = PositionalNetwork(copy.deepcopy(inner.module).to(dtype), inner.keywords, dtype=dtype, taps=inner.taps)
    return replace(network, module=module.eval())


def with_samples(network: Network, samples: Sequence[Mapping[str, np.ndarray]]) -> Network:
    """The same network with real inputs to verify on; a capture that was made serves it, too."""
    sampled = replace(network, samples=tuple(samples))
    sampled.captured.extend(network.captured)
    return sampled


def with_taps(network: Network, paths: Sequence[str]) -> Network:
    """The same network with what some of its submodules return as further outputs, named ``tap_<call>_<index>``."""
    inner = network.module
    module = PositionalNetwork(inner.module, inner.keywords, dtype=inner.dtype, taps=paths).eval()
    tapped = _with_outputs(module, network.signature.inputs, network.signature.dimensions, network.example)
    return replace(tapped, samples=network.samples)


def named_tensors(output: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor in a module's output with its name, depth first; ``None`` holds no tensor."""
    if isinstance(output, Tensor):
        yield name or "output", output
        return
    if output is None:
        return
    if isinstance(output, Mapping):
        entries = list(output.items())
    elif isinstance(output, tuple) and hasattr(output, "_asdict"):
        entries = list(output._asdict().items())
    elif isinstance(output, list | tuple):
        entries = [(f"output_{index}" if not name else index, value) for index, value in enumerate(output)]
    else:
        raise CaptureError(
            f"`model` must return tensors, or tuples, lists and mappings of them, got {type(output).__name__}"
            f"{f' in `{name}`' if name else ''}; wrap it in a module whose forward returns tensors only."
        )
    for key, value in entries:
        # Core ML takes no name that begins with a digit.
        outer = name or ("output" if str(key)[:1].isdigit() else "")
        yield from named_tensors(value, re.sub(r"\W", "_", f"{outer}_{key}" if outer else str(key)))


def _evaluation_copy(model: nn.Module) -> nn.Module:
    if isinstance(model, OptimizedModule):
        model = model.get_submodule("_orig_mod")
    # Hooks are shared, not copied: a hook may hold a whole teacher, a Trainer, or tensors that cannot be copied.
    memo = {
        id(value): value.copy()
        for module in model.modules()
        for name, value in vars(module).items()
        if name.endswith("_hooks") and isinstance(value, dict)
    }
    try:
        module = copy.deepcopy(model, memo)
    except TORCH_ERRORS as error:
        raise CaptureError(
            f"`model` must be copyable, but {type(model).__name__} is not: {error} "
            f"Remove tensors with a gradient history that are stored on it, or pass the submodule to export."
        ) from error
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, OptimizedModule):
                setattr(parent, name, child.get_submodule("_orig_mod"))
    module = module.to(device="cpu", dtype=torch.float32).eval().requires_grad_(False)
    quantization = quantization_of(module)
    if quantization is not None:
        quantization.to("cpu").freeze()
    return module


def _outputs(
    network: PositionalNetwork,
    example: tuple[Tensor, ...],
    inputs: tuple[TensorSpec, ...],
    dimensions: Mapping[str, DimensionRange],
) -> tuple[TensorSpec, ...]:
    named = _run(network, example)
    taken = {spec.name for spec in inputs}
    names = [f"{name}_out" if name in taken else name for name, _ in named]
    if len(set(names)) < len(names):
        raise CaptureError(f"outputs of `model` must have distinct names, got {names}; rename the mapping's keys.")
    shapes: list[list[int | str]] = [list(tensor.shape) for _, tensor in named]
    here = sizes_of(example, inputs)
    for dimension, accepted in dimensions.items():
        other = _another_size(here[dimension], accepted)
        changed = _run(network, at_sizes(example, inputs, {**here, dimension: other}))
        for name, shape, (_, before), (_, after) in zip(names, shapes, named, changed, strict=True):
            for axis, (first, second) in enumerate(zip(before.shape, after.shape, strict=True)):
                if first != second:
                    known = isinstance(shape[axis], int)
                    text = _in_terms_of(dimension, (here[dimension], first), (other, second)) if known else None
                    shape[axis] = text or f"{name}_{axis}"
    return tuple(_tensor_spec(*triple) for triple in zip(names, (tensor for _, tensor in named), shapes, strict=True))


def _another_size(size: int, accepted: DimensionRange) -> int:
    """A size far from ``size``, for strided layers to notice, and odd, for layers that fold sizes to refuse."""
    for other in (accepted.nearest(2 * size + accepted.multiple), accepted.nearest(size // 2)):
        if other != size:
            return other
    return accepted.smallest if size != accepted.smallest else accepted.largest


def _run(network: PositionalNetwork, inputs: tuple[Tensor, ...]) -> list[tuple[str, Tensor]]:
    try:
        with torch.no_grad():
            return network.named(*inputs)
    except CaptureError:
        raise
    except TORCH_ERRORS as error:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in inputs)
        raise CaptureError(
            f"`model` must run on inputs of shape {shapes} in evaluation mode on the CPU, but it raised "
            f"{type(error).__name__}: {error}"
        ) from error


def _in_terms_of(name: str, first: tuple[int, int], second: tuple[int, int]) -> str | None:
    """A size that grows by whole steps with a dimension, as text; ``None`` for one that does not."""
    (size, value), (other, changed) = first, second
    slope, rest = divmod(changed - value, other - size)
    if rest:
        return None
    offset = value - slope * size
    return (name if slope == 1 else f"{slope}*{name}") + (f"{offset:+d}" if offset else "")


def _tensor_spec(name: str, tensor: Tensor, shape: Sequence[int | str]) -> TensorSpec:
    return TensorSpec(name, tuple(shape), str(tensor.dtype).removeprefix("torch."))
