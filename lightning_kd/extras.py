"""Parts of the package that need more than its own dependencies."""

import importlib
from types import ModuleType

from lightning_kd.errors import MissingExtraError


def import_extra(module: str, extra: str) -> ModuleType:
    """Import a module that needs an extra.

    Args:
        module: Dotted name of the module.
        extra: Name of the extra that installs what it needs.

    Returns:
        The module.

    Raises:
        MissingExtraError: If a package that it imports is not installed.

    Example:
        >>> import_extra("no_such_package", "report")
        Traceback (most recent call last):
        lightning_kd.errors.MissingExtraError: No module named 'no_such_package': pip install 'lightning-kd[report]'.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{error}: pip install 'lightning-kd[{extra}]'.") from error
