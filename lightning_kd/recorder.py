"""Reads the taps of a model during its own forward pass."""

import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lightning_kd.errors import TapError
from lightning_kd.taps import Inputs, Observation, Tap, pick_tensor, resolve_module


class TapRecorder:
    """Reads the taps of a model whenever it runs inside `recording`.

    Hooks only listen while recording. Modules that were compiled before are compiled anew, so that they run the hooks.

    Args:
        model: Model whose calls are observed.
        taps: Places to read; a path that names no module raises at once.
        name: What the model is called in messages, ``"student"`` or ``"teacher"``.
        mark_start: Whether a call on a GPU notes the moment at which its inputs were ready.

    Raises:
        TapError: If a tap names no module of ``model``; the message lists the nearest paths.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU())
        >>> recorder = TapRecorder(net, [Tap("0")])
        >>> with recorder.recording() as observations:
        ...     _ = net(torch.zeros(2, 4))
        >>> observations[0].features[Tap("0")].shape
        torch.Size([2, 8])
        >>> recorder.detach()
    """

    def __init__(
        self, model: nn.Module, taps: Iterable[Tap] = (), *, name: str = "model", mark_start: bool = False
    ) -> None:
        self.model = model
        self.mark_start = mark_start
        self.taps = tuple(dict.fromkeys(taps))
        self.name = name
        self._modules = {tap: resolve_module(model, tap.path, name) for tap in self.taps}
        self._copied: set[Tap] = set()
        self._wanted: frozenset[Tap] = frozenset()
        self._stop = False
        self._listening = False
        self._with_grad = True
        self._calls: list[_Call] = []
        self._open: list[_Call] = []
        self._handles: list[RemovableHandle] = []
        self.attach()

    def attach(self) -> None:
        """Attach the hooks; does nothing if they are attached."""
        if self._handles:
            return
        forget_compiled_code()
        self._handles.append(self.model.register_forward_pre_hook(self._opening_hook(), with_kwargs=True))
        for tap, module in self._modules.items():
            if tap.at == "input":
                self._handles.append(module.register_forward_pre_hook(self._input_hook(tap), with_kwargs=True))
            else:
                self._handles.append(module.register_forward_hook(self._output_hook(tap)))
        self._handles.append(self.model.register_forward_hook(self._closing_hook()))

    def detach(self) -> None:
        """Remove every hook."""
        if self._handles:
            forget_compiled_code()
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @contextmanager
    def recording(
        self, *, taps: Collection[Tap] | None = None, stop: bool = False, copy_overwritten: bool = False
    ) -> Iterator[list[Observation]]:
        """Observe the calls of the model in this block, of the gradient mode in which the block is entered.

        Args:
            taps: Those to read; ``None`` reads all.
            stop: Whether to end the block, in the middle of the call, once every tap has been read. A compiled model
                runs to its end.
            copy_overwritten: Whether a tap whose tensor a later in-place operation overwrites is copied from the
                next recording on, instead of raising.

        Yields:
            A list that is filled when the block ends, one entry per call.

        Raises:
            TapError: If a tap did not fire, fired several times, or its tensor was overwritten in place.
        """
        observations: list[Observation] = []
        self._calls, self._open = [], []
        self._wanted, self._stop = frozenset(self.taps if taps is None else taps), stop
        self._listening, self._with_grad = True, torch.is_grad_enabled()
        try:
            yield observations
        except _AllRead as end:
            if end.recorder is not self:
                raise
        finally:
            calls, self._calls, self._open, self._listening = self._calls, [], [], False
        if copy_overwritten:
            self._copied.update(tap for call in calls for tap in self._wanted if call.overwrote(tap))
        observations.extend(self._observation(call, check=not copy_overwritten) for call in calls)

    def _observation(self, call: "_Call", *, check: bool) -> Observation:
        features = {tap: self._feature(call, tap, check=check) for tap in self.taps if tap in self._wanted}
        return Observation(call.inputs, call.output, features, self.model)

    def _feature(self, call: "_Call", tap: Tap, *, check: bool) -> Tensor:
        captured = call.captured.get(tap, [])
        if not captured:
            raise TapError(
                f"the {self.name} tap {tap.path!r} did not fire: its module did not run in this forward pass: "
                "tap one that does."
            )
        if len(captured) > 1 and tap.call is None:
            raise TapError(
                f"the module at {self.name} tap {tap.path!r} ran {len(captured)} times in one forward pass: "
                f"choose one, Tap({tap.path!r}, call=0)."
            )
        if tap.call is not None and not -len(captured) <= tap.call < len(captured):
            raise TapError(
                f"the module at {self.name} tap {tap.path!r} ran {len(captured)} times, got call={tap.call}."
            )
        if check and call.overwrote(tap):
            raise TapError(
                f"the tensor read at {self.name} tap {tap.path!r} was changed in place after it was read, "
                "as by ReLU(inplace=True): tap the module that changes it, or set inplace=False."
            )
        return captured[tap.call or 0][0]

    def _opening_hook(self) -> Callable[..., None]:
        def start_call(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self._listening and torch.is_grad_enabled() == self._with_grad:
                call = _Call(Inputs(args, kwargs, self._now(args) if self.mark_start else None))
                self._calls.append(call)
                self._open.append(call)

        return start_call

    @staticmethod
    def _now(args: tuple[Any, ...]) -> torch.cuda.Event | None:
        device = next((value.device for value in args if isinstance(value, Tensor) and value.is_cuda), None)
        return None if device is None else torch.cuda.current_stream(device).record_event()

    def _closing_hook(self) -> Callable[..., None]:
        def end_call(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            if self._listening and self._open:
                self._open.pop().output = output

        return end_call

    def _output_hook(self, tap: Tap) -> Callable[..., None]:
        def read_output(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            if self._listening and self._open and tap in self._wanted:
                self._capture(tap, output)

        return read_output

    def _input_hook(self, tap: Tap) -> Callable[..., None]:
        def read_input(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self._listening and self._open and tap in self._wanted:
                self._capture(tap, kwargs if isinstance(tap.select, str) else args)

        return read_input

    def _capture(self, tap: Tap, value: Any) -> None:
        tensor = pick_tensor(value, tap.select, f"the {self.name} tap {tap.path!r}")
        if tap in self._copied:
            tensor = tensor.clone()
        version = None if torch.compiler.is_compiling() else tensor._version  # noqa: SLF001 - the only in-place detector
        call = self._open[-1]
        call.captured.setdefault(tap, []).append((tensor, version))
        if self._stop and not torch.compiler.is_compiling() and all(call.has_read(tap) for tap in self._wanted):
            raise _AllRead(self)


class _AllRead(BaseException):
    """Ends a call whose rest nobody needs, past any ``except Exception`` in the model."""

    def __init__(self, recorder: TapRecorder) -> None:
        self.recorder = recorder


@dataclass(slots=True)
class _Call:
    """A call in progress; ``captured`` keeps each tensor with its in-place version at the time."""

    inputs: Inputs
    output: Any = None
    captured: dict[Tap, list[tuple[Tensor, int | None]]] = field(default_factory=dict)

    def has_read(self, tap: Tap) -> bool:
        """Whether no later run of the tapped module can matter."""
        index = tap.call or 0
        return 0 <= index < len(self.captured.get(tap, []))

    def overwrote(self, tap: Tap) -> bool:
        return any(version not in (None, tensor._version) for tensor, version in self.captured.get(tap, []))  # noqa: SLF001


def forget_compiled_code() -> None:
    """Have compiled modules compiled anew when they next run: earlier code knows nothing of a change of hooks."""
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
