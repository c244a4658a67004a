"""Weights of fewer bits, and fewer weights."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from exporters.coreml.naming import ModulePaths
from exporters.coreml.options import DeploymentTarget, LinearWeights, Palette, Sparsity, check_new_enough
from exporters.coreml.reproducible import save
from exporters.errors import ConversionError
from exporters.exporter import Request
from exporters.mil.audit import audit_program
from exporters.mil.evaluator import input_vars, operations
from exporters.mil.package import read_package
from exporters.mil.toolkit import optimize
from exporters.network import Network
from exporters.quantization.report import QuantizationReport, Trial
from exporters.quantization.selection import Recipe, choose
from exporters.quiet import errors_only, no_progress_bars
from exporters.sessions.coreml import EvaluatorSession
from exporters.sessions.pytorch import PyTorchSession
from exporters.signature import Signature
from exporters.threads import available_threads

Compression = LinearWeights | Palette | Sparsity
RECIPES: Mapping[str, LinearWeights | Palette] = {"linear": LinearWeights(), "palette": Palette(bits=8)}
"""What is tried for int8 unless the user says more."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A package that is not an artifact yet: what a session needs of it."""

    path: Path
    signature: Signature


def write(
    model: Any, path: Path, plans: Mapping[str, Sequence[Compression]], *, network: Network, request: Request
) -> QuantizationReport | None:
    """Compress a converted model in the best of several ways and save it.

    Args:
        model: The model, with weights in floating point.
        path: The package folder.
        plans: What may be done to the weights, by recipe; the one closest to the network is taken.
        network: What the package has to compute.
        request: What was asked for.

    Returns:
        What was tried and what stayed in floating point; ``None`` unless int8 was asked for.

    Raises:
        ConversionError: If coremltools cannot compress the weights, or the task's metric drops too far.
    """
    left = _left(model, network, request.quantization.keep_float)
    folder = path.with_name(f".{path.stem}-recipes")
    drafts = {name: folder / f"{index}.mlpackage" for index, name in enumerate(plans)}

    def open_recipe(name: str) -> EvaluatorSession:
        save(compress(model, plans[name], left=left), drafts[name])
        return EvaluatorSession(
            Draft(drafts[name], network.signature), threads=available_threads(), precision="default"
        )

    trials: tuple[Trial, ...] = ()
    best = next(iter(plans))
    try:
        if request.calibration is not None:
            candidates = [Recipe(name, partial(open_recipe, name)) for name in plans]
            index, trials = choose(
                candidates,
                PyTorchSession(network),
                network.samples,
                evaluate=request.evaluate,
                time_limit_s=request.quantization.time_limit_s,
            )
            best = candidates[index].recipe
        else:
            save(compress(model, plans[best], left=left), drafts[best])
        drafts[best].rename(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if request.precision != "int8":
        return None
    calibration = request.calibration
    left_in_float = audit_program(read_package(path).main, weights_only=True).left_in_float
    return QuantizationReport(
        recipe="from training" if calibration is None else best,
        trials=trials,
        calibration=None if calibration is None else calibration.record,
        left_in_float=ModulePaths(network).named(left_in_float),
    )


def steps(
    weights: LinearWeights | Palette | None, sparsity: Sparsity | None, target: DeploymentTarget
) -> list[Compression]:
    """What to do to the weights, in order.

    Raises:
        ConversionError: If the deployment target is too old for it.
    """
    if weights is not None:
        weights.check_target(target)
    if weights is not None and sparsity is not None:
        check_new_enough(target, f"weights that are both {sparsity.recipe} and {weights.recipe}")
    return [step for step in (sparsity, weights) if step is not None]


@errors_only("coremltools")
def compress(model: Any, plan: Sequence[Compression], *, left: set[str]) -> Any:
    """Compress the weights of a converted model.

    Args:
        model: The model, with weights in floating point.
        plan: What to do, in order; later steps act on what earlier ones left.
        left: Names of the constants to leave as they are.

    Returns:
        The compressed model.

    Raises:
        ConversionError: If coremltools cannot compress it.
    """
    for position, step in enumerate(plan):
        configuration = optimize.OptimizationConfig(
            global_config=_configuration(step), op_name_configs=dict.fromkeys(left)
        )
        try:
            with no_progress_bars():
                model = _FUNCTIONS[type(step)](model, configuration, joint_compression=position > 0)
        except (RuntimeError, ValueError, TypeError, AssertionError, LookupError) as error:
            raise ConversionError(
                f"weights must be compressible as {step.recipe!r}, but coremltools raised {type(error).__name__}: "
                f"{error}"
            ) from error
    return model


_FUNCTIONS = {
    LinearWeights: optimize.linear_quantize_weights,
    Palette: optimize.palettize_weights,
    Sparsity: optimize.prune_weights,
}


def _configuration(step: Compression) -> Any:
    if isinstance(step, LinearWeights):
        return optimize.OpLinearQuantizerConfig(
            mode="linear_symmetric",
            dtype=f"int{step.bits}",
            granularity="per_channel" if step.block_size is None else "per_block",
            block_size=step.block_size or 0,
        )
    if isinstance(step, Palette):
        return optimize.OpPalettizerConfig(
            mode="kmeans",
            nbits=step.bits,
            granularity="per_tensor" if step.group_size is None else "per_grouped_channel",
            group_size=step.group_size or 0,
        )
    if step.target is None:
        return optimize.OpThresholdPrunerConfig(threshold=0.0, minimum_sparsity_percentile=0.05)
    return optimize.OpMagnitudePrunerConfig(target_sparsity=step.target)


def _left(model: Any, network: Network, paths: tuple[str, ...]) -> set[str]:
    """Names of the constants that modules at ``paths`` read."""
    if not paths:
        return set()
    found = ModulePaths(network)
    main = read_package(Path(model.package_path)).main
    chosen = {op: [path for path in paths if found.within(op.name, path)] for op in operations(main)}
    missing = set(paths).difference(*chosen.values())
    if missing:
        raise ConversionError(f"`keep_float` must name modules of the network, got {sorted(missing)}, which are none.")
    return {var.op.name for op, matches in chosen.items() if matches for var in input_vars(op) if var.op is not None}
