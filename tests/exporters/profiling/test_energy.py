import pytest

from exporters.profiling import Energy
from exporters.profiling.runner.energy import EnergyReading, energy_between, read_energy


@pytest.fixture
def system(tmp_path):
    """A kernel with two processor packages, a part of one of them, and a sensor."""
    for name, count in [("intel-rapl:0", 5_000_000), ("intel-rapl:1", 7_000_000), ("intel-rapl:0:0", 1_000_000)]:
        folder = tmp_path / "powercap" / name
        folder.mkdir(parents=True)
        (folder / "energy_uj").write_text(f"{count}\n")
        (folder / "max_energy_range_uj").write_text("9000000\n")
    (tmp_path / "hwmon" / "hwmon3").mkdir(parents=True)
    (tmp_path / "hwmon" / "hwmon3" / "energy1_input").write_text("2000000\n")
    return tmp_path


def test_every_package_is_read_once_in_joules(system):
    assert sorted(read_energy(system).joules.values()) == [(5.0, 9.0), (7.0, 9.0)]


def test_sensors_are_read_where_there_is_no_package(system):
    for path in system.glob("powercap/*/energy_uj"):
        path.unlink()
    assert list(read_energy(system).joules.values()) == [(2.0, None)]


def test_a_machine_without_counters_gives_none(tmp_path):
    assert read_energy(tmp_path) is None


def test_energy_is_the_rise_of_all_counters_over_their_wrap():
    before = EnergyReading({"a": (8.0, 9.0), "b": (1.0, 9.0)}, 10.0)
    after = EnergyReading({"a": (2.0, 9.0), "b": (4.0, 9.0)}, 12.0)
    energy = energy_between(before, after, idle_watts=1.5)
    assert energy == Energy(joules=6.0, seconds=2.0, idle_watts=1.5, source="a, b")  # 3 over the wrap at 9, and 3
    assert energy.joules_above_idle == 3.0


@pytest.mark.parametrize(
    ("before", "after", "idle_watts"),
    [
        (None, EnergyReading({"a": (1.0, None)}, 1.0), 1.0),
        (EnergyReading({"a": (1.0, None)}, 1.0), None, 1.0),
        (EnergyReading({"a": (1.0, None)}, 1.0), EnergyReading({"b": (1.0, None)}, 1.0), 1.0),
        (EnergyReading({"a": (1.0, None)}, 1.0), EnergyReading({"a": (1.0, None)}, 2.0), None),
    ],
)
def test_energy_is_none_where_it_was_not_read_all_the_time(before, after, idle_watts):
    assert energy_between(before, after, idle_watts=idle_watts) is None
