"""``lightning-kd pseudo-label``: a teacher transcribes a data set, once, however often it is stopped."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from rich.progress import Progress
from rich.table import Table

from lightning_kd.cli._console import show, working
from lightning_kd.cli._parsing import CommandParser, add_json_option, positive
from lightning_kd.errors import SetupError
from lightning_kd.speech.clips import Clip, find_clips, read_clip
from lightning_kd.speech.pseudo_labels import PseudoLabel, PseudoLabelStore
from lightning_kd.speech.transcribers import Transcriber, WhisperOptions, load_transcriber

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def run(command: str, arguments: Sequence[str]) -> None:
    """Transcribe what is not transcribed yet of this process's part, and print what was done."""
    parser = _parser(command)
    options = parser.parse_args(arguments)
    if options.rank >= options.ranks:
        parser.error(f"--rank must be below --ranks {options.ranks}, got {options.rank}")
    store = PseudoLabelStore(options.out, rank=options.rank, shard_size=options.shard_size)
    decoding = WhisperOptions(
        language=options.language,
        task=options.task,
        timestamps=not options.no_timestamps,
        beams=options.beams,
        max_new_tokens=options.max_new_tokens,
    )
    store.agree({"teacher": options.teacher, "data": options.data, "precision": options.precision, **_fields(decoding)})
    own = find_clips(options.data)[options.rank :: options.ranks]
    done = store.done()
    missing = [clip for clip in own if clip.id not in done]
    started = time.perf_counter()
    with working() as progress, _ending_on_terminate():
        seconds = _transcribe(missing, store, options, decoding, progress) if missing else 0.0
        store.merge()
    document = {
        "out": options.out,
        "rank": options.rank,
        "ranks": options.ranks,
        "utterances": len(own),
        "done_before": len(own) - len(missing),
        "done_now": len(missing),
        "audio_s": round(seconds, 3),
        "wall_s": round(time.perf_counter() - started, 3),
    }
    show(document, [_table(document)], as_json=options.json)


def _parser(command: str) -> CommandParser:
    parser = CommandParser(
        command,
        "Let a teacher transcribe a data set. Finished batches are safe: after a stop the same command goes on. "
        "Several processes share the work if each is told its --rank, as torchrun tells them.",
    )
    parser.add_argument(
        "--teacher", required=True, metavar="NAME", help="folder or name of a Whisper or CTC checkpoint"
    )
    parser.add_argument(
        "--data", required=True, metavar="PATH", help='folder of audio, or .jsonl with "audio" and "text"'
    )
    parser.add_argument("--out", required=True, metavar="URL", help="folder, or anything that fsspec opens")
    parser.add_argument("--language", help="language of the audio; the model detects it if not given")
    parser.add_argument("--task", choices=["transcribe", "translate"], help="for multilingual Whisper")
    parser.add_argument("--no-timestamps", action="store_true", help="let Whisper write none")
    parser.add_argument("--beams", type=positive, default=1, help="hypotheses of Whisper's search (%(default)s)")
    parser.add_argument("--max-new-tokens", type=positive, metavar="N", help="most tokens of a transcript")
    parser.add_argument("--batch-size", type=positive, default=8, help="clips at once, and per file (%(default)s)")
    parser.add_argument("--shard-size", type=positive, default=1024, help="transcripts per merged file (%(default)s)")
    parser.add_argument("--device", default="cpu", help="where the teacher runs (%(default)s)")
    parser.add_argument(
        "--precision", choices=list(PRECISIONS), default="fp32", help="type of its weights (%(default)s)"
    )
    parser.add_argument("--rank", type=_count, default=_environment("RANK", 0), help="number of this process")
    parser.add_argument("--ranks", type=positive, default=_environment("WORLD_SIZE", 1), help="how many processes")
    add_json_option(parser)
    return parser


def _count(text: str) -> int:
    """Read a whole number that is not negative."""
    return positive(str(int(text) + 1)) - 1


def _environment(name: str, default: int) -> int:
    value = os.environ.get(name, str(default))
    if not value.isdecimal():
        raise SetupError(f"the environment variable {name} must be a whole number, got {value!r}.")
    return int(value)


def _fields(decoding: WhisperOptions) -> dict[str, Any]:
    return {name: getattr(decoding, name) for name in ("language", "task", "timestamps", "beams", "max_new_tokens")}


def _transcribe(
    clips: Sequence[Clip], store: PseudoLabelStore, options: Any, decoding: WhisperOptions, progress: Progress
) -> float:
    """Transcribe batch by batch; return how many seconds of audio there were."""
    teacher = load_transcriber(
        options.teacher, device=options.device, dtype=PRECISIONS[options.precision], options=decoding
    )
    task = progress.add_task("transcribing", total=len(clips))
    seconds = 0.0
    for start in range(0, len(clips), options.batch_size):
        labels = _labelled(clips[start : start + options.batch_size], teacher)
        store.write(labels)
        seconds += sum(label.seconds for label in labels)
        progress.advance(task, len(labels))
    return seconds


def _labelled(clips: Sequence[Clip], teacher: Transcriber) -> list[PseudoLabel]:
    audio = [read_clip(clip.path, sample_rate=teacher.sample_rate) for clip in clips]
    return [
        PseudoLabel(
            id=clip.id,
            audio=clip.path,
            seconds=len(samples) / teacher.sample_rate,
            text=transcript.text,
            tokens=transcript.tokens,
            scores=transcript.scores,
            reference=clip.text,
        )
        for clip, samples, transcript in zip(clips, audio, teacher(audio), strict=True)
    ]


@contextmanager
def _ending_on_terminate() -> Iterator[None]:
    """Let a scheduler's SIGTERM end the process as an interrupt does."""

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _table(document: dict[str, Any]) -> Table:
    table = Table(title=f"Pseudo-labels in {document['out']}")
    for heading in ("process", "utterances", "done before", "done now", "audio, s", "time, s"):
        table.add_column(heading, justify="right")
    process = f"{document['rank']} of {document['ranks']}"
    figures = (document[name] for name in ("utterances", "done_before", "done_now", "audio_s", "wall_s"))
    table.add_row(process, *map(str, figures))
    return table
