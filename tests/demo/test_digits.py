"""The split is fixed, disjoint and balanced."""

import torch

from lightning_kd.demo.digits import TEST, TRAIN, VALIDATION, Digits


def _rows(data):
    images, labels = data.tensors
    return {(tuple(image.flatten().tolist()), label) for image, label in zip(images, labels.tolist(), strict=True)}


def test_the_parts_are_disjoint_and_whole():
    digits = Digits(seed=0)
    parts = [_rows(part) for part in (digits.train, digits.validation, digits.test)]
    assert [len(part) for part in (digits.train, digits.validation, digits.test)] == [TRAIN, VALIDATION, TEST]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 1797


def test_every_part_has_equal_shares_of_the_classes():
    digits = Digits(seed=0)
    for part in (digits.train, digits.validation, digits.test):
        shares = torch.bincount(part.tensors[1], minlength=10) / len(part)
        assert shares.min() > 0.09
        assert shares.max() < 0.11


def test_training_images_are_standardised():
    images = Digits(seed=0).train_images
    torch.testing.assert_close(images.mean(), torch.tensor(0.0), rtol=0, atol=1e-5)
    torch.testing.assert_close(images.std(), torch.tensor(1.0), rtol=0, atol=1e-5)


def test_the_seed_fixes_the_order_of_batches_and_not_the_split():
    first, again, other = (next(iter(Digits(seed).train_dataloader()))[0] for seed in (0, 0, 1))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, other)
    torch.testing.assert_close(Digits(0).test.tensors[0], Digits(1).test.tensors[0], rtol=0, atol=0)
