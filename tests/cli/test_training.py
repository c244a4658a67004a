"""`fit`, `validate`, `test` and `predict` from YAML, with the callback by class path."""

import pytest
import torch
import yaml

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    # Lightning 2.6 on jsonargparse 4.53.
    pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning"),
]


@pytest.fixture
def config(project, tmp_path):
    """A YAML file that distils with schedules, a teacher made by a function and matched layers."""
    checkpoint = tmp_path / "teacher.pt"
    torch.manual_seed(1)
    teacher = torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(16, 24),
        torch.nn.ReLU(),
        torch.nn.Linear(24, 24),
        torch.nn.ReLU(),
        torch.nn.Linear(24, 3),
    )
    torch.save(teacher.state_dict(), checkpoint)
    content = f"""
seed_everything: 0
model: {project}.Classifier
data: {project}.Data
trainer:
  max_epochs: 2
  accelerator: cpu
  logger: false
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - class_path: lightning_kd.KnowledgeDistillation
      init_args:
        student: net
        task_weight: 0.5
        teacher:
          class_path: lightning_kd.models.load_model
          init_args:
            spec: {project}:network,width=24
            checkpoint: {checkpoint}
        objectives:
          - class_path: lightning_kd.LogitKD
            init_args:
              temperature: 3.0
              weight:
                class_path: lightning_kd.Ramp
                init_args: {{start: 0.0, end: 0.9, over: 2}}
          - class_path: lightning_kd.CKAKD.matched
            init_args: {{top: 2, samples: 32}}
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {{dirpath: checkpoints, filename: last, enable_version_counter: false}}
"""
    path = tmp_path / "kd.yaml"
    path.write_text(content)
    return path


def test_fit_distils_as_the_file_says(run, config, project, tmp_path):
    status, _, err = run("fit", "--config", config)
    assert status == 0, err
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert saved["trainer"]["callbacks"][0]["init_args"]["objectives"][1]["class_path"] == "lightning_kd.CKAKD.matched"
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    (state,) = [value for key, value in checkpoint["callbacks"].items() if key.startswith("KnowledgeDistillation")]
    assert len(state["pairs"]["cka"][0]) == 2
    assert set(checkpoint["state_dict"]) == {
        f"net.{layer}.{kind}" for layer in (1, 3, 5) for kind in ("weight", "bias")
    }


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_other_loops_run_from_the_same_file(run, config, command):
    status, _, err = run(command, "--config", config)
    assert status == 0, err


def test_a_wrong_value_ends_in_one_message_without_usage(run, config):
    status, _, err = run("fit", "--config", config, "--trainer.max_epochs", "many")
    assert status == 2
    assert err.startswith("lightning-kd fit: error: ")
    assert "many" in err
    assert "usage" not in err


def test_a_wrong_setup_ends_in_one_line(run, config):
    config.write_text(config.read_text().replace("student: net", "student: nett"))
    status, _, err = run("fit", "--config", config)
    assert status == 1
    assert "lightning-kd fit: error: `student`: " in err
    assert "`nett` names no module of the LightningModule" in err
