"""Adaptive computation modules: sums of small learners in place of a layer, as many as each frame needs."""

import copy
from collections.abc import Sequence
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_choice, check_positive
from lightning_kd.compression.speech_encoders import Constant, ConstantAttention, find_encoder
from lightning_kd.errors import SetupError
from lightning_kd.taps import module_paths

Model = TypeVar("Model", bound=nn.Module)
AdaptivePlace = Literal["feed_forward", "attention"]
PLACES: tuple[AdaptivePlace, ...] = ("feed_forward", "attention")
GATE_WIDTH = 16
TEMPERATURE = 0.8


class LearnerChoice(nn.Module):
    """How many learners are summed for each frame: drawn by Gumbel noise in training, the likeliest in evaluation.

    Args:
        least: Smallest number that may be chosen.
        temperature: Of the Gumbel softmax, above 0.
    """

    def __init__(self, *, least: int = 0, temperature: float = TEMPERATURE) -> None:
        super().__init__()
        check_positive("temperature", temperature)
        self.least = least
        self.temperature = temperature

    @override
    def forward(self, logits: Tensor) -> Tensor:
        """Choose.

        Args:
            logits: Scores of 0 to N learners, shape ``(..., N + 1)``.

        Returns:
            One where a number is chosen and zero elsewhere, same shape; in training with gradient, straight through.
        """
        allowed = torch.arange(logits.shape[-1], device=logits.device) >= self.least
        logits = logits.masked_fill(~allowed, -torch.inf)
        if self.training:
            return F.gumbel_softmax(logits, tau=self.temperature, hard=True, dim=-1)
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)


class AdaptiveComputation(nn.Module):
    """A sum of learners, networks of two layers each, of which a gate takes the first so many for each frame.

    In evaluation a learner runs on the frames that take it only. With ``fixed`` the first so many learners run on all
    frames and the gate does not, which is what an export needs.

    Args:
        inputs: Width of the input.
        outputs: Width of the output.
        hidden: Units of a learner.
        learners: How many.
        least: Smallest number of learners that may be taken; 0 needs a residual connection around the module.

    Attributes:
        fixed: How many learners all frames take; ``None`` leaves it to the gate.
        cost: Multiply-accumulates of one learner on one frame.

    Raises:
        ValueError: If a size is not above 0, or ``least`` is neither 0 nor 1.

    Source:
        Wójcik et al., "Adaptive Computation Modules: Granular Conditional Computation for Efficient Inference",
        arXiv:2312.10193.

    Example:
        >>> module = AdaptiveComputation(8, 8, hidden=4, learners=2).eval()
        >>> module(torch.zeros(1, 3, 8)).shape, len(module.cumulative(torch.zeros(1, 3, 8)))
        (torch.Size([1, 3, 8]), 3)
    """

    def __init__(self, inputs: int, outputs: int, *, hidden: int, learners: int = 4, least: int = 0) -> None:
        super().__init__()
        for name, value in (("inputs", inputs), ("outputs", outputs), ("hidden", hidden), ("learners", learners)):
            check_positive(name, value)
        check_choice("least", least, (0, 1))
        self.outputs = outputs
        self.cost = hidden * (inputs + outputs)
        self.fixed: int | None = None
        self.learners = nn.ModuleList(
            nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs)) for _ in range(learners)
        )
        self.gate = nn.Sequential(
            nn.Linear(inputs, GATE_WIDTH),
            nn.GELU(),
            nn.Linear(GATE_WIDTH, GATE_WIDTH),
            nn.GELU(),
            nn.Linear(GATE_WIDTH, learners + 1),
        )
        self.choice = LearnerChoice(least=least)

    @override
    def forward(self, hidden_states: Tensor) -> Tensor:
        if self.fixed is not None:
            return self._sum(hidden_states, self.fixed)
        choice = self.choice(self.gate(hidden_states))
        return self._weighted(hidden_states, choice) if self.training else self._sparse(hidden_states, choice)

    def cumulative(self, hidden_states: Tensor, *, detach: bool = False) -> list[Tensor]:
        """The sums of the first 0 to N learners.

        Args:
            hidden_states: Shape ``(..., inputs)``.
            detach: Whether each learner gets the gradient of the sum that it completes only.

        Returns:
            N + 1 tensors of shape ``(..., outputs)``.
        """
        sums = [hidden_states.new_zeros(*hidden_states.shape[:-1], self.outputs)]
        for learner in self.learners:
            before = sums[-1].detach() if detach else sums[-1]
            sums.append(before + learner(hidden_states))
        return sums

    def _sum(self, hidden_states: Tensor, count: int) -> Tensor:
        if count == 0:
            return hidden_states.new_zeros(*hidden_states.shape[:-1], self.outputs)
        total: Tensor = self.learners[0](hidden_states)
        for index in range(1, count):
            total = total + self.learners[index](hidden_states)
        return total

    def _weighted(self, hidden_states: Tensor, choice: Tensor) -> Tensor:
        # Learner i takes part wherever more than i are chosen.
        weights = choice[..., 1:].flip(-1).cumsum(-1).flip(-1)
        outputs = torch.stack([learner(hidden_states) for learner in self.learners], dim=-1)
        return (outputs * weights[..., None, :].to(outputs.dtype)).sum(dim=-1)

    def _sparse(self, hidden_states: Tensor, choice: Tensor) -> Tensor:
        frames, counts = hidden_states.flatten(0, -2), choice.argmax(dim=-1).flatten()
        total = frames.new_zeros(len(frames), self.outputs)
        for index, learner in enumerate(self.learners):
            chosen = (counts > index).nonzero()[:, 0]
            total = total.index_add(0, chosen, learner(frames[chosen]).to(total.dtype))
        return total.reshape(*hidden_states.shape[:-1], self.outputs)

    @override
    def extra_repr(self) -> str:
        return f"fixed={self.fixed}"


