"""The demo's result as a page."""

from collections.abc import Sequence

import numpy as np

from lightning_kd.demo.deployment import Deployment
from lightning_kd.demo.digits import SPLIT
from lightning_kd.demo.result import DemoResult, percent
from lightning_kd.demo.training import PAIRS, TASK_WEIGHT, TEMPERATURE
from lightning_kd.plots import similarity_figure
from lightning_kd.report import Picture, Report, Section, Table
from lightning_kd.report.figures import Candidate, accuracy_against_latency, as_svg, latency_distribution


def demo_report(result: DemoResult) -> Report:
    """Describe the result.

    Args:
        result: What the demo found.

    Returns:
        The page.
    """
    trained = result.trained
    return Report(
        title="From teacher to edge, on handwritten digits",
        summary=(
            f"A convolutional network taught a small vision transformer, which was then exported, compared with "
            f"PyTorch number by number, and timed on this machine. {result.verdict}"
        ),
        figures=[
            (f"{100 * trained.teacher_accuracy:.1f} %", "teacher, test accuracy"),
            (percent(trained.alone), "student without the teacher"),
            (percent(trained.distilled), "student with the teacher"),
            *_fastest(result.deployments),
        ],
        sections=[
            _deployments(result),
            _distribution(result),
            _similarity(result),
            _parity(result),
            _training(result),
            _machine(result),
        ],
    )


def _fastest(deployments: Sequence[Deployment]) -> list[tuple[str, str]]:
    timed = [
        (deployment.profile.p50_ms.value, deployment)
        for deployment in deployments
        if deployment.network == "student" and deployment.profile is not None and deployment.profile.p50_ms is not None
    ]
    if not timed:
        return []
    p50_ms, fastest = min(timed, key=lambda pair: pair[0])
    return [(f"{p50_ms:.2g} ms", f"one image on {fastest.label}, median")]


def _deployments(result: DemoResult) -> Section:
    seed = result.lesson.seeds[0]
    return Section(
        heading="Accuracy against latency",
        text=(
            f"The student of seed {seed} and its teacher. Accuracy is that of the exported file in its runtime on all "
            f"500 test images; latency is that of one image on one thread, after a warm-up, with 95 % intervals. The "
            f"student without the teacher has the same architecture, so it is drawn at the latency of its twin."
        ),
        parts=[
            Picture(
                svg=accuracy_against_latency(_candidates(result)),
                caption="Better is up and to the left. Bars, where there is one to be seen, are intervals.",
            ),
            Table(
                headings=result.headings,
                rows=result.rows,
                caption="The error is the largest one, over the outputs' range.",
            ),
        ],
    )


def _candidates(result: DemoResult) -> list[Candidate]:
    candidates = []
    for deployment in result.deployments:
        if deployment.profile is None or deployment.profile.p50_ms is None or deployment.accuracy is None:
            continue
        of_network = {"teacher": deployment.accuracy}
        if deployment.network == "student":
            of_network = {"distilled student": deployment.accuracy}
            if deployment.precision == "fp32":
                of_network["student alone"] = result.trained.alone.accuracies[0]
        candidates += [
            Candidate(
                network=network, runtime=deployment.label, latency_ms=deployment.profile.p50_ms, accuracy=accuracy
            )
            for network, accuracy in of_network.items()
        ]
    return candidates


def _distribution(result: DemoResult) -> Section:
    latencies_ms = {
        deployment.label: np.divide(deployment.profile.latencies_ns, 1e6).tolist()
        for deployment in result.deployments
        if deployment.network == "student" and deployment.profile is not None
    }
    return Section(
        heading="Distribution of latencies",
        text=f"Every measured run of the student; none was left out.{_disturbance(result)}",
        parts=[
            Picture(
                svg=latency_distribution(latencies_ms),
                caption="A steep curve is an even latency; a long tail to the right is what users notice.",
            )
        ],
    )


def _disturbance(result: DemoResult) -> str:
    """What speaks against the latencies, as sentences with a space in front; nothing on a quiet machine."""
    load, cores = result.machine.load_average, result.machine.cores
    unsteady = [
        f"{deployment.network} on {deployment.label}"
        for deployment in result.deployments
        if deployment.profile is not None and not deployment.profile.steady
    ]
    text = ""
    if load is not None and load > cores:
        text += (
            f" {load:.1f} tasks were running or waiting on {cores} cores before the demo began: the machine was busy."
        )
    if unsteady:
        text += f" The warm-up found no steady state for: {', '.join(unsteady)}."
    return text


