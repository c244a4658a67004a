"""Preprocessing from what timm, torchvision and transformers say about a network."""

import math
from collections.abc import Mapping
from typing import Any

from exporters.preprocessing.content import Preprocessing
from exporters.preprocessing.image import ImagePreprocessing
from exporters.preprocessing.logmel import LogMelPreprocessing

# Pillow's numbers of its resampling filters, which transformers stores.
_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


def from_timm(model: Any) -> ImagePreprocessing:
    """The preprocessing of a timm network.

    Args:
        model: A network with a ``pretrained_cfg``, or that or a data configuration itself as a mapping.

    Returns:
        The preprocessing; images are uint8 and channels last.

    Raises:
        ValueError: If it has no mean, or a crop mode other than ``"center"`` and ``"squash"``.

    Example:
        >>> config = {"input_size": (3, 224, 224), "mean": (0.5,) * 3, "std": (0.5,) * 3, "crop_pct": 0.875}
        >>> from_timm(config).resize
        256
    """
    config = model if isinstance(model, Mapping) else getattr(model, "pretrained_cfg", None)
    if not isinstance(config, Mapping) or "mean" not in config:
        raise ValueError(
            f"`model` must be a timm network or a data configuration with a mean, got {type(model).__name__}."
        )
    height, width = config["input_size"][-2:]
    share, mode = config.get("crop_pct") or 0.875, config.get("crop_mode") or "center"
    sides = math.floor(height / share), math.floor(width / share)
    if mode not in ("center", "squash"):
        raise ValueError(f"`crop_mode` must be 'center' or 'squash', got {mode!r}; preprocess outside of the graph.")
    return ImagePreprocessing(
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        resize=sides[0] if mode == "center" and height == width else sides,
        interpolation=config.get("interpolation") or "bilinear",
        crop=(height, width),
    )


def from_torchvision(transforms: Any) -> ImagePreprocessing:
    """The preprocessing of torchvision's weights.

    Args:
        transforms: What ``weights.transforms()`` returns, for classification or segmentation.

    Returns:
        The preprocessing; images are uint8 and channels last.

    Raises:
        ValueError: If it is not one of these presets.

    Example:
        >>> from torchvision.models import ResNet18_Weights
        >>> from_torchvision(ResNet18_Weights.DEFAULT.transforms()).crop
        (224, 224)
    """
    if not all(hasattr(transforms, name) for name in ("mean", "std", "resize_size", "interpolation")):
        raise ValueError(
            f"`transforms` must be those of torchvision's weights for classification or segmentation, "
            f"got {type(transforms).__name__}."
        )
    return ImagePreprocessing(
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        resize=_one_or_two(transforms.resize_size),
        interpolation=transforms.interpolation.value,
        crop=_two(transforms.crop_size) if hasattr(transforms, "crop_size") else None,
    )


def from_transformers(processor: Any) -> Preprocessing:
    """The preprocessing of transformers' image processors and of its Whisper and AST feature extractors.

    Args:
        processor: The processor, or its configuration as a mapping (the content of ``preprocessor_config.json``).

    Returns:
        The preprocessing.

    Raises:
        ValueError: If it is of another kind.

    Example:
        >>> from transformers import WhisperFeatureExtractor
        >>> from_transformers(WhisperFeatureExtractor(feature_size=128)).mel_bins
        128
    """
    config = processor if isinstance(processor, Mapping) else processor.to_dict()
    kind = config.get("feature_extractor_type") or config.get("image_processor_type")
    if kind == "WhisperFeatureExtractor":
        return _whisper(config)
    if kind == "ASTFeatureExtractor":
        return _spectrogram_transformer(config)
    if "image_mean" in config or "do_rescale" in config:
        return _image(config)
    raise ValueError(
        f"`processor` must be an image processor, or the feature extractor of Whisper or AST, got {kind!r}; "
        f"describe it with ImagePreprocessing or LogMelPreprocessing."
    )


def _image(config: Mapping[str, Any]) -> ImagePreprocessing:
    normalizes = config.get("do_normalize", False)
    resize, crop = _sizes(config)
    return ImagePreprocessing(
        mean=tuple(config["image_mean"]) if normalizes else (0.0, 0.0, 0.0),
        std=tuple(config["image_std"]) if normalizes else (1.0, 1.0, 1.0),
        scale=config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0,
        network_color_order="BGR" if config.get("do_flip_channel_order") else "RGB",
        resize=resize,
        interpolation=_FILTERS.get(int(config.get("resample") or 2)),
        crop=crop,
    )


def _sizes(config: Mapping[str, Any]) -> tuple[int | tuple[int, int] | None, tuple[int, int] | None]:
    size, crop_size = config.get("size") or {}, config.get("crop_size") or {}
    if not config.get("do_resize", True):
        return None, _two(crop_size) if config.get("do_center_crop") else None
    resize = _one_or_two(size)
    if config.get("do_center_crop"):
        return resize, _two(crop_size)
    if config.get("crop_pct") and isinstance(resize, int):
        # ConvNeXt's processor crops images below 384 and warps larger ones.
        return (int(resize / config["crop_pct"]) if resize < 384 else (resize, resize)), (resize, resize)
    return resize, None


def _one_or_two(size: Any) -> int | tuple[int, int] | None:
    if isinstance(size, Mapping):
        if "shortest_edge" in size:
            return int(size["shortest_edge"])
        return (int(size["height"]), int(size["width"])) if "height" in size else None
    values = [size] if isinstance(size, int) else list(size)
    return int(values[0]) if len(values) == 1 else (int(values[0]), int(values[1]))


def _two(size: Any) -> tuple[int, int] | None:
    value = _one_or_two(size)
    return (value, value) if isinstance(value, int) else value


def _whisper(config: Mapping[str, Any]) -> LogMelPreprocessing:
    rate = config["sampling_rate"]
    return LogMelPreprocessing(
        sample_rate=rate,
        fft_size=config["n_fft"],
        hop=config["hop_length"],
        mel_bins=config["feature_size"],
        maximum_hz=8000.0,
        mel_scale="slaney",
        normalized_filters=True,
        drop_last_frame=True,
        logarithm="log10",
        floor=1e-10,
        dynamic_range=8.0,
        mean=-4.0,
        std=4.0,
        samples=config["chunk_length"] * rate,
    )


def _spectrogram_transformer(config: Mapping[str, Any]) -> LogMelPreprocessing:
    normalizes = config.get("do_normalize", True)
    return LogMelPreprocessing(
        sample_rate=config["sampling_rate"],
        fft_size=512,
        window_size=400,
        hop=160,
        mel_bins=config["num_mel_bins"],
        minimum_hz=20.0,
        mel_scale="kaldi",
        periodic_window=False,
        center=False,
        remove_offset=True,
        preemphasis=0.97,
        floor=2.0**-23,
        mean=config["mean"] if normalizes else 0.0,
        std=2 * config["std"] if normalizes else 1.0,
        frames=config["max_length"],
        time_first=True,
    )
