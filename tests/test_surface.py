"""What the package shows, and what importing it costs."""

import subprocess
import sys
import types

import pytest

import exporters
import lightning_kd
from lightning_kd import callbacks, objectives, recipes, speech, students, teachers


@pytest.mark.parametrize("module", [callbacks, objectives, recipes, speech, students, teachers, exporters])
def test_all_is_the_public_surface(module):
    visible = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    visible |= {name for names in getattr(module, "_HOMES", {}).values() for name in names}
    visible -= {"TYPE_CHECKING", "lazy_names"}
    assert sorted(visible) == sorted(module.__all__)
    assert all(hasattr(module, name) for name in visible)
    assert len(set(module.__all__)) == len(module.__all__)


def test_every_public_name_of_the_package_has_a_home():
    assert sorted(name for names in lightning_kd._HOMES.values() for name in names) == sorted(lightning_kd.__all__)
    assert dir(lightning_kd) == sorted(lightning_kd.__all__)
    for name in lightning_kd.__all__:
        assert getattr(lightning_kd, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'lightning_kd' has no attribute 'LogitKd'"):
        _ = lightning_kd.LogitKd


def test_importing_loads_no_runtime_and_touches_no_gpu():
    script = (
        "import sys, torch\n"
        "from lightning_kd import KnowledgeDistillation\n"
        "heavy = {'onnx', 'onnxruntime', 'onnxscript', 'openvino', 'coremltools', 'executorch', 'sklearn', 'timm'}\n"
        "print(sorted(heavy & set(sys.modules)), torch.cuda.is_initialized())"
    )
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "[] False", run.stderr


def test_exporters_never_import_the_training_side():
    script = (
        "import sys, exporters, exporters.pipeline, exporters.profiling\n"
        "print({'lightning', 'lightning_kd'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "set()", run.stderr
