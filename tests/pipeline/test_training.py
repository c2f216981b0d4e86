"""Training: schedules by their closed forms, crops and flips, statistics anew, and what a loss that is no number says."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pipeline.datasets import Dataset, load
from pipeline.errors import ModelError, UsageError
from pipeline.evaluate import accuracy
from pipeline.models import build
from pipeline.schedule import Schedule
from pipeline.training import TEMPERATURE, Recipe, _augmented, divergence, fit, prepared, recalibrate, trained_digits


@given(st.floats(0, 20), st.integers(1, 200))
def test_a_cosine_falls_from_lr_to_zero(epoch: float, epochs: int) -> None:
    schedule = Schedule(0.1, epochs)
    assert schedule.at(0) == 0.1 and schedule.at(epochs) == pytest.approx(0, abs=1e-12)
    assert schedule.at(epochs / 2) == pytest.approx(0.05)


@pytest.mark.parametrize(("epoch", "lr"), [(0, 0.1), (90.9, 0.1), (91, 0.01), (136.4, 0.01), (136.5, 0.001), (181, 0.001)])
def test_steps_fall_after_half_and_three_quarters(epoch: float, lr: float) -> None:
    assert Schedule(0.1, 182, "steps").at(epoch) == pytest.approx(lr)


@pytest.mark.parametrize("shape", ["cosine", "steps"])
@pytest.mark.parametrize("epoch", [0.0, 3.3, 10.0, 44.9])
def test_rewinding_runs_the_end_of_the_original_again(shape: str, epoch: float) -> None:
    whole, rewound = Schedule(0.1, 100, shape), Schedule(0.1, 100, shape, kept=45)
    assert rewound.run == 45 and rewound.at(epoch) == pytest.approx(whole.at(55 + epoch))


def test_a_warm_up_rises_in_a_straight_line_and_then_is_over() -> None:
    plain, warm = Schedule(0.1, 10), Schedule(0.1, 10, warmup=2)
    assert warm.at(0) == 0 and warm.at(0.5) == pytest.approx(plain.at(0.5) / 4) and warm.at(2.5) == plain.at(2.5)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"lr": 0.0}, "a learning rate of 0.0; try: a number above 0"),
        ({"lr": math.nan}, "a learning rate of nan"),
        ({"shape": "linear"}, "there is no schedule 'linear'; try: cosine or steps"),
        ({"kept": 11}, "to run 11 of 10 epochs"),
        ({"warmup": -1.0}, "a warm-up of -1.0 epochs"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(values: dict[str, float], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        Schedule(**{"lr": 0.1, "epochs": 10, **values})  # type: ignore[arg-type]


def pixels(crop: int = 0, flip: bool = False) -> Dataset:
    x = np.random.default_rng(0).integers(1, 256, (64, 3, 8, 8)).astype(np.uint8)
    y = np.arange(64) % 10
    return Dataset("x", x, y, x, y, 10, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), crop, flip)


def test_bytes_are_standardised_and_floats_are_left() -> None:
    dataset = pixels()
    given_ = prepared(torch.from_numpy(dataset.train_x), dataset)
    expected = (dataset.train_x.astype(np.float64) / 255 - np.array([0.5, 0.4, 0.3])[:, None, None]) / 0.2
    assert np.allclose(given_.numpy(), expected, atol=1e-6)
    assert prepared(given_, dataset) is given_


def test_a_crop_is_a_window_of_the_image_in_a_black_border_and_a_flip_its_mirror() -> None:
    x = torch.from_numpy(pixels().train_x)
    torch.manual_seed(0)
    found = _augmented(x, pixels(crop=2, flip=True))
    border = nn.functional.pad(x, (2, 2, 2, 2))
    seen = set()
    for image, whole in zip(found, border, strict=True):
        windows = {
            (top, left, mirrored): (window.flip(-1) if mirrored else window)
            for top in range(5) for left in range(5) for mirrored in (False, True)
            for window in [whole[:, top : top + 8, left : left + 8]]
        }  # fmt: skip
        (place,) = [place for place, window in windows.items() if torch.equal(window, image)]
        seen.add(place)
    assert {top for top, _, _ in seen} == set(range(5)) and {mirrored for _, _, mirrored in seen} == {False, True}
    assert _augmented(x, pixels()) is x


def test_a_step_is_told_of_and_may_change_weights(few: Any) -> None:
    module, steps = build("digits_cnn", width_mult=0.1), []

    def on_step(step: int) -> None:
        steps.append(step)
        with torch.no_grad():
            module.get_parameter("linear.weight").zero_()

    fit(module, few(load("digits"), 100), Recipe(Schedule(0.05, 2), batch_size=64), on_step=on_step)
    assert steps == [1, 2, 3, 4] and not module.get_parameter("linear.weight").any()


def test_a_loss_that_is_no_number_is_an_error_that_names_the_learning_rate(few: Any) -> None:
    with pytest.raises(ModelError, match=r"the loss became .* in epoch 1; try: a learning rate below 1e\+20"):
        fit(build("digits_cnn", width_mult=0.1), few(load("digits"), 300), Recipe(Schedule(1e20, 2)))


def test_a_device_that_is_not_there_is_refused(few: Any) -> None:
    with pytest.raises(UsageError, match="torch cannot train on 'warp' here; try: cpu"):
        fit(build("digits_cnn", width_mult=0.1), few(load("digits"), 64), Recipe(Schedule(0.1, 1), on="warp"))


def test_bfloat16_learns_as_well_and_leaves_float32(few: Any) -> None:
    dataset = few(load("digits"), 640)
    losses = []
    for bfloat16 in (False, True):
        torch.manual_seed(0)
        module = build("digits_cnn", width_mult=0.25)
        losses.append(fit(module, dataset, Recipe(Schedule(0.05, 3), bfloat16=bfloat16)))
    assert losses[1] == pytest.approx(losses[0], rel=0.05) and losses[1] != losses[0]
    assert {weight.dtype for weight in module.state_dict().values()} == {torch.float32, torch.int64}
    assert module.get_parameter("features.3.weight").is_contiguous() and not module.training


def test_a_teachers_divergence_is_softened_and_has_the_gradient_of_its_soft_labels() -> None:
    """T^2 KL, and T (softmax(logits / T) - softmax(told / T)) / n."""
    logits, told = torch.randn(2, 5, 10, generator=torch.Generator().manual_seed(0)).unbind()
    logits.requires_grad_()
    own, others = ((one / TEMPERATURE).softmax(1) for one in (logits, told))
    found = divergence(logits, told)
    found.backward()  # type: ignore[no-untyped-call]
    expected = TEMPERATURE**2 * (others * (others / own).log()).sum(1).mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.allclose(logits.grad, TEMPERATURE * (own - others).detach() / 5, atol=1e-6)  # type: ignore[arg-type]
    assert float(divergence(told, told)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("share", "learns"), [(1.0, True), (0.0, False)])
def test_a_teacher_is_all_that_a_student_needs(share: float, learns: bool) -> None:
    """With labels that mean nothing."""
    dataset, teacher = load("digits"), trained_digits()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    nonsense = dataclasses.replace(dataset, train_y=np.random.default_rng(0).permutation(dataset.train_y))
    student = build("digits_cnn", width_mult=0.5)
    fit(student, nonsense, Recipe(Schedule(0.05, 3), distill=share), teacher=teacher)
    assert (accuracy(student, dataset) > 0.9) is learns
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_a_share_of_a_teachers_word_that_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="to take 1.5 of its loss from a teacher; try: 0 ... 1"):
        Recipe(Schedule(0.1, 1), distill=1.5)


@pytest.mark.parametrize("crop", [0, 3])
def test_statistics_anew_are_those_that_training_sees_and_weights_stay(crop: int) -> None:
    """Of images in a border of black, a moving window keeps less: the statistics of training have less of them too."""
    dataset = dataclasses.replace(load("digits"), crop=crop)
    module = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.9), nn.Flatten(), nn.Linear(64, 10)).eval()
    weight, state = module[3].weight.detach().clone(), torch.get_rng_state()
    recalibrate(module, dataset, images=10_000, batch_size=len(dataset.train_y))
    norm = module[0]
    assert isinstance(norm, nn.BatchNorm2d) and norm.momentum == 0.1 and not module.training
    assert torch.equal(module[3].weight, weight) and torch.equal(torch.get_rng_state(), state)
    mean, var = (float(one[0]) for one in (norm.running_mean, norm.running_var))  # type: ignore[index]
    if crop:
        assert mean < 0.95 * float(dataset.train_x.mean())
        norm.momentum = 1.0
        fit(module, dataset, Recipe(Schedule(1e-9, 1), batch_size=len(dataset.train_y)), seed=7)
        assert mean == pytest.approx(float(norm.running_mean[0]), rel=0.03)  # type: ignore[index]
    else:
        assert mean == pytest.approx(float(dataset.train_x.mean()), rel=1e-4)
        assert var == pytest.approx(float(dataset.train_x.var()), rel=1e-3)


def test_accuracy_counts_the_test_images_and_puts_the_mode_back() -> None:
    dataset = load("digits")

    class Oracle(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert not self.training
            return torch.zeros(len(x), 10).index_fill_(1, torch.tensor([4]), 1.0)

    module = Oracle().train()
    assert accuracy(module, dataset, batch_size=100) == pytest.approx(float((dataset.test_y == 4).mean()))
    assert module.training
