"""What a network costs in a process that starts."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ColdStart:
    """One fresh process: from nothing to the first outputs.

    Args:
        import_ms: Import of the runtime, NumPy being there already, ms.
        load_ms: From the file to a network ready to run, compilation included, checksums not, ms.
        first_ms: First run, ms.
        cached: Whether the runtime found its own cache of the compiled network.
        compile_ms: Part of ``load_ms`` in which the runtime compiled; ``None`` where it reads and compiles in one go.
        page_cache: ``"warm"``: the files had been read just before, so that no disk is in ``load_ms``.
    """

    import_ms: float
    load_ms: float
    first_ms: float
    cached: bool
    compile_ms: float | None = None
    page_cache: str = "warm"

    @property
    def total_ms(self) -> float:
        """Import, load and first run together, ms."""
        return self.import_ms + self.load_ms + self.first_ms
