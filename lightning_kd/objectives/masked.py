"""Distillation while a student learns to paint hidden patches: both models see the same visible ones."""

from collections.abc import Sequence

from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_positive
from lightning_kd.adapters import Probe
from lightning_kd.errors import SetupError
from lightning_kd.layout import Layout
from lightning_kd.losses import direction_l1, feature_mse, standardized_smooth_l1
from lightning_kd.objectives.base import Objective
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.students._find import find_part
from lightning_kd.students.masked import MaskedAutoencoder
from lightning_kd.taps import Inputs, Observation, Tap
from lightning_kd.tokens import common_tokens


class _MaskedObjective(Objective):
    """One place in each of two masked autoencoders that were given the same noise."""

    needs_teacher_output = False

    def __init__(self, student: str | Tap | None, teacher: str | Tap | None, *, name: str, weight: Weight) -> None:
        super().__init__(name=name, weight=weight)
        self._declared = (student, teacher)

    @override
    def locate(self, student: nn.Module, teacher: nn.Module) -> None:
        self.student_taps, self.teacher_taps = (
            (self._tap(place, model, name),)
            for place, model, name in zip(self._declared, (student, teacher), ("student", "teacher"), strict=True)
        )

    def _tap(self, place: str | Tap | None, model: nn.Module, name: str) -> Tap:
        if place is not None:
            return Tap.of(place)
        prefix, autoencoder = find_part(model, MaskedAutoencoder, name)
        return Tap(prefix + self._place(autoencoder, name))

    def _place(self, autoencoder: MaskedAutoencoder, name: str) -> str:
        """Path of the published place in the student or teacher."""
        raise NotImplementedError

    def features(self, student: Observation, teacher: Observation) -> tuple[Tensor, Tensor]:
        """Tokens of both, once it is certain that both got noise."""
        for name, inputs in (("student", student.inputs), ("teacher", teacher.inputs)):
            if _noise(inputs) is None:
                raise SetupError(
                    f"`{self.name}` compares what both models make of the same visible patches, and the {name} was "
                    "called without `noise`, so it drew its own: call the student with it, "
                    "net(images, net.noise(images)), and let input_transform pass it on."
                )
        return student.features[self.student_taps[0]], teacher.features[self.teacher_taps[0]]


class DMAEKD(_MaskedObjective):
    r"""DMAE: a masked autoencoder's tokens, projected, point where those of a larger one point.

    .. math::
        L = \frac{1}{M} \sum_i \left| \widehat{W s}_i - \hat t_i \right|

    over the class token and the visible patches, see `direction_l1`. The teacher runs up to the tapped block only. The
    student's own loss is its reconstruction, see `masked_reconstruction`, with weight 1.

    Args:
        student: Place in the student; ``None`` takes the block at three quarters of the depth of its
            `MaskedAutoencoder`: block 8 of 12, counted from 0.
        teacher: Place in the teacher; ``None`` likewise: block 17 of 24.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        SetupError: At setup, if a place is not given and there is not exactly one `MaskedAutoencoder`; in training, if
            the models are not called with ``noise``.

    Source:
        Bai et al., "Masked Autoencoders Enable Efficient Knowledge Distillers", arXiv:2208.12256; loss and places are
        those of its code. Places in networks of other depths are ours.

    Example:
        >>> DMAEKD(weight=0.5).name
        'dmae'
    """

    def __init__(
        self,
        student: str | Tap | None = None,
        teacher: str | Tap | None = None,
        *,
        weight: Weight = 1.0,
        name: str = "dmae",
    ) -> None:
        super().__init__(student, teacher, name=name, weight=weight)
        self.projection: nn.Module = nn.Identity()

    @override
    def _place(self, autoencoder: MaskedAutoencoder, name: str) -> str:
        return f"encoder.blocks.{max(0, 3 * len(autoencoder.encoder.blocks) // 4 - 1)}"

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        widths = (_width(student, self.student_taps), _width(teacher, self.teacher_taps))
        self.projection = _xavier(nn.Linear(*widths))

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        tokens, target = self.features(student, teacher)
        return direction_l1(self.projection(tokens), target)


