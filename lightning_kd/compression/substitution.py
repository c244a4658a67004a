"""A network that computes with other weights than it stores."""

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_kd.compression.quantizers import quantize_activation
from lightning_kd.compression.weight_quantizers import WeightQuantizer
from lightning_kd.compression.weights import LayerWeight, check_not_compiled
from lightning_kd.errors import SetupError


class WeightSubstitution:
    """Lets layers compute with quantised weights, and with quantised inputs, while their parameters stay as they are.

    A layer's weight is replaced for the time of its call, so that gradients reach the stored weight through the
    quantiser. The network's ``state_dict`` shows what it computes with, under the plain names.

    Args:
        network: The network.
        weights: Its weights to quantise, by name.
        quantizer: Quantises them; it was built for these weights.
        activation_bits: Bits of the layers' inputs; ``None`` leaves them.
        activation_clip: Largest magnitude of the inputs; ``None`` limits nothing.

    Raises:
        SetupError: If the network is compiled, a weight is shared with another module, or the inputs of a
            `torch.nn.MultiheadAttention` would have to be quantised.

    Example:
        >>> from lightning_kd.compression import UniformWeights, layer_weights
        >>> network = nn.Linear(4, 1, bias=False)
        >>> _ = network.weight.data.copy_(torch.tensor([[-1.0, -0.2, 0.1, 1.0]]))
        >>> substitution = WeightSubstitution(network, layer_weights(network), UniformWeights(levels=2))
        >>> network(torch.eye(4)).flatten().tolist(), network.state_dict()["weight"].tolist()
        ([-1.0, -1.0, 1.0, 1.0], [[-1.0, -1.0, 1.0, 1.0]])
        >>> substitution.detach()
        >>> network.state_dict()["weight"].tolist()[0][0]
        -1.0
    """

    def __init__(
        self,
        network: nn.Module,
        weights: Mapping[str, LayerWeight],
        quantizer: WeightQuantizer,
        *,
        activation_bits: int | None = None,
        activation_clip: float | None = None,
    ) -> None:
        _check(network, weights, activation_bits)
        self.weights = dict(weights)
        self.quantizer = quantizer
        self.unread = set(weights)
        self._stored = {name: weight.parameter for name, weight in weights.items()}
        self._undo: list[Callable[[], None]] = []
        for name, weight in self.weights.items():
            hook = weight.caller.register_forward_pre_hook(partial(self._replace, name), prepend=True)
            back = weight.caller.register_forward_hook(partial(self._put_back, name), always_call=True)
            self._undo += [hook.remove, back.remove]
            if activation_bits is not None and weight.caller is weight.holder:
                quantize = partial(_quantize_input, bits=activation_bits, clip=activation_clip)
                self._undo.append(weight.holder.register_forward_pre_hook(quantize).remove)
        self._undo.append(network.register_state_dict_post_hook(partial(self._show)).remove)  # type: ignore[no-untyped-call]

    def quantized(self) -> dict[str, Tensor]:
        """The weights that the network computes with, cut from the graph."""
        with torch.no_grad():
            return {name: self.quantizer(name, stored) for name, stored in self._stored.items()}

    def stored(self) -> dict[str, Tensor]:
        """The weights that the network stores, cut from the graph."""
        return {name: stored.detach() for name, stored in self._stored.items()}

    @torch.no_grad()
    def store(self, values: Mapping[str, Tensor]) -> None:
        """Overwrite the stored weights.

        Args:
            values: New values of all of them, by name.
        """
        for name, stored in self._stored.items():
            stored.copy_(values[name])

    def detach(self) -> None:
        """Compute with the stored weights again."""
        while self._undo:
            self._undo.pop()()

    def _replace(self, name: str, *_: Any) -> None:
        self.unread.discard(name)
        self._set(name, self.quantizer(name, self._stored[name]))

    def _put_back(self, name: str, *_: Any) -> None:
        self._set(name, self._stored[name])

    def _set(self, name: str, value: Tensor) -> None:
        # torch.func.functional_call does the same around a call of its own.
        holder = self.weights[name].holder
        holder._parameters[self.weights[name].attribute] = value  # type: ignore[assignment]  # noqa: SLF001

    def _show(self, _: nn.Module, state: dict[str, Any], prefix: str, __: dict[str, Any]) -> None:
        state.update({prefix + name: value for name, value in self.quantized().items()})


def _check(network: nn.Module, weights: Mapping[str, LayerWeight], activation_bits: int | None) -> None:
    check_not_compiled(network)
    holders = Counter(id(p) for module in network.modules() for p in module.parameters(recurse=False))
    for name, weight in weights.items():
        if holders[id(weight.parameter)] > 1:
            raise SetupError(f"`{name}` is shared with another module, which would not be quantised: skip= its layer.")
        if activation_bits is not None and isinstance(weight.caller, nn.MultiheadAttention):
            raise SetupError(
                f"the inputs of {name!r} are inside of torch.nn.MultiheadAttention and cannot be quantised: skip= that "
                "module, or leave activations as they are."
            )


def _quantize_input(_: nn.Module, args: tuple[Any, ...], *, bits: int, clip: float | None) -> tuple[Any, ...]:
    return (quantize_activation(args[0], bits=bits, clip=clip), *args[1:])
