"""A keyword spotter of 9,232 parameters, alone and distilled from a larger one, on Speech Commands; and its latency.

The teacher is a BC-ResNet-2 of three times the parameters, trained once on the same 3,850 clips. For every seed a
BC-ResNet-1 is trained alone and distilled (`recipes.keyword_spotting`, temperature 4, half of the loss) by a real
Trainer; initial weights, order of the clips and augmentation depend on the seed only, so that both are compared in
pairs. Teacher and student hear the same augmented clip: it is moved by up to 100 ms, and white noise is added to 80 %.

Accuracies are in per cent of the 1,040 test clips, whose speakers are not in training, after the last epoch and at the
best of the evaluated ones. The split is ours: published accuracies come from the other 100,000 clips. False accepts are
keywords that were accepted with a probability of at least a half, per hour of silence and other words.

The student of the first seed and the teacher are then exported from waveform to class, front end included, and their
latency is measured with one thread. The real-time factor is the computing time of a second of audio, in seconds.
"""

import argparse
import tempfile
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import lightning as L
import torch
from _common import RESULTS, deliver, machine, options, print_table, versions, write_json
from _speech_data import SAMPLE_RATE_HZ, SOURCE, Clips, read_speech_commands
from _training import BATCH, WEIGHT_DECAY, Run, fit_classifier, summarise
from torch import Tensor, nn

import exporters
from exporters.profiling import ProfileOptions, profile
from exporters.runtimes import EXPORTERS, import_runtime
from lightning_kd import recipes
from lightning_kd.speech import AddNoise, LogMel, RandomShift, keyword_rates
from lightning_kd.students import BCResNet

