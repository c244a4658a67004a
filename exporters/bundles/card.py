"""The model card of a bundle: what the network is, and what was measured of each of its files, in Markdown."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

from exporters.artifact import Artifact
from exporters.metadata.schema import KEY

NOT_STATED = "not stated"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What only the author knows; what is left empty is said to be not stated.

    Args:
        name: Name of the network.
        task: What it is for.
        data: What it was trained on.
        teacher: What it was distilled from.
        recipe: How.
        accuracy: How good it is, on which data.
        latency: How fast it is, on which device.
        licence: Under which terms it may be used.
        limits: What it should not be used for.
    """

    name: str = "student"
    task: str = ""
    data: str = ""
    teacher: str = ""
    recipe: str = ""
    accuracy: str = ""
    latency: str = ""
    licence: str = ""
    limits: str = ""


def markdown(card: ModelCard, artifacts: Sequence[tuple[str, Artifact]]) -> str:
    """The card's text.

    Args:
        card: What the author says.
        artifacts: Every artifact with the path of its file in the bundle.
    """
    lines = [f"# {card.name}", ""]
    lines += [
        f"- **{field.name}**: {getattr(card, field.name) or NOT_STATED}"
        for field in fields(card)
        if field.name != "name"
    ]
    lines += ["", "## Files", "", *_files(artifacts), "", "## Inputs and outputs", "", *_tensors(artifacts[0][1])]
    notes = [(path, note) for path, artifact in artifacts for note in artifact.notes]
    if notes:
        lines += ["", "## What has to be known", "", *(f"- `{path}`: {note}" for path, note in notes)]
    entries = {key: value for _, artifact in artifacts for key, value in artifact.metadata.items() if key != KEY}
    if entries:
        lines += ["", "## Metadata", "", *(f"- **{key}**: {value}" for key, value in entries.items())]
    return "\n".join([*lines, "", "## Use", "", *_USE]) + "\n"


_USE = (
    "`python run.py FILE` runs a file on random inputs, `--inputs inputs.npz --outputs outputs.npz` on yours. It takes",
    "Python, NumPy and the runtime, and checks the file before. `sha256sum --check SHA256SUMS` checks everything. The",
    "manifest beside each file has every figure, option and version.",
)


def _files(artifacts: Sequence[tuple[str, Artifact]]) -> Iterator[str]:
    heads = ("file", "runtime", "precision", "bytes", "relative L2", "cosine", "checked on", "metric", "left in float")
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for path, artifact in artifacts:
        cells = (
            f"`{path}`",
            artifact.format,
            artifact.precision,
            str(artifact.size_bytes),
            *_parity(artifact),
            artifact.verified_on,
            _task(artifact),
            str(len(artifact.quantization.left_in_float)) if artifact.quantization else "",
        )
        yield f"| {' | '.join(cells)} |"


def _parity(artifact: Artifact) -> tuple[str, str]:
    if artifact.parity is None:
        return ("not run", "not run")
    outputs = artifact.parity.outputs
    return (
        f"{max(output.relative_l2 for output in outputs):.2g}",
        f"{min(output.cosine for output in outputs):.6f}",
    )


def _task(artifact: Artifact) -> str:
    task = artifact.task
    if task is None:
        return "not measured"
    return f"{task.metric} {task.exported:.4g} (PyTorch {task.reference:.4g}, {task.samples} samples)"


def _tensors(artifact: Artifact) -> Iterator[str]:
    for kind, specs in (("input", artifact.inputs), ("output", artifact.outputs)):
        for spec in specs:
            shape = ", ".join(map(str, spec.shape))
            yield f"- {kind} `{spec.name}`: {spec.dtype} ({shape})"
    for name, sizes in artifact.signature.dimensions.items():
        yield f"- `{name}` may be {sizes}"
