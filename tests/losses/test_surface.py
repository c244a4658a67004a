"""Claims about the public surface of `lightning_kd.losses`."""

from types import ModuleType

from lightning_kd import losses


def test_all_is_the_sorted_public_surface():
    visible = {name for name, value in vars(losses).items() if not name.startswith("_")}
    submodules = {name for name in visible if isinstance(getattr(losses, name), ModuleType)}
    assert sorted(visible - submodules) == losses.__all__