ALONE, DISTILLED = "alone", "keyword_spotting"
RUNTIMES = ("onnx", "openvino", "executorch")
LEARNING_RATE = 1e-2


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is trained.

    Attributes:
        clips: Clips of each part; ``None`` for all.
        teacher_width: Width of the teacher.
        teacher_epochs: Epochs of the teacher.
        student_epochs: Epochs of the students.
        every: Epochs from one evaluation to the next.
    """

    clips: int | None = None
    teacher_width: float = 2.0
    teacher_epochs: int = 5
    student_epochs: int = 3
    every: int = 1


QUICK = Sizes(clips=256, teacher_width=1.5, teacher_epochs=1, student_epochs=1, every=1)


def spotter(width: float, classes: int) -> nn.Sequential:
    """A network from waveform to class, with what happens to the waveform in training."""
    return nn.Sequential(
        OrderedDict(
            augmentation=nn.Sequential(RandomShift(), AddNoise()),
            front_end=LogMel(),
            network=BCResNet(width, classes=classes),
        )
    )


def parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@torch.no_grad()
def scores(net: nn.Module, waveforms: Tensor) -> Tensor:
    """Logits of all clips."""
    net.eval()
    return torch.cat([net(batch) for batch in waveforms.split(256)])


def train(
    net: nn.Sequential, clips: Clips, *, seed: int, epochs: int, every: int, teacher: nn.Module | None = None
) -> Run:
    """Train ``net``, distilled if there is a teacher, and return the record of this run."""
    callbacks = [] if teacher is None else [recipes.keyword_spotting(teacher, path="net.network")]
    run = fit_classifier(
        net,
        clips.train,
        clips.test,
        seed=seed,
        epochs=epochs,
        every=every,
        callbacks=callbacks,
        learning_rate=LEARNING_RATE,
    )
    waveforms, labels = clips.test.tensors
    rates = keyword_rates(scores(net, waveforms), labels, background=clips.background)
    weights = {"task": 1.0} if not callbacks else {"task": 0.5, "logit": 0.5}
    method = ALONE if teacher is None else DISTILLED
    return {"method": method, "seed": seed, "weights": weights} | asdict(rates) | run


def latencies(name: str, net: nn.Sequential, clips: Clips, arguments: argparse.Namespace) -> Iterator[Run]:
    """A row per runtime: latency and size of the exported network, from waveform to class."""
    deployed = nn.Sequential(net.front_end, net.network).eval()
    waveform = clips.test.tensors[0][:1]
    brief = ProfileOptions(min_runs=50, min_seconds=0.2, min_warm_up_seconds=0.1) if arguments.quick else None
    for runtime in arguments.runtimes:
        with tempfile.TemporaryDirectory() as folder:
            exporter = import_runtime(EXPORTERS, runtime)()
            path = Path(folder, f"spotter{exporter.suffix}")
            artifact = exporters.export(deployed, waveform, to=exporter, path=path)
            measured = profile(artifact, threads=1, inputs={artifact.inputs[0].name: waveform.numpy()}, options=brief)
            p50_ms = measured.p50_ms
            yield {
                "network": name,
                "runtime": runtime,
                "parameters": parameters(deployed),
                "size_bytes": artifact.size_bytes,
                "relative_l2": artifact.parity.outputs[0].relative_l2,
                "p50_ms": p50_ms.value,
                "p50_interval_ms": [p50_ms.low, p50_ms.high],
                "real_time_factor": p50_ms.value / 1000 * SAMPLE_RATE_HZ / waveform.shape[1],
            }


def train_teacher(clips: Clips, sizes: Sizes) -> tuple[nn.Sequential, Run]:
    """Train the teacher, and return it with what is known of it."""
    L.seed_everything(0, verbose=False)
    teacher = spotter(sizes.teacher_width, len(clips.classes))
    run = train(teacher, clips, seed=0, epochs=sizes.teacher_epochs, every=sizes.every)
    known = {"name": f"BC-ResNet-{sizes.teacher_width:g}", "parameters": parameters(teacher)} | run
    print(f"{known['name']}: {run['accuracies'][-1]:.2f} % in {run['wall_s']} s", flush=True)
    return teacher, known


def train_student(clips: Clips, sizes: Sizes, *, seed: int, teacher: nn.Module | None) -> tuple[nn.Sequential, Run]:
    """Train one student, and return it with the record of this run."""
    L.seed_everything(seed, verbose=False)
    student = spotter(1.0, len(clips.classes))
    run = train(student, clips, seed=seed, epochs=sizes.student_epochs, every=sizes.every, teacher=teacher)
    print(f"{run['method']}, seed {seed}: {run['accuracies'][-1]:.2f} % in {run['wall_s']} s", flush=True)
    return student, run


def measure(arguments: argparse.Namespace, sizes: Sizes) -> Run:
    """Train the teacher and every student, then measure what is deployed."""
    torch.set_num_threads(1)
    start, clips = time.perf_counter(), read_speech_commands(most=sizes.clips)
    result: Run = {"benchmark": "speech_commands", "machine": machine(), "versions": versions(), "source": SOURCE}
    result |= {"sizes": asdict(sizes), "clips": [len(clips.train), len(clips.test)]}
    result |= {"optimiser": f"AdamW, lr {LEARNING_RATE}, weight decay {WEIGHT_DECAY}, one cycle, batch {BATCH}"}
    teacher, known = train_teacher(clips, sizes)
    result |= {"teacher": known, "runs": []}
    students = []
    for seed, taught in product(arguments.seeds, (None, teacher.network)):
        student, run = train_student(clips, sizes, seed=seed, teacher=taught)
        students.append(student)
        result["runs"].append(run)
        result["rows"] = table(result["runs"], known["name"], parameters(student))
        keep(result, arguments)
    result["exports"] = []
    for name, net in (("BC-ResNet-1", students[1]), (known["name"], teacher)):
        for row in latencies(name, net, clips, arguments):
            result["exports"].append(row)
            keep(result, arguments)
    return result | {"wall_s": round(time.perf_counter() - start)}


def table(runs: list[Run], teacher: str, size: int) -> list[Run]:
    """One row per method, with the rates of each seed."""
    rows = summarise(runs, teacher=teacher, student="BC-ResNet-1")
    for row in rows:
        own = [run for run in runs if run["method"] == row["method"]]
        row |= {key: [run[key] for run in own] for key in ("false_accepts_per_hour", "false_reject_rate")}
        row["parameters"] = size
    return rows


def keep(result: Run, arguments: argparse.Namespace) -> None:
    """Write what there is, so that an interruption keeps it."""
    if arguments.output is not None:
        write_json(arguments.output, result)


def report(result: Run) -> None:
    """Print both tables."""
    figures = ("mean_last", "spread_last", "mean_best", "gain", "gain_spread")
    rows = [
        [row["method"], *("-" if row[key] is None else f"{row[key]:.2f}" for key in figures)] for row in result["rows"]
    ]
    teacher = result["teacher"]
    title = f"BC-ResNet-1 from {teacher['name']} ({teacher['accuracies'][-1]:.2f} %)"
    print_table(title, ["method", "last, %", "spread", "best, %", "gain of last, points", "spread"], rows)
    rows = [
        [
            f"{row['network']}, {row['runtime']}",
            f"{row['p50_ms']:.3f}",
            f"{row['real_time_factor']:.5f}",
            f"{row['size_bytes']}",
        ]
        for row in result["exports"]
    ]
    print_table("From waveform to class, one thread", ["network", "p50, ms", "real-time factor", "bytes"], rows)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="default: 0 1 2, with --quick 0")
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=RUNTIMES, help="default: all")
    arguments = parser.parse_args()
    arguments.seeds = arguments.seeds or ([0] if arguments.quick else [0, 1, 2])
    if arguments.output is None and not arguments.quick:
        arguments.output = RESULTS / "speech_commands.json"
    result = measure(arguments, QUICK if arguments.quick else Sizes())
    report(result)
    deliver(result, arguments, default=None)


if __name__ == "__main__":
    main()
