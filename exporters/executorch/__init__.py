"""Export to ExecuTorch: one ``.pte`` file per network and delegate."""

from exporters.quiet import errors_only, root_logger_kept

with root_logger_kept(), errors_only("torch.utils._pytree"):
    # Importing ExecuTorch sets up logging and warns of its own use of deprecated calls.
    from exporters.executorch.exporter import ExecuTorchExporter

__all__ = ["ExecuTorchExporter"]
