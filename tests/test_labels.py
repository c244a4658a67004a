"""Claims about label sets."""

import pytest
import torch
from torch import nn

from lightning_kd.errors import SetupError
from lightning_kd.labels import blank_of, check_same_tokenizer, check_same_vocabulary, configured


def configured_model(**values):
    model = nn.Linear(1, 1)
    model.config = type("Config", (), values)()
    return model


def test_the_blank_is_what_a_configuration_says():
    assert blank_of(configured_model(pad_token_id=3), nn.Linear(1, 1)) == 3
    assert blank_of(nn.Linear(1, 1), nn.Sequential(configured_model(pad_token_id=0))) == 0
    assert configured(nn.Linear(1, 1), "pad_token_id") is None


def test_a_blank_that_nobody_knows_or_that_differs_is_an_error():
    with pytest.raises(SetupError, match=r"`blank` must be given, got None"):
        blank_of(nn.Linear(1, 1), configured_model(pad_token_id=None))
    with pytest.raises(SetupError, match=r"class 1 of the student and 2 of the teacher"):
        blank_of(configured_model(pad_token_id=1), configured_model(pad_token_id=2))


def test_equal_tokenizers_pass_and_others_are_named(whisper_parts):
    check_same_tokenizer(whisper_parts.tokenizer, whisper_parts.tokenizer)
    check_same_vocabulary({"a": 0}, {"a": 0})
    with pytest.raises(SetupError, match=r"differ in 2 of 3 tokens, first 'b': 1 of the student, None of the teacher"):
        check_same_vocabulary({"a": 0, "b": 1}, {"a": 0, "c": 1})


def test_a_blank_outside_the_label_set_is_an_error():
    from lightning_kd.objectives import CTCKD
    from lightning_kd.taps import Inputs, Observation

    calls = [Observation(Inputs(), torch.zeros(1, 4, 3))] * 2
    with pytest.raises(ValueError, match=r"`blank` must be one of the 3 classes, from 0 on, got 7"):
        CTCKD(blank=7)(*calls, None)
