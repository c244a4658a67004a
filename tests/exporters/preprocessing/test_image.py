from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import exporters
from exporters.preprocessing import ImagePreprocessing, from_timm, from_torchvision, from_transformers
from exporters.preprocessing.modules import ImageArithmetic

IMAGE = np.random.default_rng(0).integers(0, 256, (2, 6, 5, 3), dtype=np.uint8)


def _reference(image, mean, std):
    """Channels last, uint8, RGB in; what torchvision's ToTensor and Normalize do, in float64."""
    return ((image.astype(np.float64) / 255 - np.array(mean)) / np.array(std)).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("order", ["RGB", "BGR"])
@pytest.mark.parametrize(("dtype", "scale"), [("uint8", 1 / 255), ("float32", 1 / 255), ("float32", 1.0)])
def test_every_kind_of_image_becomes_the_same_input(layout, order, dtype, scale):
    options = ImagePreprocessing(
        mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.3), scale=scale, dtype=dtype, layout=layout, color_order=order
    )
    image = IMAGE[..., ::-1] if order == "BGR" else IMAGE
    image = image.transpose(0, 3, 1, 2) if layout == "NCHW" else image
    values = torch.from_numpy((image / (255 * scale)).astype(dtype))
    output = ImageArithmetic(options)(values)
    np.testing.assert_allclose(output.numpy(), _reference(IMAGE, options.mean, options.std), rtol=1e-5, atol=2e-6)


def test_a_network_trained_on_bgr_gets_bgr():
    options = ImagePreprocessing(network_color_order="BGR")
    output = ImageArithmetic(options)(torch.from_numpy(IMAGE))
    np.testing.assert_allclose(output.numpy(), IMAGE[..., ::-1].transpose(0, 3, 1, 2) / 255, rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"std": (1.0, 0.0, 1.0)}, r"above 0, got \(1.0, 0.0, 1.0\)"),
        ({"mean": (0.0,)}, r"one value for each channel, got \(0.0,\)"),
        ({"dtype": "int8"}, "`dtype` must be one of 'uint8', 'float32', got 'int8'"),
        ({"layout": "HWC"}, "`layout` must be one of 'NHWC', 'NCHW', got 'HWC'"),
        ({"color_order": "GRB"}, "`color_order` must be one of 'RGB', 'BGR', got 'GRB'"),
        ({"mean": (0.0,), "std": (1.0,), "color_order": "BGR"}, "must be that of the network for 1 channels"),
    ],
)
def test_what_makes_no_sense_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ImagePreprocessing(**fields)


def test_timm_says_how_its_networks_were_trained():
    timm = pytest.importorskip("timm")
    config = timm.data.resolve_model_data_config(timm.create_model("resnet18", pretrained=False))
    from_model, from_config = from_timm(timm.create_model("resnet18", pretrained=False)), from_timm(config)
    assert from_model == from_config
    # 224 / 0.95 = 235.79, rounded down as timm's transforms do.
    assert (from_model.resize, from_model.crop, from_model.interpolation) == (235, (224, 224), "bicubic")
    assert from_timm({**config, "crop_mode": "squash"}).resize == (235, 235)
    with pytest.raises(ValueError, match="must be 'center' or 'squash', got 'border'"):
        from_timm({**config, "crop_mode": "border"})
    with pytest.raises(ValueError, match="got Linear"):
        from_timm(nn.Linear(1, 1))


def test_torchvision_says_how_its_weights_were_trained():
    from torchvision.models import ResNet18_Weights
    from torchvision.models.segmentation import LRASPP_MobileNet_V3_Large_Weights

    transforms = ResNet18_Weights.DEFAULT.transforms()
    options = from_torchvision(transforms)
    assert (options.resize, options.crop, options.interpolation) == (256, (224, 224), "bilinear")
    image = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8))
    resized = replace(options, resize=None, crop=None)
    transforms.resize_size, transforms.crop_size = [224], [224]
    torch.testing.assert_close(
        ImageArithmetic(resized)(image), transforms(image.permute(0, 3, 1, 2)), rtol=1e-5, atol=2e-6
    )
    segmentation = from_torchvision(LRASPP_MobileNet_V3_Large_Weights.DEFAULT.transforms())
    assert (segmentation.resize, segmentation.crop) == (520, None)
    with pytest.raises(ValueError, match="got Linear"):
        from_torchvision(nn.Linear(1, 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "resize", "crop"),
    [
        ("ViTImageProcessor", (224, 224), None),
        ("CLIPImageProcessor", 224, (224, 224)),
        ("MobileViTImageProcessor", 224, (256, 256)),
        ("ConvNextImageProcessor", (384, 384), None),
    ],
)
def test_transformers_processors_are_matched_to_the_last_digits(name, resize, crop):
    import transformers

    processor = getattr(transformers, name)()
    options = from_transformers(processor)
    assert options == from_transformers(processor.to_dict())
    assert options.resize == resize
    if crop:
        assert options.crop == crop
    image = IMAGE[:1].repeat(8, axis=1).repeat(8, axis=2)
    expected = processor(
        list(image), do_resize=False, do_center_crop=False, return_tensors="np", input_data_format="channels_last"
    )["pixel_values"]
    output = ImageArithmetic(options)(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(("to", "suffix"), [("onnx", ".onnx"), ("openvino", ".xml"), ("coreai", ".aimodel")])
def test_the_file_takes_images_and_says_so(small_net, tmp_path, to, suffix):
    options = ImagePreprocessing(mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.3), color_order="BGR", resize=8)
    image = torch.from_numpy(np.random.default_rng(2).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8))
    path = tmp_path / f"student{suffix}"
    artifact = exporters.export(small_net, image, to=to, path=path, preprocessing=options)
    (described,) = artifact.inputs
    assert (described.name, described.dtype, described.shape) == ("image", "uint8", (2, 8, 8, 3))
    output = exporters.load(artifact).run({"image": image.numpy()})["output"]
    prepared = torch.from_numpy(_reference(image.numpy()[..., ::-1], options.mean, options.std)).float()
    with torch.no_grad():
        expected = small_net.eval()(prepared).numpy()
    assert np.linalg.norm(output - expected) <= 1e-5 * np.linalg.norm(expected)
    metadata = exporters.read_metadata(path)
    assert (metadata.preprocessing, metadata.preprocessing_in_graph) == (options, True)
    assert (metadata.inputs[0].layout, metadata.inputs[0].value_range) == ("NHWC", (0.0, 255.0))
