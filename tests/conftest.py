"""What holds for every test: one thread, fixed seeds and reproducible property tests."""

import os

# Threads that wait for each other make small networks many times slower on a busy machine. Set before torch is loaded,
# and inherited by the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import HealthCheck, settings

# No deadline: the first call of an operator pays for its set-up, and machines are shared.
settings.register_profile(
    "ci", derandomize=True, deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci")


@pytest.fixture(autouse=True)
def _seed():
    """Make random tensors the same in every run, whatever ran before."""
    torch.manual_seed(0)
