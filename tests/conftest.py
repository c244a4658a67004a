"""What holds for every test, and three real steps of distillation with what must have happened in them."""

import copy
import os
import warnings
from types import SimpleNamespace

# Threads that wait for each other make small networks many times slower on a busy machine. Set before torch is loaded,
# and inherited by the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import lightning as L
import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, settings
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lightning_kd import KnowledgeDistillation
from lightning_kd.teachers.frozen import unwrapped

# No deadline: the first call of an operator pays for its set-up, and machines are shared.
settings.register_profile(
    "ci", derandomize=True, deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci")


@pytest.fixture(autouse=True)
def _seed():
    """Make random tensors the same in every run, whatever ran before."""
    torch.manual_seed(0)


class Classifier(L.LightningModule):
    """What a user has. A student that returns several outputs in training is trained on the first."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.gradients = set()

    def training_step(self, batch, batch_idx):
        output = self.net(batch[0])
        first = output if isinstance(output, Tensor) else next(iter(output))
        return F.cross_entropy(first, batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), lr=0.01)

    def on_after_backward(self):
        for name, parameter in self.named_parameters():
            if parameter.grad is not None and bool(parameter.grad.ne(0).any()):
                self.gradients.add(name)


@pytest.fixture
def net():
    """Small timm networks by name, with random weights."""

    def make(name, *, pixels=64, classes=10, **settings):
        size = {"img_size": pixels} if any(part in name for part in ("vit", "swin", "deit", "mixer", "resmlp")) else {}
        return timm.create_model(name, num_classes=classes, **size, **settings)

    return make


SPEECH = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "hidden_dropout": 0.0,
    "activation_dropout": 0.0,
    "attention_dropout": 0.0,
    "layerdrop": 0.0,
    "feat_extract_norm": "layer",
    "apply_spec_augment": False,
}


@pytest.fixture(scope="session")
def speech_net():
    """Small speech encoders of transformers by name, of real frame rate, with random weights; dropout is off."""
    import transformers

    def make(name="Hubert", *, kind="Model", **settings):
        config = getattr(transformers, f"{name}Config")(**{**SPEECH, **settings})
        return getattr(transformers, f"{name}{kind}")(config)

    return make


@pytest.fixture
def audio():
    """Noise of so many samples each, padded with zeros, and its mask."""

    def make(*lengths, dtype=torch.float32):
        padded = torch.zeros(len(lengths), max(lengths), dtype=dtype)
        mask = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
        for row, length in enumerate(lengths):
            generator = torch.Generator().manual_seed(length)
            padded[row, :length] = torch.randn(length, generator=generator, dtype=dtype)
            mask[row, :length] = 1
        return padded, mask

    return make


@pytest.fixture
def fit_three_steps(tmp_path):
    """Fit a network under these callbacks; return the module and what was logged."""

    def fit(student, callbacks, *, pixels=64, classes=10, batch_size=4, dataset=None, module=Classifier):
        if dataset is None:
            images, labels = torch.randn(3 * batch_size, 3, pixels, pixels), torch.arange(3 * batch_size) % classes
            dataset = TensorDataset(images, labels)
        trainer = L.Trainer(
            max_steps=3,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
            callbacks=callbacks,
        )
        fitted = module(student)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="No positive class|GPU available but not used")
            trainer.fit(fitted, DataLoader(dataset, batch_size=batch_size))
        assert trainer.global_step == 3
        return fitted, {key: float(value) for key, value in trainer.callback_metrics.items()}

    return fit


@pytest.fixture
def distil_three_steps(fit_three_steps):
    """Distil for three steps, and hold what must be true of every method."""

    def distil(student, callbacks, *, idle=(), check_student=True, **data):
        """``idle`` are parts of names of adapter parameters that need not learn in three steps."""
        wrapped = [kd.teacher for kd in callbacks if kd.teacher is not None]
        teachers = [unwrapped(teacher) for teacher in wrapped]
        before = [copy.deepcopy(teacher.state_dict()) for teacher in teachers]
        keys = list(student.state_dict())
        module, metrics = fit_three_steps(student, callbacks, **data)
        for kd in callbacks:
            prefix = f"_{kd.name}_adapters."
            adapters = {name for name, p in kd._distiller.adapters.named_parameters() if p.requires_grad}
            learnt = {name.removeprefix(prefix) for name in module.gradients if name.startswith(prefix)}
            silent = {name for name in adapters - learnt if not any(part in name for part in idle)}
            assert not silent, f"adapters without gradient: {sorted(silent)}"
        assert not check_student or any(name.startswith("net.") for name in module.gradients)
        assert list(student.state_dict()) == keys
        assert all(bool(p.isfinite().all()) for p in student.parameters())
        for teacher, state in zip(teachers, before, strict=True):
            after = teacher.state_dict()
            assert all(torch.equal(after[key], value) for key, value in state.items())
            assert all(p.grad is None for p in teacher.parameters())
        return module, metrics

    return distil


@pytest.fixture
def train_three_steps(distil_three_steps):
    """Distil by these objectives alone, without the task loss, so that every gradient is theirs."""
    own = ("pixels", "classes", "batch_size", "dataset", "idle", "check_student")

    def train(student, teacher, objectives, **options):
        data = {key: options.pop(key) for key in own if key in options}
        options.setdefault("task_weight", 0.0)
        kd = KnowledgeDistillation(teacher, student="net", objectives=objectives, **options)
        module, metrics = distil_three_steps(student, [kd], **data)
        return SimpleNamespace(net=student, kd=kd, module=module, metrics=metrics)

    return train


@pytest.fixture(scope="session")
def whisper_parts():
    """Make a random Whisper like OpenAI's, for two seconds of audio, and its processor: byte tokens, two languages."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
        WhisperTokenizer,
    )

    names = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|zh|>", "<|translate|>", "<|transcribe|>"]
    names += ["<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    letters = sorted(ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*letters, names[0]])}
    tokenizer = WhisperTokenizer(vocab=vocabulary, merges=[])
    tokenizer.add_tokens(names[1:], special_tokens=True)
    tokenizer.add_tokens([f"<|{index * 0.02:.2f}|>" for index in range(101)])
    index = {name: tokenizer.convert_tokens_to_ids(name) for name in names}

    def make(decoder_layers=4, seed=0, **settings):
        torch.manual_seed(seed)
        end = index["<|endoftext|>"]
        config = WhisperConfig(
            vocab_size=len(tokenizer),
            d_model=16,
            encoder_layers=2,
            decoder_layers=decoder_layers,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            num_mel_bins=16,
            max_source_positions=100,
            max_target_positions=24,
            pad_token_id=end,
            bos_token_id=end,
            eos_token_id=end,
            decoder_start_token_id=index["<|startoftranscript|>"],
            **settings,
        )
        model = WhisperForConditionalGeneration(config)
        with torch.no_grad():  # larger than the initialisation, so that scores differ from token to token
            for parameter in model.parameters():
                parameter.mul_(4.0)
        model.generation_config = GenerationConfig(
            decoder_start_token_id=config.decoder_start_token_id,
            eos_token_id=end,
            pad_token_id=end,
            bos_token_id=end,
            max_length=24,
            is_multilingual=True,
            lang_to_id={name: index[name] for name in ("<|en|>", "<|zh|>")},
            task_to_id={"transcribe": index["<|transcribe|>"], "translate": index["<|translate|>"]},
            no_timestamps_token_id=index["<|notimestamps|>"],
            suppress_tokens=[index[name] for name in names[1:]],
            return_timestamps=False,
        )
        return model.eval()

    extractor = WhisperFeatureExtractor(feature_size=16, chunk_length=2)
    return SimpleNamespace(
        make=make, processor=WhisperProcessor(extractor, tokenizer), tokenizer=tokenizer, index=index
    )


@pytest.fixture(scope="session")
def whisper_checkpoint(whisper_parts, tmp_path_factory):
    """Folder with a random Whisper and its processor, as `save_pretrained` writes them."""
    folder = tmp_path_factory.mktemp("whisper")
    whisper_parts.make().save_pretrained(folder)
    whisper_parts.processor.save_pretrained(folder)
    return folder
