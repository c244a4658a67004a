"""Weights of fewer bits, and fewer weights."""

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
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
from exporters.quantization.report import QuantizationReport
from exporters.quantization.search import Runtime, draft, search
from exporters.quantization.selection import Recipe, choose
from exporters.quiet import errors_only, no_progress_bars
from exporters.sessions.coreml import EvaluatorSession
from exporters.sessions.pytorch import PyTorchSession
from exporters.threads import available_threads

Compression = LinearWeights | Palette | Sparsity
RECIPES: Mapping[str, LinearWeights | Palette] = {"linear": LinearWeights(), "palette": Palette(bits=8)}
"""What is tried for int8 unless the user says more."""


@dataclass(frozen=True, slots=True)
class Packages:
    """Packages of one converted model with its weights compressed in several ways.

    Args:
        model: The model, with weights in floating point.
        plans: What may be done to the weights, by recipe.
        network: What the packages have to compute.
        folder: Where they are written.
    """

    model: Any
    plans: Mapping[str, Sequence[Compression]]
    network: Network
    folder: Path

    def quantize(self, recipe: str, kept: Collection[str] = ()) -> Path:
        """Write the package of a recipe, with the weights of the modules ``kept`` as they are."""
        path = self.folder / f"{len(list(self.folder.glob('*')))}.mlpackage"
        save(compress(self.model, self.plans[recipe], left=_left(self.model, self.network, kept)), path)
        return path

    def open(self, path: Path) -> EvaluatorSession:
        """A session that evaluates a package."""
        return EvaluatorSession(
            draft(path, "coreml", self.network.signature), threads=available_threads(), precision="default"
        )

    def left_in_float(self, path: Path) -> tuple[str, ...]:
        """Modules whose weights a package holds in floating point."""
        found = audit_program(read_package(path).main, weights_only=True).left_in_float
        return ModulePaths(self.network).named(found)


def write(
    model: Any, path: Path, plans: Mapping[str, Sequence[Compression]], *, network: Network, request: Request
) -> QuantizationReport | None:
    """Compress a converted model and save it.

    Args:
        model: The model, with weights in floating point.
        path: The package folder.
        plans: What may be done to the weights, by recipe. Of several, the search for int8 picks one, which may put
            layers back into floating point; a single one is taken as it is.
        network: What the package has to compute.
        request: What was asked for.

    Returns:
        What was tried and what stayed in floating point; ``None`` unless int8 was asked for.

    Raises:
        ConversionError: If coremltools cannot compress the weights, or the task's metric drops too far.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        packages = Packages(model, plans, network, Path(folder))
        if len(plans) == 1:
            package, report = _only(packages, request)
        else:
            package, report = search(
                network,
                request,
                Runtime(
                    recipes=list(plans),
                    quantize=packages.quantize,
                    open_session=packages.open,
                    left_in_float=packages.left_in_float,
                ),
            )
        package.rename(path)
    return report if request.precision == "int8" else None


def _only(packages: Packages, request: Request) -> tuple[Path, QuantizationReport]:
    """The package of the only recipe, and how close it is where there are real inputs to see that by."""
    (recipe,) = packages.plans
    package = packages.quantize(recipe, request.quantization.keep_float)
    left_in_float = packages.left_in_float(package)
    if request.calibration is None:
        return package, QuantizationReport(recipe="from training", left_in_float=left_in_float)
    _, trials = choose(
        [Recipe(recipe, lambda: packages.open(package))],
        PyTorchSession(packages.network),
        packages.network.samples,
        evaluate=request.evaluate,
    )
    return package, QuantizationReport(
        recipe=recipe, trials=trials, calibration=request.calibration.record, left_in_float=left_in_float
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


def _left(model: Any, network: Network, paths: Collection[str]) -> set[str]:
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
