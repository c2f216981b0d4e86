"""Data and training: the split, the inputs, and a network that learns, repeats and counts the same in every runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pipeline.datasets import DIGITS_TEST, digits, examples, load, noise, photographs
from pipeline.evaluate import top1, torch_logits
from pipeline.export import parity
from pipeline.models import build
from pipeline.schedule import Schedule
from pipeline.training import Recipe, fit, threads


def test_digits_are_split_in_proportion_and_never_overlap() -> None:
    train_x, train_y, test_x, test_y = digits()
    assert train_x.shape == (1797 - DIGITS_TEST, 1, 8, 8) and test_x.shape == (DIGITS_TEST, 1, 8, 8)
    assert train_x.dtype == test_x.dtype == np.float32 and train_y.dtype == np.int64
    assert (train_x.min(), train_x.max()) == (0, 1)
    shares = [np.bincount(labels, minlength=10) / len(labels) for labels in (train_y, test_y)]
    assert np.abs(shares[0] - shares[1]).max() < 0.01
    again = digits()
    assert np.array_equal(again[2], test_x) and np.array_equal(again[3], test_y)


@pytest.mark.parametrize("shape", [(1, 3, 20, 30), (1, 1, 8, 8), (1, 4, 16, 16)])
def test_photographs_have_the_asked_shape_and_differ(shape: tuple[int, ...]) -> None:
    pictures = photographs(shape)
    assert list(pictures) == ["china", "flower"]
    assert all(picture.shape == shape and picture.dtype == np.float32 for picture in pictures.values())
    assert np.abs(pictures["china"] - pictures["flower"]).max() > 0.5
    if shape[1] != 3:
        assert all(np.ptp(picture, axis=1).max() == 0 for picture in pictures.values())


def test_examples_of_a_shape_that_is_no_image_are_noise() -> None:
    assert list(examples((1, 7))) == ["seed0", "seed1", "seed2"]
    assert np.array_equal(noise((1, 7), 3), noise((1, 7), 3))
    assert not np.array_equal(noise((1, 7), 3), noise((1, 7), 4))


def test_training_repeats_leaves_the_generator_alone_and_lowers_the_loss(few: Any) -> None:
    some = few(load("digits"), 256)
    runs = []
    for _ in range(2):
        torch.manual_seed(5)
        module = build("digits_cnn", width_mult=0.125)
        before = torch.random.get_rng_state()
        losses = fit(module, some, Recipe(Schedule(0.05, 3)), seed=1)
        assert torch.equal(before, torch.random.get_rng_state())
        runs.append((losses, module.linear.weight.detach().clone()))
    assert runs[0][0] == runs[1][0] and torch.equal(runs[0][1], runs[1][1])
    assert runs[0][0][-1] < runs[0][0][0]
    assert not module.training


def test_threads_puts_the_number_back() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), threads(1):
        assert torch.get_num_threads() == 1
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


def test_digits_are_read_as_well_in_torch_onnx_and_tflite(digits_network: Any, digits_files: dict[str, Any]) -> None:
    _, _, x, y = digits()
    expected = torch_logits(digits_network.module, x)
    assert top1(expected, y) >= 0.975
    for exported in digits_files.values():
        run = parity.runner(exported.path)
        logits = np.concatenate([run(image[None]) for image in x])
        assert np.array_equal(logits.argmax(1), expected.argmax(1))
        assert top1(logits, y) == top1(expected, y)


def test_top1_counts_not_a_number_as_wrong() -> None:
    logits = np.array([[0.0, 1.0], [2.0, 1.0], [np.nan, np.nan]])
    assert top1(logits, [1, 0, 0]) == pytest.approx(2 / 3)


def test_logits_in_batches_equal_those_at_once_and_the_mode_is_put_back() -> None:
    module = build("digits_cnn", width_mult=0.25).train()
    x = noise((10, 1, 8, 8), 0)
    assert np.allclose(torch_logits(module, x, batch_size=3), torch_logits(module, x), atol=1e-5)
    assert module.training
