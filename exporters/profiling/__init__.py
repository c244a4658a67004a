"""Latency of exported networks: one protocol, raw samples, percentiles with intervals.

Importing it takes NumPy and the standard library; a runtime is imported when a network of its format is loaded.
"""

from exporters.profiling.comparison import Comparison
from exporters.profiling.concurrency import Concurrency
from exporters.profiling.intervals import Estimate
from exporters.profiling.job import JobOptions, read_result, write_job
from exporters.profiling.mlperf import Scenarios, scenarios
from exporters.profiling.profiler import compare, profile, sweep
from exporters.profiling.result import Profile
from exporters.profiling.runner.cold import ColdStart
from exporters.profiling.runner.disturbance import Disturbance
from exporters.profiling.runner.energy import Energy
from exporters.profiling.runner.machine import Machine
from exporters.profiling.runner.memory import Memory
from exporters.profiling.runner.options import ProfileOptions
from exporters.profiling.runner.settings import RuntimeSettings
from exporters.profiling.subject import Subject

__all__ = [
    "ColdStart",
    "Comparison",
    "Concurrency",
    "Disturbance",
    "Energy",
    "Estimate",
    "JobOptions",
    "Machine",
    "Memory",
    "Profile",
    "ProfileOptions",
    "RuntimeSettings",
    "Scenarios",
    "Subject",
    "compare",
    "profile",
    "read_result",
    "scenarios",
    "sweep",
    "write_job",
]
