"""Speech: front ends and augmentation, batches of audio, encoders of transformers, what a keyword spotter costs."""

from lightning_kd.speech.augmentation import AddNoise, RandomShift, SpecAugment
from lightning_kd.speech.buckets import LengthBucketSampler
from lightning_kd.speech.collate import CropToShortest, PadAudio
from lightning_kd.speech.detection import FalseAcceptsPerHour, KeywordRates, keyword_rates, threshold_for
from lightning_kd.speech.encoders import SpeechEncoder, speech_encoder
from lightning_kd.speech.frontends import MFCC, LogMel
from lightning_kd.speech.load import load_speech_model
from lightning_kd.speech.spans import SpanMask

__all__ = [
    "MFCC",
    "AddNoise",
    "CropToShortest",
    "FalseAcceptsPerHour",
    "KeywordRates",
    "LengthBucketSampler",
    "LogMel",
    "PadAudio",
    "RandomShift",
    "SpanMask",
    "SpecAugment",
    "SpeechEncoder",
    "keyword_rates",
    "load_speech_model",
    "speech_encoder",
    "threshold_for",
]
