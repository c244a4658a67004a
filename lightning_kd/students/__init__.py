"""Students that are more than a plain network: what they need for training, and what stays at inference."""

from lightning_kd.students.distillation_token import with_distillation_token
from lightning_kd.students.exits import EarlyExits, Exit
from lightning_kd.students.masked import MaskedAutoencoder, Reconstruction, patchify

__all__ = ["EarlyExits", "Exit", "MaskedAutoencoder", "Reconstruction", "patchify", "with_distillation_token"]