class G2SDKD(_MaskedObjective):
    r"""G2SD, first stage: a small decoder's tokens predict those inside a larger model's decoder.

    .. math::
        L = \frac{1}{M} \sum_i \mathrm{smoothL1}_\beta(\mathrm{MLP}(s)_i - \mathrm{LN}_0(t)_i)

    over all tokens, visible and hidden, see `standardized_smooth_l1`; class and register tokens take part if both
    networks have equally many, else they are left out on both sides. The published student has a decoder of 4 blocks
    of width 256, and no reconstruction loss: set ``task_weight=0`` for the literal recipe. The second stage fine-tunes
    the student's encoder with a distillation token, see `with_distillation_token` and `DeiTKD`.

    Args:
        student: Place in the student; ``None`` takes the last block of its `MaskedAutoencoder`'s decoder, in front of
            the decoder's norm.
        teacher: Place in the teacher; ``None`` takes the fourth block of its decoder.
        beta: Where smooth L1 becomes linear, above 0, dimensionless.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        LayoutError: At setup, if the number of prefix tokens cannot be told: declare it on the tap.
        SetupError: At setup, if a place is not given and there is not exactly one `MaskedAutoencoder`, or the teacher's
            has fewer than four decoder blocks; in training, if the models are not called with ``noise``.
        ValueError: If ``beta`` is not a finite number above 0.

    Source:
        Huang et al., "Generic-to-Specific Distillation of Masked Autoencoders", arXiv:2302.14771; loss and places are
        those of its code. Leaving out prefix tokens that do not correspond is ours.

    Example:
        >>> G2SDKD().beta
        2.0
    """

    def __init__(
        self,
        student: str | Tap | None = None,
        teacher: str | Tap | None = None,
        *,
        beta: float = 2.0,
        weight: Weight = 1.0,
        name: str = "g2sd",
    ) -> None:
        super().__init__(student, teacher, name=name, weight=weight)
        check_positive("beta", beta)
        self.beta = beta
        self.head: nn.Module = nn.Identity()
        self._layouts: tuple[Layout, Layout] | None = None

    @override
    def _place(self, autoencoder: MaskedAutoencoder, name: str) -> str:
        if name == "student":
            return "decoder.blocks"
        if len(autoencoder.decoder.blocks) < 4:
            raise SetupError(
                f"`{self.name}` reads the fourth block of the teacher's decoder, which has "
                f"{len(autoencoder.decoder.blocks)}: name another place, G2SDKD(teacher='decoder.blocks.0')."
            )
        return "decoder.blocks.3"

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        s, t = student.geometry(self.student_taps[0]), teacher.geometry(self.teacher_taps[0])
        self._layouts = (s.layout, t.layout)
        self.head = nn.Sequential(_xavier(nn.Linear(s.width, t.width)), nn.GELU(), _xavier(nn.Linear(t.width, t.width)))

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        if self._layouts is None:
            raise SetupError(f"`{self.name}` needs adapters: build() must run first.")
        tokens, target = common_tokens(*self.features(student, teacher), *self._layouts)
        return standardized_smooth_l1(self.head(tokens), target, beta=self.beta)


class FurtherPretrainingKD(_MaskedObjective):
    r"""Self-distillation for further pre-training: stay near the representations of an earlier run of the same kind.

    A network is pre-trained further on the target domain with masking; a copy of the result is the teacher. A fresh
    copy of the original network is then pre-trained further once more, with

    .. math::
        L = L_\mathrm{reconstruction} + \frac{1}{M} \sum_i (s_i - t_i)^2

    where :math:`s` and :math:`t` are the encoders' final representations of the visible patches. Student and teacher
    are one architecture, so that nothing is projected.

    Args:
        student: Place in the student; ``None`` takes the last norm of its `MaskedAutoencoder`'s encoder.
        teacher: Place in the teacher; ``None`` likewise.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        SetupError: At setup, if a place is not given and there is not exactly one `MaskedAutoencoder`; in training, if
            the models are not called with ``noise``.

    Source:
        Lee et al., "Self-Distillation for Further Pre-training of Transformers", arXiv:2210.02871; from memory, checked
        against neither paper nor code: the mean over all elements, the weight of 1 and the masked input of both models
        are ours.

    Example:
        >>> FurtherPretrainingKD(weight=0.5).name
        'further_pretraining'
    """

    needs_examples = False

    def __init__(
        self,
        student: str | Tap | None = None,
        teacher: str | Tap | None = None,
        *,
        weight: Weight = 1.0,
        name: str = "further_pretraining",
    ) -> None:
        super().__init__(student, teacher, name=name, weight=weight)

    @override
    def _place(self, autoencoder: MaskedAutoencoder, name: str) -> str:
        return "encoder.norm"

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        return feature_mse(*self.features(student, teacher))


def _noise(inputs: Inputs) -> Tensor | None:
    """The noise among a call's arguments: by keyword, or the second by position, as in transformers' ViTMAE too."""
    noise = inputs.kwargs.get("noise", inputs.args[1] if len(inputs.args) > 1 else None)
    return noise if isinstance(noise, Tensor) else None


def _width(probe: Probe, taps: Sequence[Tap]) -> int:
    return probe.observation.features[taps[0]].shape[-1]


def _xavier(linear: nn.Linear) -> nn.Linear:
    nn.init.xavier_uniform_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