def with_adaptive_computation(
    model: Model, *, learners: int = 4, places: Sequence[AdaptivePlace] = ("feed_forward",)
) -> Model:
    """Make a copy of a speech model in which adaptive computation modules stand for parts of every layer.

    All learners together cost what they replace. Modules are new: train them with
    `lightning_kd.recipes.adaptive_computation`. Layers of which pruning has left nothing stay as they are.

    Args:
        model: A model of transformers with a HuBERT or wav2vec 2.0 encoder; it is not changed.
        learners: Learners of each module.
        places: ``"feed_forward"`` networks, and the four projections of ``"attention"``, which take at least one
            learner.

    Returns:
        The copy, in training mode with everything to train, also if the model is a frozen teacher.

    Raises:
        SetupError: If the model holds no such encoder, or ``places`` is empty.
        ValueError: If ``places`` names something else, or there are more learners than units.
    """
    if not places:
        raise SetupError(f"`places` must name some of {', '.join(PLACES)}, got none.")
    for place in places:
        check_choice("places", place, PLACES)
    changed = copy.deepcopy(model)
    for layer in find_encoder(changed, "model")[1].encoder.layers:
        if "feed_forward" in places and not isinstance(layer.feed_forward, Constant):
            inner = layer.feed_forward.intermediate_dense
            hidden = inner.out_features // learners
            outputs = layer.feed_forward.output_dense.out_features
            made = AdaptiveComputation(inner.in_features, outputs, hidden=hidden, learners=learners)
            layer.feed_forward = made.to(inner.weight.device, inner.weight.dtype)
        if "attention" in places and not isinstance(layer.attention, ConstantAttention):
            for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                setattr(layer.attention, name, _projection(getattr(layer.attention, name), learners))
    return changed.train().requires_grad_(True)


def adaptive_modules(model: nn.Module, name: str = "student") -> dict[str, AdaptiveComputation]:
    """The adaptive computation modules of a network by path.

    Args:
        model: The network.
        name: What it is called in the message.

    Returns:
        The modules.

    Raises:
        SetupError: If there is none.
    """
    paths = module_paths(model)
    found = {path: module for path, module in paths.items() if isinstance(module, AdaptiveComputation)}
    if not found:
        raise SetupError(
            f"the {name} ({type(model).__name__}) holds no AdaptiveComputation: make it by with_adaptive_computation()."
        )
    return found


def adaptive_parameters(model: nn.Module, part: Literal["learners", "gate"]) -> list[nn.Parameter]:
    """What the first two phases train and nothing else: give it to the optimiser.

    Args:
        model: A network with adaptive computation modules.
        part: ``"learners"`` in phase 1, ``"gate"`` in phase 2.

    Returns:
        The parameters.

    Raises:
        SetupError: If there is no such module.
        ValueError: If ``part`` is unknown.
    """
    check_choice("part", part, ("learners", "gate"))
    modules = adaptive_modules(model, "model").values()
    return [parameter for module in modules for parameter in module.get_submodule(part).parameters()]


def fix_learners(model: nn.Module, count: int | None) -> None:
    """Let all frames take so many learners from now on: the form in which a network is exported.

    Args:
        model: A network with adaptive computation modules; it is changed.
        count: How many; ``None`` leaves it to the gates again.

    Raises:
        SetupError: If there is no such module.
        ValueError: If one must take more, or has fewer learners.
    """
    modules = adaptive_modules(model, "model")
    for path, module in modules.items():
        if count is not None and not module.choice.least <= count <= len(module.learners):
            raise ValueError(
                f"`count` must be from {module.choice.least} to {len(module.learners)} at {path!r}, got {count!r}."
            )
    for module in modules.values():
        module.fixed = count


def _projection(linear: nn.Linear, learners: int) -> AdaptiveComputation:
    """Learners that cost together what a projection costs, biases included."""
    inputs, outputs = linear.in_features, linear.out_features
    hidden = round((inputs * outputs + outputs) / (inputs + outputs + 1) / learners)
    made = AdaptiveComputation(inputs, outputs, hidden=max(1, hidden), learners=learners, least=1)
    return made.to(linear.weight.device, linear.weight.dtype)
