"""Claims about finding the layers of a speech encoder."""

import pytest
from torch import nn

from lightning_kd.errors import SetupError
from lightning_kd.speech import speech_encoder
from lightning_kd.taps import Tap


@pytest.mark.parametrize("name", ["Hubert", "Wav2Vec2", "WavLM", "UniSpeech", "UniSpeechSat", "Data2VecAudio"])
def test_every_kind_is_found_and_has_its_parts(name, speech_net):
    model = speech_net(name)
    encoder = speech_encoder(model)
    assert encoder.module is model
    assert encoder.depth == 3
    for part in ("feature_extractor", "feature_projection", "encoder.layers.2", "encoder.pos_conv_embed"):
        model.get_submodule(part)


def test_it_is_found_inside_other_models_by_path(speech_net):
    encoder = speech_encoder(nn.ModuleDict({"net": speech_net(kind="ForCTC", vocab_size=5)}))
    assert encoder.layer(0) == Tap("net.hubert.encoder.layers.0", at="input", axes="NTD")
    assert encoder.layer(3, call=1) == Tap("net.hubert.encoder.layers.2", axes="NTD", call=1)
    assert encoder.last() == Tap("net.hubert.encoder", axes="NTD", select="last_hidden_state")


def test_none_or_two_raise_with_their_number(speech_net):
    with pytest.raises(SetupError, match=r"the teacher \(Linear\) must hold exactly one speech encoder .*, found 0"):
        speech_encoder(nn.Linear(2, 2), "teacher")
    with pytest.raises(SetupError, match=r"the model \(ModuleList\) must hold exactly one speech encoder .*, found 2"):
        speech_encoder(nn.ModuleList([speech_net(), speech_net()]))


def test_a_layer_that_is_not_there_raises_with_the_depth(speech_net):
    with pytest.raises(SetupError, match="`layers` must be from 0 to 3, the depth of the teacher, got 12"):
        speech_encoder(speech_net(), "teacher").layer(12)


def test_layerdrop_left_on_raises_with_the_cure(speech_net):
    with pytest.raises(
        SetupError, match=r"the teacher has LayerDrop left on \(config.layerdrop=0.1\).*layerdrop = 0.0"
    ):
        speech_encoder(speech_net(layerdrop=0.1), "teacher").check_layerdrop()
    speech_encoder(speech_net(), "teacher").check_layerdrop()
