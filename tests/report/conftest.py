"""Profiles with known figures."""

import pytest

from exporters.profiling import Machine, Profile, ProfileOptions, Subject
from exporters.profiling.layers import LayerProfile, LayerTime
from exporters.signature import TensorSpec

MACHINE = Machine(
    cpu="Z80",
    cores=2,
    cpu_quota=None,
    governor=None,
    load_average=None,
    platform="CP/M",
    versions={"python": "3.11.7", "numpy": "2.4.6"},
)


def make_subject(name, runtime="onnxruntime", batch_size=1):
    return Subject(
        name=name,
        artifact_sha256="ab" * 32,
        inputs=(TensorSpec("x", (batch_size, 3), "float32"),),
        batch_size=batch_size,
        seed=0,
        properties={"runtime": runtime, "runtime_version": "1.2", "threads": 1, "active_precision": "fp32"},
        load_ms=12.5,
    )


@pytest.fixture
def make_profile():
    """Build a profile whose runs all took so many ms."""

    def make(name, latency_ms, *, runs=40, **more):
        batch = {key: more.pop(key) for key in ("batch_size", "runtime") if key in more}
        return Profile(
            **{
                "subject": make_subject(name, **batch),
                "machine": MACHINE,
                "options": ProfileOptions(min_runs=1, min_seconds=0),
                "first_ms": 5.0,
                "warm_up_ns": (1,),
                "steady": True,
                "latencies_ns": (round(latency_ms * 1e6),) * runs,
                "sittings": (runs,),
                "memory": None,
                **more,
            }
        )

    return make


@pytest.fixture
def make_layers():
    """Build a profile of layers from pairs of module and ms."""

    def make(*times, operator="Conv"):
        layers = tuple(
            LayerTime(name=f"op{index}", module=module, operator=operator, time_ms=ms)
            for index, (module, ms) in enumerate(times)
        )
        return LayerProfile(subject=make_subject("net.onnx"), machine=MACHINE, runs=10, run_ms=99.0, layers=layers)

    return make