def _similarity(result: DemoResult) -> Section:
    maps, pairs = result.trained.maps, result.trained.pairs
    return Section(
        heading="What the layers have in common",
        text=(
            f"Centred kernel alignment (CKA) of student and teacher layers on the training images: 1 means the same "
            f"geometry, 0 none in common. The {PAIRS} framed pairs were chosen by it when training started, and then "
            f"distilled; no layer was named by hand."
        ),
        parts=[
            Picture(
                svg=as_svg(lambda: similarity_figure(maps["alone"], []), "Similarity without the teacher"),
                caption="Student trained without the teacher.",
                half=True,
            ),
            Picture(
                svg=as_svg(lambda: similarity_figure(maps["distilled"], pairs), "Similarity with the teacher"),
                caption="Student trained with the teacher.",
                half=True,
            ),
        ],
    )


def _parity(result: DemoResult) -> Section:
    rows = []
    for deployment in result.deployments:
        artifact = deployment.artifact
        if artifact is None:
            continue
        figures = ["not run"] * 5
        if artifact.parity is not None:
            (output,) = artifact.parity.outputs
            figures = [
                f"{output.max_abs:.1e}",
                f"{output.max_abs_of_range:.1e} ({artifact.parity.tolerance.max_abs_of_range:.0e})",
                f"{output.relative_l2:.1e} ({artifact.parity.tolerance.relative_l2:.0e})",
                f"{output.sqnr_db:.0f} dB",
                f"{output.argmax_agreement:.1%}",
            ]
        rows.append([f"{deployment.network}, {deployment.label}", *figures, artifact.verified_on])
    return Section(
        heading="Parity with PyTorch",
        text=(
            "Each file was run on inputs other than the example and compared with PyTorch before it was written; "
            "bounds are in brackets. Core ML runs on Apple's systems only: elsewhere the saved program is evaluated "
            "op by op in PyTorch, which gives its accuracy and not its latency."
        ),
        parts=[
            Table(
                headings=(
                    "file",
                    "max error",
                    "of range",
                    "relative L2",
                    "signal to error",
                    "same class",
                    "checked on",
                ),
                rows=rows,
                caption="Errors of the logits.",
            )
        ],
    )


def _training(result: DemoResult) -> Section:
    lesson, trained = result.lesson, result.trained
    rows = [
        (str(seed), f"{100 * alone:.1f} %", f"{100 * distilled:.1f} %", f"{100 * (distilled - alone):+.1f}")
        for seed, alone, distilled in zip(
            lesson.seeds, trained.alone.accuracies, trained.distilled.accuracies, strict=True
        )
    ]
    return Section(
        heading="How it was trained",
        text=(
            f"{SPLIT}. The teacher took {lesson.teacher_epochs} epochs, every student {lesson.student_epochs}, with "
            f"AdamW and a one-cycle schedule. Distillation: logits at temperature {TEMPERATURE:g} and CKA of {PAIRS} "
            f"matched layer pairs, both with weight 1, and the labels with weight {TASK_WEIGHT:g}. Students of one "
            f"seed start from the same weights and see the same batches."
        ),
        parts=[
            Table(
                headings=("seed", "without the teacher", "with the teacher", "difference, points"),
                rows=rows,
                caption="Test accuracy of the student.",
            )
        ],
    )


def _machine(result: DemoResult) -> Section:
    machine = result.machine
    facts = [
        ("processor", machine.cpu),
        ("cores", str(machine.cores)),
        ("load average before", "unknown" if machine.load_average is None else f"{machine.load_average:.1f}"),
        ("time of the whole demo", f"{result.seconds:.0f} s"),
        *result.versions.items(),
    ]
    return Section(
        heading="Machine and versions",
        text="Times belong to this machine and moment; a shared or busy machine gives longer and less even ones.",
        parts=[Table(headings=("what", "value"), rows=facts, caption="Where the figures come from.")],
    )
