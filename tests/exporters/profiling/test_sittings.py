import os

import pytest

from exporters.profiling.runner.sittings import join_sittings

CORES = os.cpu_count()


def found(**changes):
    """What one sitting of a second found in which the machine was idle but for it."""
    return {
        "subject": {"name": "student.onnx"},
        "first_ms": 5.0,
        "steady": True,
        "warm_up_ns": [9],
        "latencies_ns": [1, 2, 3],
        "parts_ns": {"compute": [1, 1, 1]},
        "memory": {"peak_bytes": 100},
        "processor": [1.0, 1.0 * CORES, 1.0],
        "energy": {"joules": 10.0, "seconds": 1.0, "idle_watts": 4.0, "source": "package"},
        "concurrency": [],
        **changes,
    }


def test_runs_follow_one_another_and_say_of_which_sitting_they_are():
    joined = join_sittings([found(concurrency=[{"requests": 2}]), found(latencies_ns=[4, 5], warm_up_ns=[8, 7])])
    assert (joined["latencies_ns"], joined["sittings"]) == ([1, 2, 3, 4, 5], [3, 2])
    assert (joined["warm_up_ns"], joined["parts_ns"]) == ([9, 8, 7], {"compute": [1] * 6})
    assert (joined["first_ms"], joined["concurrency"]) == (5.0, [{"requests": 2}])
    assert "processor" not in joined


def test_one_unsteady_sitting_makes_the_whole_unsteady():
    assert join_sittings([found(), found()])["steady"] is True
    assert join_sittings([found(), found(steady=False)])["steady"] is False


def test_memory_is_that_of_the_largest_process():
    assert join_sittings([found(), found(memory={"peak_bytes": 300})])["memory"] == {"peak_bytes": 300}
    assert join_sittings([found(memory=None)])["memory"] is None


def test_sittings_too_short_to_tell_a_disturbance_tell_it_together():
    quarter = [0.25 + 0.1, 0.25 * CORES, 0.25]  # others took 0.1 s in a quarter of a second
    assert join_sittings([found(processor=quarter)])["disturbance"] is None
    together = join_sittings([found(processor=quarter)] * 4)["disturbance"]
    assert together["busy_cores"] == pytest.approx(0.4)
    assert together["seconds"] == pytest.approx(1.0)
    assert join_sittings([found(), found(processor=None)])["disturbance"] is None


def test_energy_is_added_up_with_the_mean_power_of_the_idle_machine():
    longer = {"joules": 50.0, "seconds": 3.0, "idle_watts": 8.0, "source": "package"}
    assert join_sittings([found(), found(energy=longer)])["energy"] == {
        "joules": 60.0,
        "seconds": 4.0,
        "idle_watts": 7.0,  # (1 * 4 + 3 * 8) / 4
        "source": "package",
    }
    assert join_sittings([found(), found(energy=None)])["energy"] is None
