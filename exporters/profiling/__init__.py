"""Latency of exported networks: one protocol, raw samples, percentiles with intervals.

Importing it takes NumPy and the standard library; a runtime is imported when a network of its format is loaded.
"""

from exporters.profiling.comparison import Comparison
from exporters.profiling.intervals import Estimate
from exporters.profiling.machine import Machine, Memory
from exporters.profiling.options import ProfileOptions
from exporters.profiling.profiler import compare, profile
from exporters.profiling.result import Profile
from exporters.profiling.subject import Subject

__all__ = ["Comparison", "Estimate", "Machine", "Memory", "Profile", "ProfileOptions", "Subject", "compare", "profile"]
