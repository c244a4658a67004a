"""What a profile of layers found."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from exporters.profiling.runner.machine import Machine
from exporters.profiling.subject import Subject, dump_result, load_result

CLOCK_STEP_MS = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTime:
    """Time of one operation of a runtime.

    Args:
        name: What the runtime calls it.
        module: Path of the network's module that it belongs to, ``""`` for the network itself; ``None`` where the file
            does not say, as for what the runtime added.
        operator: What the runtime executed.
        time_ms: Mean over the runs, ms.
    """

    name: str
    module: str | None
    operator: str
    time_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerProfile:
    """Time of every operation of a network, in runs that were made for it.

    Counting takes time itself, so latency is never read from these runs. Runtimes count whole microseconds per call and
    some round down: in a network whose operations take a few microseconds the figures say little.

    Args:
        subject: What was measured.
        machine: Where, read just before.
        runs: Number of runs that the times are means of.
        run_ms: Mean time of a whole run as the caller sees it, counting included, ms.
        layers: Every operation that the runtime reports, in its order.
    """

    subject: Subject
    machine: Machine
    runs: int
    run_ms: float
    layers: tuple[LayerTime, ...]

    @property
    def layers_ms(self) -> float:
        """Time of all operations together, ms; the rest of ``run_ms`` lies between them and in counting."""
        return sum(layer.time_ms for layer in self.layers)

    def share(self, time_ms: float) -> float:
        """Fraction of the time of all operations, 0 to 1; 0 where none took as long as the runtime can count."""
        return time_ms / self.layers_ms if self.layers_ms else 0.0

    def by_module(self) -> dict[str | None, float]:
        """Time of each module's own operations, ms, in the order of their first one."""
        times: dict[str | None, float] = {}
        for layer in self.layers:
            times[layer.module] = times.get(layer.module, 0.0) + layer.time_ms
        return times

    def summary(self) -> dict[str, Any]:
        """Every figure by its name; values are of JSON types."""
        return {
            "name": self.subject.name,
            "runtime": self.subject.properties["runtime"],
            "run_ms": self.run_ms,
            "layers_ms": self.layers_ms,
            "runs": self.runs,
            "clock_step_ms": CLOCK_STEP_MS,
            "layers": [{**asdict(layer), "share": self.share(layer.time_ms)} for layer in self.layers],
        }

    def to_json(self) -> str:
        """One JSON object: schema version, everything, and the summary for other readers."""
        return dump_result("layer_profile", asdict(self), self.summary())

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ValueError: If ``text`` is not a profile of layers of this schema version.
        """
        return cls.from_content(load_result("layer_profile", text))

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> Self:
        """Read the fields as JSON has them.

        Raises:
            ValueError: If a field is missing, unknown or damaged.
        """
        try:
            parsed = {
                "subject": Subject.from_content(content["subject"]),
                "machine": Machine.from_content(content["machine"]),
                "layers": tuple(LayerTime(**layer) for layer in content["layers"]),
            }
            return cls(**{**content, **parsed})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"`text` must be a whole profile of layers, got a damaged field: {error!r}.") from error
