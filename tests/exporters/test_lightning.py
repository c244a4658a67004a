import functools

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import exporters

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
]


class Classifier(L.LightningModule):
    """A student in training, with what a distillation callback leaves on it."""

    def __init__(self, net: nn.Module, teacher: nn.Module):
        super().__init__()
        self.save_hyperparameters(ignore=["net", "teacher"])
        self.net = net
        self._kd_adapters = nn.Linear(5, 5000)
        self.teacher = [teacher]

    def forward(self, image):
        return self.net(image)

    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def fitted(small_net, tmp_path):
    module = Classifier(small_net, nn.Linear(2, 2))
    captured = {}
    module.training_step = functools.wraps(module.training_step)(functools.partial(Classifier.training_step, module))
    module.net.head.register_forward_hook(lambda child, inputs, output: captured.update(output=output))
    data = DataLoader(TensorDataset(torch.randn(8, 3, 8, 8), torch.randint(0, 5, (8,))), batch_size=4)
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, data)
    return module


@pytest.mark.parametrize(("to", "suffix"), [("onnx", ".onnx"), ("openvino", ".xml"), ("coreml", ".mlpackage")])
def test_a_fitted_module_is_exported_as_its_bare_network(fitted, image, tmp_path, to, suffix):
    children = set(dict(fitted.named_modules()))
    bare = exporters.export(fitted.net, image, to=to, path=tmp_path / f"bare{suffix}", dynamic_batch=(1, 4))
    artifact = exporters.export(fitted, image, to=to, path=tmp_path / f"student{suffix}", dynamic_batch=(1, 4))
    assert artifact.signature == bare.signature
    # The adapters alone hold 5 * 5000 float32 values, 100 kB.
    assert abs(artifact.size_bytes - bare.size_bytes) < 2000
    assert set(dict(fitted.named_modules())) == children
    assert fitted.trainer is not None
    session, images = exporters.load(artifact), torch.randn(3, 3, 8, 8)
    expected = fitted.eval()(images).detach().numpy()
    np.testing.assert_allclose(session.run({"image": images.numpy()})["output"], expected, rtol=1e-4, atol=1e-5)


def test_a_module_without_forward_is_refused_with_its_name(image, tmp_path):
    class NoForward(L.LightningModule):
        pass

    with pytest.raises(
        exporters.CaptureError, match=r'NotImplementedError: Module .NoForward. is missing .* "forward"'
    ):
        exporters.export(NoForward(), image, to="onnx", path=tmp_path / "n.onnx")
