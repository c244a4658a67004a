"""Inputs from folders and arrays."""

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_kd.errors import SetupError
from lightning_kd.images import load_images


def _save(path, colour, size=(8, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def test_colours_are_scaled_and_normalised(tmp_path):
    _save(tmp_path / "a.png", (255, 0, 51))
    images = load_images(tmp_path, (3, 4, 4), samples=9, mean=(0.5, 0.5, 0.5), std=(0.5, 0.25, 0.1))
    # Red is 0.5 above its mean in units of 0.5, green 0.5 below in units of 0.25, blue 0.3 below in units of 0.1.
    expected = torch.tensor([1.0, -2.0, -3.0])[None, :, None, None].expand(1, 3, 4, 4)
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-5)


def test_a_folder_is_sampled_evenly_in_the_order_of_paths(tmp_path):
    for index in range(6):
        _save(tmp_path / f"class{index // 3}" / f"{index}.png", (index * 51,) * 3)
    (tmp_path / "notes.txt").write_text("no image")
    images = load_images(tmp_path, (1, 2, 2), samples=3, mean=(0.0,), std=(1.0,))
    # Every second of grey levels 0, 1/5, ..., 5/5.
    torch.testing.assert_close(images[:, 0, 0, 0], torch.tensor([0.0, 0.4, 0.8]), rtol=0, atol=1e-5)


def test_a_wide_image_is_cropped_at_the_centre(tmp_path):
    picture = Image.new("L", (12, 4), 0)
    picture.paste(255, (4, 0, 8, 4))
    picture.save(tmp_path / "a.png")
    images = load_images(tmp_path, (1, 4, 4), samples=1, mean=(0.0,), std=(1.0,))
    torch.testing.assert_close(images, torch.ones(1, 1, 4, 4), rtol=0, atol=1e-5)


def test_an_array_is_taken_as_it_is(tmp_path):
    array = np.arange(24.0).reshape(4, 1, 2, 3)
    np.save(tmp_path / "a.npy", array)
    torch.testing.assert_close(load_images(tmp_path / "a.npy", (1, 2, 3), samples=3), torch.tensor(array[:3]).float())


def test_data_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(SetupError, match=r"`data` must be a folder of images or a .npy file, got .*nowhere"):
        load_images(tmp_path / "nowhere", (3, 4, 4), samples=1)
    with pytest.raises(SetupError, match=r"`data` must hold images .* got none in"):
        load_images(tmp_path, (3, 4, 4), samples=1)
    with pytest.raises(SetupError, match=r"`input_shape` must be channels .* got \(2, 4, 4\)"):
        load_images(tmp_path, (2, 4, 4), samples=1)
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(SetupError, match=r"`data` must hold readable images, got .*a\.png"):
        load_images(tmp_path, (3, 4, 4), samples=1)
    np.save(tmp_path / "a.npy", np.zeros((5, 3)))
    with pytest.raises(SetupError, match=r"inputs of shape \(3, 4, 4\), got an array of shape \(5, 3\)"):
        load_images(tmp_path / "a.npy", (3, 4, 4), samples=1)
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(SetupError, match=r"readable .npy file of numbers, got .*objects\.npy"):
        load_images(tmp_path / "objects.npy", (3, 4, 4), samples=1)
