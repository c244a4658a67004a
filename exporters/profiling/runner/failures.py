"""Why a job could not be done, in a form that travels."""

from typing import Literal, get_args

FailureKind = Literal["missing_runtime", "outputs_differ", "tampered", "precision", "threads", "failed"]
KINDS = get_args(FailureKind)


class JobError(Exception):
    """A job that cannot be done here.

    Args:
        kind: What kind of reason, for programs.
        message: The reason, for people.
    """

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind: FailureKind = kind
