"""Missing extras say how to install them."""

import sys

import pytest

from lightning_kd.errors import MissingExtraError
from lightning_kd.extras import import_extra


@pytest.mark.parametrize(
    ("package", "module"),
    [
        ("jinja2", "lightning_kd.report.page"),
        ("matplotlib", "lightning_kd.report.figures"),
        ("sklearn", "lightning_kd.demo.digits"),
    ],
)
def test_a_missing_package_names_its_extra(monkeypatch, package, module):
    for name in list(sys.modules):
        if name.startswith((f"{package}.", "lightning_kd.report", "lightning_kd.demo")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"{package}.*pip install 'lightning-kd\[report\]'"):
        import_extra(module, "report")
