"""``lightning-kd cache``: ask a teacher once, and write down what it says."""

import os
import time
from argparse import ArgumentTypeError
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from lightning_kd.cli._console import show, working
from lightning_kd.cli._inputs import normalization, published_shape
from lightning_kd.cli._parsing import MODEL, CommandParser, add_json_option, positive
from lightning_kd.errors import SetupError
from lightning_kd.models import load_model, make_object
from lightning_kd.teachers.cache.contract import SECTIONS
from lightning_kd.teachers.cache.folders import image_folder
from lightning_kd.teachers.cache.record import PRECISIONS
from lightning_kd.teachers.cache.replay import NoReplay, Replay, SeededReplay
from lightning_kd.teachers.cache.shards import ShardReader
from lightning_kd.teachers.cache.writer import CacheSpec, CacheWriter

ALL = "all"


def run(command: str, arguments: Sequence[str]) -> None:
    """Write a cache, or the missing shards of one, and say what it holds."""
    parser = _parser(command)
    options = parser.parse_args(arguments)
    if (options.data is None) == (options.dataset is None):
        parser.error("one of --data and --dataset must be given")
    with working() as progress:
        teacher = load_model(options.teacher, pretrained=options.pretrained, checkpoint=options.checkpoint)
        dataset, replay = _data(options, teacher)
        device = options.device or ("cpu" if not torch.accelerator.is_available() else _accelerator())
        writer = CacheWriter(
            options.output, teacher.to(device), dataset, _spec(options, replay), accept=options.accept or ()
        )
        task, start = progress.add_task("asking the teacher", total=None), time.perf_counter()
        written: list[int] = []

        def report(done: int, total: int) -> None:
            written.append(done)
            progress.update(task, completed=done, total=total)

        writer.write(
            batch_size=options.batch_size,
            workers=options.workers,
            part=(options.rank, options.ranks),
            report=report,
        )
        seconds = time.perf_counter() - start
        verified = sum(1 for _ in ShardReader(writer.storage).verify()) if options.verify else None
    contract = writer.contract
    document = {
        "path": options.output,
        "samples": contract.samples,
        "views": contract.views,
        "fields": [list(field) for field in contract.record.fields],
        "record_bytes": contract.record.size_bytes,
        "bytes": contract.record.size_bytes * contract.samples * contract.views,
        "shards_written": len(written),
        "shards_verified": verified,
        "seconds": round(seconds, 3),
    }
    show(document, [_table(document)], as_json=options.json)


def _parser(command: str) -> CommandParser:
    parser = CommandParser(
        command, "Ask a teacher once for every image and view, and write its outputs and features to disk."
    )
    parser.add_argument("teacher", metavar="TEACHER", help=MODEL)
    parser.add_argument("--checkpoint", metavar="FILE", help="the teacher's weights; random if not given")
    parser.add_argument("--pretrained", action="store_true", help="download the teacher's published weights")
    parser.add_argument("--output", required=True, metavar="PATH", help="folder or fsspec URL, as in s3://bucket/cache")
    parser.add_argument("--data", metavar="FOLDER", help="folder with one subfolder of images per class")
    spec = "package.module:function that returns the data set, with arguments as in data:train,root=images"
    parser.add_argument("--dataset", metavar="SPEC", help=spec)
    parser.add_argument("--input-shape", nargs="+", type=positive, metavar="N", help="of --data, as in 1 3 224 224")
    top_k = "largest probabilities to store, or all for the logits themselves (%(default)s)"
    parser.add_argument("--top-k", type=top_k_or_all, default=10, metavar="K", help=top_k)
    parser.add_argument("--features", nargs="+", default=[], metavar="PATH", help="layers whose outputs to store")
    parser.add_argument("--features-only", action="store_true", help="store no outputs")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="float16", help="type of what is stored (%(default)s)"
    )
    parser.add_argument("--views", type=positive, default=1, help="epochs or crops to store (%(default)s)")
    replay = "none: the data are not random; seed: their own random transforms; crop: random crops (%(default)s)"
    parser.add_argument("--replay", choices=("none", "seed", "crop"), default="none", help=replay)
    parser.add_argument("--seed", type=int, default=0, help="of the augmentation (%(default)s)")
    parser.add_argument("--shard-records", type=positive, default=32768, help="records per shard (%(default)s)")
    parser.add_argument("--batch-size", type=positive, default=64, help="images at once (%(default)s)")
    parser.add_argument("--workers", type=int, default=0, help="processes that load images (%(default)s)")
    parser.add_argument("--device", help="where the teacher runs; an accelerator if there is one")
    environment = "of the environment (torchrun) if not given"
    parser.add_argument(
        "--rank", type=int, default=int(os.environ.get("RANK", "0")), help=f"this process, {environment}"
    )
    ranks = positive(os.environ.get("WORLD_SIZE", "1"))
    parser.add_argument("--ranks", type=positive, default=ranks, help=f"number of processes, {environment}")
    parser.add_argument("--accept", nargs="+", choices=SECTIONS, help="what may differ from a cache that is resumed")
    parser.add_argument("--verify", action="store_true", help="check every shard of all processes at the end")
    add_json_option(parser)
    return parser


def top_k_or_all(text: str | int | None) -> int | None:
    """Read a whole number above 0, or ``all``; jsonargparse passes what was read through again."""
    if text is None or text == ALL:
        return None
    try:
        return positive(str(text))
    except ValueError as error:
        raise ArgumentTypeError(f"must be a whole number above 0 or {ALL!r}, got {text!r}") from error


def _data(options: Any, teacher: torch.nn.Module) -> tuple[Any, Replay]:
    if options.dataset is not None:
        if options.replay == "crop":
            raise SetupError("`--replay crop` takes crops of --data; write the cache of a --dataset with CacheWriter.")
        return make_object(options.dataset), SeededReplay(options.seed) if options.replay == "seed" else NoReplay()
    if options.replay == "seed":
        raise SetupError("`--replay seed` repeats a --dataset's own random transforms; --data has none: use crop.")
    shape = [int(size) for size in published_shape(teacher, options.input_shape)]
    crops, size = options.replay == "crop", (shape[-2], shape[-1])
    return image_folder(options.data, size, crops=crops, seed=options.seed, **normalization(teacher))


def _accelerator() -> str:
    return str(torch.accelerator.current_accelerator())


def _spec(options: Any, replay: Replay) -> CacheSpec:
    return CacheSpec(
        top_k=options.top_k,
        output=not options.features_only,
        features=tuple(options.features),
        precision=options.precision,
        views=options.views,
        replay=replay,
        shard_records=options.shard_records,
    )


def _table(document: Mapping[str, Any]) -> Table:
    table = Table(title=f"Teacher outputs in {Path(document['path']).name}")
    for column in ("samples", "views", "bytes per record", "bytes in all", "shards written now", "verified"):
        table.add_column(column, justify="right")
    verified = document["shards_verified"]
    figures = (document[key] for key in ("samples", "views", "record_bytes", "bytes", "shards_written"))
    table.add_row(*(f"{figure:,}" for figure in figures), "not asked for" if verified is None else f"{verified:,}")
    return table
