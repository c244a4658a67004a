"""The numbers of a package against PyTorch, and where float16 ended if they differ."""

from collections.abc import Callable
from dataclasses import replace

from exporters.artifact import Artifact
from exporters.coreml.naming import ModulePaths
from exporters.errors import ParityError
from exporters.mil.evaluator import Overflow
from exporters.network import Network
from exporters.parity import Tolerance
from exporters.session import Session
from exporters.sessions.coreml import EvaluatorSession
from exporters.verification import verify_session

_NOT_CORE_ML = "coreml evaluator (op by op in PyTorch {}); not run by Core ML"


def check_numbers(
    artifact: Artifact, network: Network, open_session: Callable[..., Session], *, tolerance: Tolerance
) -> Artifact:
    """Run a package and PyTorch on inputs other than the example.

    Args:
        artifact: The written package.
        network: What it has to compute, with inputs and outputs as the package has them.
        open_session: Opens the package.
        tolerance: Largest errors allowed.

    Returns:
        The artifact with the figures and what produced them; a note names an operator that left the range of float16
        although the outputs agree.

    Raises:
        ParityError: If an output differs by more; the message names the first operator that overflowed.
    """
    sessions: list[Session] = []

    def opened(*arguments: object, **options: object) -> Session:
        sessions.append(open_session(*arguments, **options))
        return sessions[0]

    try:
        artifact = verify_session(artifact, network, opened, tolerance=tolerance)
    except ParityError as error:
        overflow = _overflow(sessions)
        if overflow is None:
            raise
        raise ParityError(f"{error}\n  {_cure(overflow, network)}", error.report) from error
    overflow = _overflow(sessions)
    if isinstance(sessions[0], EvaluatorSession):
        artifact = replace(artifact, verified_on=_NOT_CORE_ML.format(sessions[0].properties["runtime_version"]))
    return artifact if overflow is None else replace(artifact, notes=(*artifact.notes, _cure(overflow, network)))


def _overflow(sessions: list[Session]) -> Overflow | None:
    return next((each.first_overflow for each in sessions if isinstance(each, EvaluatorSession)), None)


def _cure(overflow: Overflow, network: Network) -> str:
    # The converter's casts belong to no module; what reads them does.
    is_cast = overflow.kind == "cast"
    path = next(iter(ModulePaths(network).of(overflow.reader if is_cast else overflow.operation)), "")
    where = f"{', read by' if is_cast else ' in'} `{path}`" if path else ""
    text = f"The first value that is not finite is made by `{overflow.operation}` ({overflow.kind}){where}"
    if overflow.dtype != "fp16":
        return f"{text}, from finite ones."
    kept = path or overflow.kind
    return (
        f"{text}: it is beyond float16; use CoreMLExporter(keep_float32=({kept!r},)), precision='fp32', or scale what "
        f"goes into it."
    )
