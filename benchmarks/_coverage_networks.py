"""Networks of the coverage table: random weights that no layer can hide behind, real images, speech-like sound."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import timm
import torch
import torchvision
import transformers
from _data import read_fashion_mnist
from torch import Tensor, nn
from transformers.models.whisper.modeling_whisper import WhisperEncoder

SAMPLE_RATE_HZ = 16_000
MEL_BINS = 80
# Frames of Whisper's encoder, 10 ms each; the published length of 3,000 only makes the table slower.
WHISPER_FRAMES = 200
AST_FRAMES = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A network of the table.

    Attributes:
        name: What the table calls it.
        family: Architecture family.
        build: Makes the network with random weights.
        samples: Makes the given number of inputs, ``(N, ...)``; the seed is the second argument.
    """

    name: str
    family: str
    build: Callable[[], nn.Module]
    samples: Callable[[int, int], Tensor]

    def network(self) -> nn.Module:
        """The network in evaluation mode, every constant parameter and statistic of it made random."""
        torch.manual_seed(0)
        module = self.build().eval()
        shake(module, self.samples(8, 1))
        return module


class Hidden(nn.Module):
    """Encoder of transformers behind one tensor in, one tensor out."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, inputs: Tensor) -> Tensor:
        return self.encoder(inputs).last_hidden_state


class Logits(nn.Module):
    """Segmentation network of torchvision behind one tensor out."""

    def __init__(self, segmenter: nn.Module) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, image: Tensor) -> Tensor:
        return self.segmenter(image)["out"]


def shake(module: nn.Module, inputs: Tensor) -> None:
    """Give values to what starts constant, so that no branch vanishes and no two layers are alike.

    Batch norms take the statistics of ``inputs``, changed by up to a fifth: then activations have the scale that a
    trained network's have. Scales, layer scales and biases become random.
    """
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        if parameter.numel() > 1 and parameter.min() == parameter.max():
            low, high = (0.2, 1.0) if parameter.max() > 0 else (-0.2, 0.2)
            parameter.data.uniform_(low, high, generator=generator)
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]  # noqa: SLF001
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        module(inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval()
        norm.momentum = momentum
        # A channel that hardly varies would have its rounding errors enlarged, as no trained network does.
        norm.running_var.clamp_(min=0.1 * float(norm.running_var.mean()))
        for statistic, low, high in ((norm.running_mean, 0.3, 0.7), (norm.running_var, 0.8, 1.2)):
            statistic.mul_(torch.empty_like(statistic).uniform_(low, high, generator=generator))


def images(size: int, count: int, seed: int) -> Tensor:
    """Real images ``(count, 3, size, size)``, standardised: Fashion-MNIST, enlarged, in three shifted copies."""
    pixels = read_fashion_mnist(train_images=count * (seed + 1)).train.tensors[0][-count:]
    grey = nn.functional.interpolate(pixels, size=(size, size), mode="bilinear")
    return torch.cat([grey, grey.roll(1, 2), grey.roll(1, 3)], dim=1)


def sound(length: int, count: int, seed: int) -> Tensor:
    """Sound ``(count, length)`` that resembles speech: harmonics of a gliding pitch, in syllables, over noise."""
    generator = torch.Generator().manual_seed(seed)
    seconds = torch.arange(length) / SAMPLE_RATE_HZ
    pitch_hz = torch.empty(count, 1).uniform_(90, 250, generator=generator)
    glide = torch.empty(count, 1).uniform_(-40, 40, generator=generator)
    phase = 2 * torch.pi * (pitch_hz * seconds + glide * seconds**2 / 2)
    voice = sum(torch.sin(order * phase) / order for order in range(1, 20))
    syllables = torch.sin(2 * torch.pi * 3 * seconds + pitch_hz).clamp(min=0)
    return voice * syllables + 0.02 * torch.randn(count, length, generator=generator)


def spectrogram(bins: int, frames: int, count: int, seed: int) -> Tensor:
    """Standardised log power ``(count, bins, frames)`` of such sound."""
    waveform = sound((frames - 1) * 160, count, seed)
    spectrum = torch.stft(waveform, 400, 160, window=torch.hann_window(400), return_complex=True).abs()[:, :bins]
    power = (spectrum**2 + 1e-6).log10()
    return (power - power.mean()) / power.std()


def _vision(family: str, name: str, size: int, *, sized: bool = False) -> Candidate:
    options = {"img_size": size} if sized else {}
    return Candidate(
        name=name, family=family, build=partial(timm.create_model, name, **options), samples=partial(images, size)
    )


def _segmenter(name: str) -> nn.Module:
    return Logits(torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=8))


def _backbone(name: str) -> nn.Module:
    return torchvision.models.get_model(name, weights=None, weights_backbone=None).backbone


_ENCODER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}


def _hubert() -> nn.Module:
    return Hidden(transformers.HubertModel(transformers.HubertConfig(**_ENCODER)))


def _wav2vec2() -> nn.Module:
    return Hidden(transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**_ENCODER, feat_extract_norm="layer")))


def _wavlm() -> nn.Module:
    return Hidden(transformers.WavLMModel(transformers.WavLMConfig(**_ENCODER)))


def _whisper() -> nn.Module:
    configuration = transformers.WhisperConfig(
        d_model=32,
        encoder_layers=2,
        encoder_attention_heads=4,
        encoder_ffn_dim=64,
        num_mel_bins=MEL_BINS,
        max_source_positions=WHISPER_FRAMES // 2,
    )
    return Hidden(WhisperEncoder(configuration))


def _spectrogram_transformer() -> nn.Module:
    sizes = {key: _ENCODER[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
    configuration = transformers.ASTConfig(**sizes, intermediate_size=64, max_length=AST_FRAMES, num_mel_bins=MEL_BINS)
    return Hidden(transformers.ASTModel(configuration))


def _filter_banks(count: int, seed: int) -> Tensor:
    return spectrogram(MEL_BINS, AST_FRAMES, count, seed).transpose(1, 2)


VISION = (
    _vision("ResNet", "resnet18", 64),
    _vision("RegNet", "regnety_002", 64),
    _vision("MobileNet", "mobilenetv2_100", 64),
    _vision("MobileNet", "mobilenetv3_small_100", 64),
    _vision("MobileNet", "mobilenetv4_conv_small", 64),
    _vision("MobileOne", "mobileone_s0", 64),
    _vision("RepVGG", "repvgg_a0", 64),
    _vision("RepVGG", "repvit_m0_9", 64),
    _vision("GhostNet", "ghostnet_100", 64),
    _vision("EfficientNet", "efficientnet_b0", 64),
    _vision("NFNet", "eca_nfnet_l0", 64),
    _vision("ConvNeXt", "convnext_atto", 64),
    _vision("ViT", "vit_tiny_patch16_224", 64, sized=True),
    _vision("ViT", "deit_tiny_distilled_patch16_224", 64, sized=True),
    _vision("ViT", "xcit_nano_12_p16_224", 64),
    _vision("CaiT", "cait_xxs24_224", 64, sized=True),
    _vision("Swin", "swin_tiny_patch4_window7_224", 64, sized=True),
    _vision("PiT", "pit_ti_224", 224),
    _vision("LeViT", "levit_128s", 224),
    _vision("MLP", "mixer_s32_224", 64, sized=True),
    _vision("MLP", "resmlp_12_224", 64, sized=True),
    _vision("PoolFormer", "poolformer_s12", 64),
    _vision("MobileViT", "mobilevit_xs", 64),
    _vision("FastViT", "fastvit_t8", 64),
    _vision("EdgeNeXt", "edgenext_xx_small", 64),
    _vision("EfficientViT", "efficientvit_b0", 64),
    _vision("PVT", "pvt_v2_b0", 64),
    *(
        Candidate(name=name, family=family, build=partial(make, name), samples=partial(images, 64))
        for family, name, make in (
            ("segmentation", "deeplabv3_mobilenet_v3_large", _segmenter),
            ("segmentation", "lraspp_mobilenet_v3_large", _segmenter),
            ("segmentation", "fcn_resnet50", _segmenter),
            ("detection backbone", "ssdlite320_mobilenet_v3_large", _backbone),
        )
    ),
)
SPEECH = (
    Candidate(name="hubert", family="speech", build=_hubert, samples=partial(sound, SAMPLE_RATE_HZ)),
    Candidate(name="wav2vec2", family="speech", build=_wav2vec2, samples=partial(sound, SAMPLE_RATE_HZ)),
    Candidate(name="wavlm", family="speech", build=_wavlm, samples=partial(sound, SAMPLE_RATE_HZ)),
    Candidate(
        name="whisper encoder",
        family="speech",
        build=_whisper,
        samples=partial(spectrogram, MEL_BINS, WHISPER_FRAMES),
    ),
    Candidate(name="ast", family="speech", build=_spectrogram_transformer, samples=_filter_banks),
)
CANDIDATES = {candidate.name: candidate for candidate in (*VISION, *SPEECH)}
