import numpy as np
import pytest
import torch

import exporters
from exporters.coreml import CoreMLExporter, ImageInput
from exporters.errors import ConversionError
from exporters.mil.package import read_package

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_pixels_are_normalised_in_the_graph(small_net, image, tmp_path):
    path = tmp_path / "n.mlpackage"
    exporter = CoreMLExporter(image=ImageInput(name="image", mean=MEAN, std=STD))
    artifact = exporters.export(small_net, image, to=exporter, path=path)
    assert artifact.inputs[0].value_range == (0.0, 255.0)
    assert read_package(path).images == {"image"}
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 8, 8)).astype(np.float32)
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (MEAN, STD))
    expected = small_net.eval()((torch.from_numpy(pixels) / 255 - mean) / std).detach().numpy()
    found = exporters.load(artifact).run({"image": pixels})["output"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "layout", "match"),
    [
        ("picture", "RGB", r"one of the inputs \['image'\], got 'picture'"),
        ("image", "GRAYSCALE", r"fixed shape \(1, 1, height, width\) for GRAYSCALE, got float32 of shape \(1, 3, 8, 8"),
    ],
)
def test_an_input_that_is_no_such_image_is_refused(small_net, image, tmp_path, name, layout, match):
    exporter = CoreMLExporter(image=ImageInput(name=name, layout=layout))
    with pytest.raises(ConversionError, match=match):
        exporters.export(small_net, image, to=exporter, path=tmp_path / "n.mlpackage")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"std": (1.0, 0.0, 1.0)}, r"`std` must be finite numbers above 0, got \(1.0, 0.0, 1.0\)"),
        ({"mean": (0.5,)}, r"`mean` must have 3 entries for RGB, got \(0.5,\)"),
        ({"scale": 0.0}, r"`scale` must be a finite number above 0, got 0.0"),
        ({"layout": "HSV"}, "`layout` must be one of 'RGB', 'BGR', 'GRAYSCALE', got 'HSV'"),
    ],
)
def test_numbers_out_of_range_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        ImageInput(name="image", **options)
