"""Distillation of patch embeddings: what a network makes of its patches before it mixes them."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_choice
from lightning_kd.adapters import Align, Geometry, Probe
from lightning_kd.adapters.transkd import EmbeddingAssistant, GlobalLocalMixer
from lightning_kd.errors import SetupError
from lightning_kd.families import patch_embedding_paths
from lightning_kd.layout import Layout, common_grid
from lightning_kd.losses import patch_embedding_alignment
from lightning_kd.losses.stages import PATCH_EMBEDDING_WEIGHTS
from lightning_kd.objectives.base import Objective, Places, as_taps
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation, Tap

Mixer = Literal["none", "global_local"]


class PatchEmbeddingKD(Objective):
    """Patch embedding alignment: a learned linear map from each student embedding to the teacher's.

    With equally many embeddings on both sides they pair in order; else each embedding of the side with fewer (a plain
    ViT has one) pairs with the one of nearest grid on the other side.

    TransKD's two variants are options. ``mixer="global_local"`` mixes the coarsest student embedding over its grid
    before it is projected (where the grids differ, over the common one). ``assistant=True`` adds to each projection an
    embedding of the teacher's width, made from what the student's embedding is made from: the image, and the maps
    before the later embeddings. Both then have a learned factor: of 0.1, 0.2, 0.3, ... the projections take the first
    and the assistants the last, as published.

    Args:
        student: Places of the student's patch embeddings; ``None`` finds them by the family's convention.
        teacher: Likewise for the teacher.
        stage_weights: Weight of each pair, finest grid first; ``None`` takes the last of the published
            (0.1, 0.1, 0.5, 1.0), one per pair.
        mixer: ``"none"``, or ``"global_local"``: `GlobalLocalMixer` with 8 heads.
        assistant: Whether to add an `EmbeddingAssistant` to each pair.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        SetupError: At setup, if the embeddings of a network are not known, the weights are not one per pair, or
            assistants are asked for where there is no image or no map to make an embedding from.
        ShapeError: At setup, if the 8 heads of the mixer do not divide the width of the student's coarsest embedding.
        ValueError: If ``mixer`` is unknown.

    Source:
        Liu et al., "TransKD: Transformer Knowledge Distillation for Efficient Semantic Segmentation",
        arXiv:2202.13393; other networks than hierarchical transformers, and their pairing, are ours.

    Example:
        >>> PatchEmbeddingKD(weight=0.5).name
        'patch_embedding'
    """

    needs_teacher_output = False

    def __init__(
        self,
        student: Places | None = None,
        teacher: Places | None = None,
        *,
        stage_weights: Sequence[float] | None = None,
        mixer: Mixer = "none",
        assistant: bool = False,
        weight: Weight = 1.0,
        name: str = "patch_embedding",
    ) -> None:
        super().__init__(name=name, weight=weight)
        check_choice("mixer", mixer, ("none", "global_local"))
        self._declared = (student, teacher)
        self.stage_weights = None if stage_weights is None else tuple(stage_weights)
        self.mixer = mixer
        self.assistant = assistant
        self.pairs: list[tuple[Tap, Tap]] = []
        self.adapters = nn.ModuleList()
        self.assistants = nn.ModuleList()
        self.factors: nn.Parameter | None = None
        self._embeddings: tuple[Tap, ...] = ()
        self._sources: dict[Tap, tuple[Tap, Layout]] = {}

    @override
    def locate(self, student: nn.Module, teacher: nn.Module) -> None:
        places = [
            patch_embedding_paths(model, name) if declared is None else declared
            for declared, model, name in zip(self._declared, (student, teacher), ("student", "teacher"), strict=True)
        ]
        self._embeddings, self.teacher_taps = (as_taps(place) for place in places)
        befores = [_before(tap) for tap in self._embeddings[1:]] if self.assistant else []
        self.student_taps = (*self._embeddings, *befores)

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        students = {tap: student.geometry(tap) for tap in self._embeddings}
        teachers = {tap: teacher.geometry(tap) for tap in self.teacher_taps}
        if len(students) <= len(teachers):
            self.pairs = list(zip(students, _counterparts(students, teachers), strict=True))
        else:
            self.pairs = list(zip(_counterparts(teachers, students), teachers, strict=True))
        self._check_weights()
        geometries = [(students[s], teachers[t]) for s, t in self.pairs]
        aligns = [Align(s, t, projection="always") for s, t in geometries]
        if self.mixer == "global_local":
            aligns[-1].projection = nn.Sequential(GlobalLocalMixer(geometries[-1][0].width), aligns[-1].projection)
        self.adapters = nn.ModuleList(aligns)
        if self.assistant:
            self._build_assistants(student, geometries)

    def _build_assistants(self, student: Probe, geometries: Sequence[tuple[Geometry, Geometry]]) -> None:
        self._sources = {tap: (_before(tap), student.geometry(_before(tap)).layout) for tap in self._embeddings[1:]}
        sources = [self._source(tap, student.observation) for tap, _ in self.pairs]
        self.assistants = nn.ModuleList(map(_assistant, sources, geometries))
        self.factors = nn.Parameter(0.1 * torch.arange(1, 2 * len(sources) + 1))

    def _source(self, embedding: Tap, student: Observation) -> Tensor:
        """What the student makes ``embedding`` from, channels first."""
        if embedding in self._sources:
            before, layout = self._sources[embedding]
            return layout.channels_first(student.features[before])
        image = next((tensor for tensor in student.inputs.tensors() if tensor.ndim == 4), None)
        if image is None:
            raise SetupError("`assistant=True` needs an image (N, C, H, W) among the student's inputs, got none.")
        return image

    def _check_weights(self) -> None:
        given = PATCH_EMBEDDING_WEIGHTS[-len(self.pairs) :] if self.stage_weights is None else self.stage_weights
        if len(given) != len(self.pairs):
            raise SetupError(
                f"`stage_weights` must hold one weight per pair of patch embeddings, got {len(given)} for the pairs "
                f"{[(s.path, t.path) for s, t in self.pairs]}."
            )
        self._weights = tuple(given)

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        aligned = [
            align(student.features[s], teacher.features[t])
            for align, (s, t) in zip(self.adapters, self.pairs, strict=True)
        ]
        students, teachers = zip(*aligned, strict=True)
        if self.factors is not None:
            students = self._assisted(students, student, self.factors)
        return patch_embedding_alignment(students, teachers, weights=self._weights)

    def _assisted(self, projected: Sequence[Tensor], student: Observation, factors: Tensor) -> tuple[Tensor, ...]:
        own, extra = factors.chunk(2)
        sources = [self._source(s, student) for s, _ in self.pairs]
        return tuple(
            a * embedding + b * common_grid(assistant(source), embedding)[0]
            for a, b, embedding, assistant, source in zip(own, extra, projected, self.assistants, sources, strict=True)
        )


def _before(tap: Tap) -> Tap:
    """Tap on what an embedding is made from."""
    if tap.at == "input":
        raise SetupError(
            f"`assistant=True` reads the input of the module that makes an embedding, got {tap}: tap its output."
        )
    return Tap(tap.path, at="input", call=tap.call)


def _assistant(source: Tensor, pair: tuple[Geometry, Geometry]) -> EmbeddingAssistant:
    student, teacher = pair
    if source.ndim != 4 or len(student.grid) != 2 or len(teacher.grid) != 2:
        raise SetupError(
            f"`assistant=True` makes embeddings from maps (N, C, H, W), got one on the grids {student.grid} and "
            f"{teacher.grid} to be made from shape {tuple(source.shape)}: use assistant=False."
        )
    stride = [
        max(1, cells // min(tokens))
        for cells, *tokens in zip(source.shape[2:], student.grid, teacher.grid, strict=True)
    ]
    return EmbeddingAssistant(source.shape[1], teacher.width, stride=(stride[0], stride[1]))


def _counterparts(fewer: dict[Tap, Geometry], more: dict[Tap, Geometry]) -> list[Tap]:
    if len(fewer) == len(more):
        return list(more)
    return [min(more, key=lambda tap: _distance(more[tap], geometry)) for geometry in fewer.values()]


def _distance(a: Geometry, b: Geometry) -> float:
    """How far two grids are apart, in octaves of cells."""
    return abs(math.log2(max(math.prod(a.grid), 1)) - math.log2(max(math.prod(b.grid), 1)))
