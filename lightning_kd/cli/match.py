"""``lightning-kd match``: which layers of two networks see the same things."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

import torch
from rich.progress import Progress
from rich.table import Table
from torch import Tensor, nn

from lightning_kd.cli._console import show, working
from lightning_kd.cli._inputs import normalization, published_shape
from lightning_kd.cli._parsing import MODEL, CommandParser, add_input_options, add_json_option, positive
from lightning_kd.errors import SetupError
from lightning_kd.extras import import_extra
from lightning_kd.images import load_images
from lightning_kd.models import load_model
from lightning_kd.similarity import LayerMatch, SimilarityMap, match_layers, similarity_map


def run(command: str, arguments: Sequence[str]) -> None:
    """Estimate the similarity map of two networks, choose pairs, print them and draw the map."""
    options = _parser(command).parse_args(arguments)
    plots = None if options.plot is None else import_extra("lightning_kd.plots", "report")
    with working() as progress:
        torch.manual_seed(options.seed)
        teacher = load_model(
            options.teacher, pretrained=options.teacher_pretrained, checkpoint=options.teacher_checkpoint
        )
        student = load_model(
            options.student, pretrained=options.student_pretrained, checkpoint=options.student_checkpoint
        )
        images = _images(options.data, published_shape(teacher, options.input_shape), options.samples, teacher)
        for role, network in (("teacher", teacher), ("student", student)):
            _check_accepts(role, network, images)
        similarity = similarity_map(
            student,
            teacher,
            _tracked(torch.split(images, options.batch_size), progress),
            student_layers=options.student_layers,
            teacher_layers=options.teacher_layers,
        )
    matches = match_layers(similarity, top=options.top, monotone=options.monotone)
    if plots is not None:
        plots.plot_similarity(similarity, matches, options.plot)
    document = {
        "student_layers": similarity.student_layers,
        "teacher_layers": similarity.teacher_layers,
        "values": similarity.values.tolist(),
        "samples": similarity.samples,
        "data": options.data,
        "matches": [asdict(match) for match in matches],
        "plot": options.plot,
    }
    remarks = _remarks(similarity, options.data, options.plot)
    show(document, [_table(matches), *remarks], as_json=options.json)


def _parser(command: str) -> CommandParser:
    parser = CommandParser(command, "Find the layers of two networks that see the same things, by unbiased CKA.")
    parser.add_argument("teacher", metavar="TEACHER", help=MODEL)
    parser.add_argument("student", metavar="STUDENT", help="likewise")
    for network in ("teacher", "student"):
        parser.add_argument(f"--{network}-checkpoint", metavar="FILE", help="weights; random if not given")
        parser.add_argument(f"--{network}-pretrained", action="store_true", help="download the published weights")
        parser.add_argument(f"--{network}-layers", nargs="+", metavar="PATTERN", help="layers, as in 'blocks.*'")
    parser.add_argument("--data", metavar="PATH", help="folder of images, or .npy of inputs; random if not given")
    parser.add_argument("--samples", type=positive, default=256, help="how many inputs (%(default)s)")
    parser.add_argument("--batch-size", type=positive, default=32, help="inputs at once, at least 4 (%(default)s)")
    parser.add_argument("--top", type=positive, metavar="K", help="print the K most similar pairs only")
    parser.add_argument("--monotone", action="store_true", help="keep the order of depth; each layer at most once")
    parser.add_argument("--plot", metavar="PNG", help="draw the map, with the pairs framed")
    add_input_options(parser)
    add_json_option(parser)
    return parser


def _images(data: str | None, shape: tuple[int | str, ...], samples: int, teacher: nn.Module) -> Tensor:
    """Inputs of both networks: real ones, or standard normal noise."""
    sizes = [int(size) for size in shape[1:]]
    if data is None:
        return torch.randn(samples, *sizes)
    return load_images(data, sizes, samples=samples, **normalization(teacher))


def _check_accepts(role: str, network: nn.Module, images: Tensor) -> None:
    """Raise `SetupError` unless the network runs on these inputs."""
    try:
        with torch.inference_mode():
            network.eval()(images[:1])
    except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise SetupError(
            f"`--input-shape` must be one that the {role} ({type(network).__name__}) accepts, "
            f"got {tuple(images.shape[1:])}: {error}"
        ) from error


def _tracked(batches: Sequence[Tensor], progress: Progress) -> Iterator[Tensor]:
    yield from progress.track(batches, description="comparing layers")


def _table(matches: Sequence[LayerMatch]) -> Table:
    table = Table(title="Most similar layers")
    table.add_column("student layer")
    table.add_column("teacher layer")
    table.add_column("CKA", justify="right")
    for match in matches:
        table.add_row(match.student, match.teacher, f"{match.similarity:.3f}")
    return table


def _remarks(similarity: SimilarityMap, data: str | None, plot: str | None) -> list[str]:
    remarks = [f"Unbiased CKA of {similarity.samples} samples."]
    if data is None:
        remarks.append("The inputs were random noise: give --data for the similarity on what the networks will see.")
    if plot is not None:
        remarks.append(f"The map is in {plot}.")
    return remarks
