"""Plain training loops for networks on a CPU or a GPU: the same seed gives the same network on the same machine.

One thread by default: sums do not depend on the number of cores, and a busy machine costs its share and no more (two
threads that meet at a barrier some hundred times a step took 35 s instead of 2 when another process wanted the cores).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.datasets import Dataset, load
from pipeline.errors import ModelError, UsageError
from pipeline.models import build
from pipeline.schedule import Schedule

OnStep = Callable[[int], None]
TEMPERATURE = 4.0
"""Of what a teacher says: the likelier a wrong class, the more a student learns from it."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: SGD with Nesterov momentum.

    Args:
        weight_decay: of all parameters.
        threads: of torch; on: "cpu", "cuda" or another of torch's devices.
        bfloat16: convolutions and products in that format, weights and sums in float32: twice as fast where the processor
            has it.
        distill: the share of a teacher's word in the loss, 0 ... 1, where there is one.

    Raises: UsageError: a share out of its range.
    """

    schedule: Schedule
    batch_size: int = 64
    weight_decay: float = 5e-4
    momentum: float = 0.9
    threads: int = 1
    on: str = "cpu"
    bfloat16: bool = False
    distill: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.distill <= 1:
            raise UsageError(f"a training was asked to take {self.distill} of its loss from a teacher", try_="0 ... 1")


def fit(
    module: nn.Module, dataset: Dataset, recipe: Recipe, seed: int = 0, on_step: OnStep | None = None,
    teacher: nn.Module | None = None,
) -> list[float]:  # fmt: skip
    """Trains on the training images, cropped and mirrored as the dataset says.

    Args:
        module: trained in place, left on the CPU in eval mode.
        seed: of the order of the images, of crops and flips and of dropout; torch's global generator is left as it was.
        on_step: called with 1, 2, ... after each step. It may change weights.
        teacher: a network for the same classes, which is asked about the same crops; nothing of it changes.

    Returns: The mean loss of each epoch: the cross entropy, of which `recipe.distill` is replaced by the `divergence` from the
    teacher.

    Raises:
        ModelError: the loss is no number any more; the module holds what made it so.
        UsageError: torch has no such device.
    """
    device, batches = _device(recipe.on), -(-len(dataset.train_y) // recipe.batch_size)
    images, labels = torch.from_numpy(dataset.train_x), torch.from_numpy(dataset.train_y)
    losses: list[float] = []
    step = 0
    with _seeded(seed, device), threads(recipe.threads):
        # bfloat16's kernels are for this layout; float32's gain little by it
        layout = torch.channels_last if recipe.bfloat16 else torch.preserve_format
        module.to(device).to(memory_format=layout).train()  # type: ignore[call-overload]
        taught = copy.deepcopy(teacher if recipe.distill else None)
        if taught is not None:
            taught.to(device).to(memory_format=layout).eval()  # type: ignore[call-overload]
        optimizer = torch.optim.SGD(
            module.parameters(), recipe.schedule.lr, recipe.momentum, weight_decay=recipe.weight_decay,
            nesterov=recipe.momentum > 0,
        )  # fmt: skip
        try:
            for _ in range(recipe.schedule.run):
                total = torch.zeros((), device=device)
                for batch in torch.split(torch.randperm(len(images)), recipe.batch_size):
                    for group in optimizer.param_groups:
                        group["lr"] = recipe.schedule.at(step / batches)
                    x = prepared(_augmented(images[batch], dataset), dataset).to(device)
                    with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bfloat16):
                        logits = module(x)
                        loss = F.cross_entropy(logits, labels[batch].to(device))
                        if taught is not None:
                            with torch.no_grad():
                                told = taught(x)
                            loss = torch.lerp(loss, divergence(logits, told), recipe.distill)
                    optimizer.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    total += loss.detach() * len(batch)
                    step += 1
                    if on_step is not None:
                        on_step(step)
                losses.append(float(total) / len(images))
                if not math.isfinite(losses[-1]):
                    what = f"the loss became {losses[-1]} in epoch {len(losses)}"
                    raise ModelError(what, try_=f"a learning rate below {recipe.schedule.lr:g}")
        finally:
            module.to("cpu").to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    return losses


def divergence(logits: Tensor, told: Tensor) -> Tensor:
    """Of a student's logits (n, classes) from a teacher's, both softened: T^2 KL(softmax(told / T) || softmax(logits / T)).

    Its gradient is about that of a cross entropy whatever the temperature T is. Reference: Hinton, Vinyals, Dean, "Distilling
    the Knowledge in a Neural Network", arXiv 1503.02531, section 2.
    """
    own, others = ((one.float() / TEMPERATURE).log_softmax(1) for one in (logits, told))
    return TEMPERATURE**2 * F.kl_div(own, others, reduction="batchmean", log_target=True)


def recalibrate(module: nn.Module, dataset: Dataset, images: int = 2048, seed: int = 0, batch_size: int = 256) -> None:
    """Means and variances of all batch normalisations anew, over training images as training shows them. Weights stay;
    nothing is learned. What a decomposition does to activations costs far less accuracy afterwards.

    Cropped and mirrored, because the weights were learned with the statistics of such images, black borders and all: those
    of the bare images take 1.5 points from an undamaged resnet20, and more from a decomposed one.

    Args: seed: of which images, and of their crops and flips; torch's global generator is left as it was.
    """
    norms = [one for one in module.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
    momenta = [one.momentum for one in norms]
    if not norms:
        return
    was_training = module.training
    module.eval()
    try:
        for one in norms:
            one.reset_running_stats()
            one.momentum = None  # the mean over all batches
            one.train()
        with torch.no_grad(), _seeded(seed, torch.device("cpu")):
            for batch in torch.split(torch.randperm(len(dataset.train_y))[:images], batch_size):
                module(prepared(_augmented(torch.from_numpy(dataset.train_x)[batch], dataset), dataset))
    finally:
        for one, momentum in zip(norms, momenta, strict=True):
            one.momentum = momentum
        module.train(was_training)


def prepared(images: Tensor, dataset: Dataset) -> Tensor:
    """What a network is given: bytes standardised, floats as they are."""
    if images.dtype != torch.uint8:
        return images
    mean, std = (torch.tensor(one).view(1, -1, 1, 1) for one in (dataset.mean, dataset.std))
    return (images.float() / 255 - mean) / std


def _augmented(images: Tensor, dataset: Dataset) -> Tensor:
    """Each image a window of itself in a black border, every second one mirrored, by torch's generator."""
    count, channels, height, width = images.shape
    if dataset.crop:
        border = F.pad(images, (dataset.crop,) * 4)
        top, left = torch.randint(2 * dataset.crop + 1, (2, count, 1))
        rows, columns = top + torch.arange(height), left + torch.arange(width)
        images = border[
            torch.arange(count)[:, None, None, None], torch.arange(channels)[None, :, None, None],
            rows[:, None, :, None], columns[:, None, None, :],
        ]  # fmt: skip
    if dataset.flip:
        images = torch.where((torch.rand(count) < 0.5)[:, None, None, None], images.flip(-1), images)
    return images


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"torch cannot train on {name!r} here", try_="cpu") from error
    return device


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextmanager
def threads(count: int) -> Iterator[None]:
    """torch computes on so many threads inside, on as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def trained_digits(seed: int = 0) -> nn.Module:
    """`digits_cnn` in eval mode, trained on the digits' training split: a function of the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build("digits_cnn")
    fit(module, load("digits"), Recipe(Schedule(0.05, 3)), seed)
    return module
