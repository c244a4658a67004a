"""coremltools, imported without its advice."""

from exporters.quiet import errors_only

with errors_only("coremltools", "torch.utils._pytree"):
    # On Linux coremltools logs that Apple's libraries are missing, and that newer versions of others are untested.
    import coremltools
    from coremltools.converters.mil.frontend.milproto.load import load as load_program
    from coremltools.converters.mil.frontend.torch import is_torch_fx_node_supported
    from coremltools.converters.mil.mil import types
    from coremltools.optimize import coreml as optimize

__all__ = ["coremltools", "is_torch_fx_node_supported", "load_program", "optimize", "types"]
