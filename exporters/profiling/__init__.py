"""Latency of exported networks: one protocol, raw samples, percentiles with intervals.

The modules beside `profiler` need only NumPy and the standard library, so that they can run on a device.
"""

from exporters.profiling.comparison import Comparison
from exporters.profiling.intervals import Estimate
from exporters.profiling.machine import Machine, Memory
from exporters.profiling.options import ProfileOptions
from exporters.profiling.profiler import compare, profile
from exporters.profiling.result import Profile
from exporters.profiling.subject import Subject

__all__ = ["Comparison", "Estimate", "Machine", "Memory", "Profile", "ProfileOptions", "Subject", "compare", "profile"]
