"""The data side of speech: front ends, augmentation, and what a keyword spotter costs its user."""

from lightning_kd.speech.augmentation import AddNoise, RandomShift, SpecAugment
from lightning_kd.speech.detection import FalseAcceptsPerHour, KeywordRates, keyword_rates, threshold_for
from lightning_kd.speech.frontends import MFCC, LogMel

__all__ = [
    "MFCC",
    "AddNoise",
    "FalseAcceptsPerHour",
    "KeywordRates",
    "LogMel",
    "RandomShift",
    "SpecAugment",
    "keyword_rates",
    "threshold_for",
]
