"""A projector that reads a student's map by cross-attention, as ScaleKD builds it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_positive
from lightning_kd.adapters import AdapterNorm, Geometry
from lightning_kd.errors import LayoutError, ShapeError

SHARPNESS = 5.0


class CrossAttentionProjector(nn.Module):
    r"""Cross-attention projector (CAP): queries on the teacher's grid gather what the student's map holds.

    .. math::
        x = \mathrm{ReLU}(\mathrm{BN}(\mathrm{Conv}_{3 \times 3}(F))) + P, \qquad
        q = \mathrm{ReLU}(\mathrm{Conv}_{1 \times 1}(q_0))

    .. math::
        n = \mathrm{LN}\bigl(W_o \, \mathrm{softmax}(c \, Q K^\top / \sqrt{d}) \, V\bigr), \qquad
        A = n + \mathrm{FFN}(n)

    with the learned positions :math:`P`, queries :math:`Q` of :math:`q`, keys and values of :math:`x`, head width
    :math:`d`, sharpness :math:`c`, and two linear layers with ReLU between for the FFN. Grids and widths of student and
    teacher need not agree. There is no residual around the attention.

    Args:
        student: Geometry of the student's feature; its grid is fixed, as it has learned positions.
        width: Teacher's width, that of the result.
        grid: Height and width of the result.
        heads: Attention heads; must divide ``width``.
        learned_queries: Whether :math:`q_0` is learned; else it must be given.
        sharpness: Factor :math:`c` of the attention's scores.

    Raises:
        LayoutError: If the student's feature is no map and no patch tokens.
        ShapeError: If ``heads`` does not divide ``width``.
        ValueError: If ``heads`` or ``sharpness`` is not above 0.

    Source:
        Fan et al., "ScaleKD: Strong Vision Transformers Could Be Excellent Teachers", arXiv:2411.06786, in the form of
        its code. Batches of one sample with a 1x1 map are ours (`AdapterNorm`).

    Example:
        >>> from lightning_kd.layout import Layout
        >>> student = Geometry(Layout("NCHW"), 16, (14, 14))
        >>> CrossAttentionProjector(student, width=64, grid=(7, 7))(torch.zeros(2, 16, 14, 14)).shape
        torch.Size([2, 64, 7, 7])
    """

    def __init__(
        self,
        student: Geometry,
        *,
        width: int,
        grid: tuple[int, int],
        heads: int = 8,
        learned_queries: bool = True,
        sharpness: float = SHARPNESS,
    ) -> None:
        super().__init__()
        check_positive("heads", heads)
        check_positive("sharpness", sharpness)
        if width % heads:
            raise ShapeError(f"`heads` must divide the teacher's width of {width}, got {heads}.")
        if len(student.grid) != 2:
            raise LayoutError(f"cross-attention needs a map or patch tokens of the student, got grid {student.grid}.")
        self.layout = student.layout
        self.heads = heads
        self.scale = sharpness / (width // heads) ** 0.5
        inner = student.width
        self.enter = nn.Sequential(nn.Conv2d(inner, inner, 3, padding=1, bias=False), AdapterNorm(inner), nn.ReLU())
        self.positions = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, inner, *student.grid), std=0.02))
        self.queries = nn.Parameter(torch.randn(1, width, *grid)) if learned_queries else None
        self.ask = nn.Sequential(nn.Conv2d(width, width, 1), nn.ReLU())
        self.to_query, self.to_key, self.to_value = (nn.Linear(size, width) for size in (width, inner, inner))
        self.join = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))

    @override
    def forward(self, feature: Tensor, queries: Tensor | None = None) -> Tensor:
        """Return the projected map.

        Args:
            feature: The student's feature as tapped.
            queries: Queries :math:`q_0` of shape ``(N, width, *grid)`` where none are learned.

        Returns:
            Shape ``(N, width, *grid)``.

        Raises:
            ShapeError: If the feature has another grid than the one that the positions were made for.
        """
        entered = self.enter(self.layout.channels_first(feature))
        if entered.shape[2:] != self.positions.shape[2:]:
            raise ShapeError(
                f"the student's grid is {tuple(entered.shape[2:])} and the positions were made for "
                f"{tuple(self.positions.shape[2:])}: train on images of one size."
            )
        asked = self.ask(self._queries(queries, len(entered)))
        source = _tokens(entered + self.positions)
        attended = self._attention(self.to_query(_tokens(asked)), self.to_key(source), self.to_value(source))
        normed = self.norm(self.join(attended))
        projected: Tensor = normed + self.feed_forward(normed)
        return projected.transpose(1, 2).reshape(asked.shape)

    def _queries(self, given: Tensor | None, batch: int) -> Tensor:
        queries = self.queries if given is None else given
        if queries is None or (given is not None and self.queries is not None):
            state = "are learned" if given is not None else "must be given"
            raise ShapeError(f"`queries` {state}, as `learned_queries` says.")
        return queries.expand(batch, -1, -1, -1)

    def _attention(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        q, k, v = (tokens.reshape(*tokens.shape[:2], self.heads, -1).transpose(1, 2) for tokens in (query, key, value))
        return F.scaled_dot_product_attention(q, k, v, scale=self.scale).transpose(1, 2).flatten(2)

    @override
    def extra_repr(self) -> str:
        return f"heads={self.heads}, scale={self.scale:.4g}"


def _tokens(map_: Tensor) -> Tensor:
    return map_.flatten(2).transpose(1, 2)
