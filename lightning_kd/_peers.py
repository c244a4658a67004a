"""LightningModules that run inside of another one."""

import inspect
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lightning_kd.errors import SetupError

# What a Trainer calls on the module that it fits, and on no module inside of it.
HOOKS = (
    *("setup", "teardown", "configure_model", "configure_callbacks", "configure_gradient_clipping"),
    *("on_fit_start", "on_fit_end", "on_train_start", "on_train_end", "on_train_epoch_start", "on_train_epoch_end"),
    *("on_train_batch_start", "on_train_batch_end", "on_validation_start", "on_validation_end"),
    *("on_validation_epoch_start", "on_validation_epoch_end", "on_validation_batch_start", "on_validation_batch_end"),
    *("on_test_start", "on_test_end", "on_test_epoch_start", "on_test_epoch_end"),
    *("on_before_backward", "on_after_backward", "backward", "on_before_optimizer_step", "on_before_zero_grad"),
    *("optimizer_step", "optimizer_zero_grad", "lr_scheduler_step", "on_save_checkpoint", "on_load_checkpoint"),
    *("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer"),
)


def refused_hooks(module: pl.LightningModule) -> list[str]:
    """Hooks that a module overrides and that nobody would call inside of another."""
    return [hook for hook in HOOKS if is_overridden(hook, module)]


def child_step(parent: pl.LightningModule, peer: str, hook: str, batch: Any, batch_idx: int) -> Any:
    """Run a step of ``parent.peers[peer]``, whose logging is the parent's with its name in front."""
    child = parent.get_submodule(f"peers.{peer}")

    def log(name: str, value: Any, *args: Any, **options: Any) -> None:
        parent.log(f"{peer}/{name}", value, *args, **options)

    step = getattr(child, hook)
    vars(child)["log"] = log
    try:
        return step(batch, batch_idx) if len(inspect.signature(step).parameters) > 1 else step(batch)
    finally:
        del vars(child)["log"]


def only_optimizer(name: str, module: pl.LightningModule) -> dict[str, Any]:
    """What ``configure_optimizers`` of a module gives, as one optimiser and at most one scheduler.

    Raises:
        SetupError: If it gives several optimisers or schedulers, or a scheduler that follows a metric.
    """
    given = module.configure_optimizers()
    found: dict[str, Any] = {}
    if isinstance(given, Optimizer):
        found = {"optimizer": given}
    elif isinstance(given, dict):
        found = dict(given)
    elif isinstance(given, list | tuple):
        optimizers, schedulers = given if len(given) == 2 and isinstance(given[0], list) else (given, [])
        if len(optimizers) == 1 and len(schedulers) <= 1:
            found = {"optimizer": optimizers[0], **({"lr_scheduler": schedulers[0]} if schedulers else {})}
    if not isinstance(found.get("optimizer"), Optimizer):
        raise SetupError(f"`modules`: {name!r} must configure one optimiser and at most one scheduler, got {given!r}.")
    scheduler = found.get("lr_scheduler")
    inner = scheduler.get("scheduler") if isinstance(scheduler, dict) else scheduler
    if isinstance(inner, ReduceLROnPlateau):
        raise SetupError(f"`modules`: {name!r} has a scheduler that follows a metric, which is not supported.")
    return found
