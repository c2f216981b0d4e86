"""VGG: 3x3 convolutions between max poolings, for ImageNet and in the two forms that are pruned on CIFAR-10.

Reference: Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015, Table 1
(configurations A, D, E). CIFAR: Li, Kadav, Durdanovic, Samet, Graf, "Pruning Filters for Efficient ConvNets", ICLR 2017,
Table 2, after Zagoruyko; Liu, Li, Shen, Huang, Yan, Zhang, "Learning Efficient Convolutional Networks through Network
Slimming", ICCV 2017, section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from pipeline.errors import UsageError
from pipeline.models.blocks import conv_bn

# Table 1 of the paper: depth -> 3x3 convolutions of each of the five stages. Then: the channels of the stages.
TABLE_1 = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
STAGES = (64, 128, 256, 512, 512)


@dataclass(frozen=True)
class Form:
    """What surrounds the convolutions.

    Args:
        batch_norm: behind each convolution, which has no bias then.
        hidden: channels of the linear layers before the last one.
        side: height and width of what the first linear layer reads.
        mean: the last pooling is the mean of all pixels, not the fifth max pooling.
    """

    batch_norm: bool
    hidden: tuple[int, ...]
    side: int
    mean: bool = False


FORMS = {
    "imagenet": Form(batch_norm=False, hidden=(4096, 4096), side=7),
    "cifar_li": Form(batch_norm=True, hidden=(512,), side=1),
    "cifar_liu": Form(batch_norm=True, hidden=(), side=1, mean=True),
}


class Vgg(nn.Module):
    """Input (n, 3, 224, 224), for CIFAR (n, 3, 32, 32); output (n, num_classes) logits.

    A form with linear layers behind max poolings reads no other size; "cifar_liu" reads any from 16 up.

    Args:
        depth: 11, 16 or 19 (configurations A, D and E).
        form: "imagenet", "cifar_li" (batch normalisation, one hidden layer of 512) or "cifar_liu" (none hidden).
        num_classes: outputs of the last layer.
        width_mult: of all channels, hidden layers too; not in the papers.
        widths: explicit channels instead: the convolutions in order, then the hidden linear layers. 10, 15 and 18 numbers
            for ImageNet; 8, 13 and 16 convolutions.

    Raises:
        UsageError: another depth or form, or a wrong number of widths.

    Differs from the CIFAR papers: no biases where batch normalisation has one (4224 parameters of vgg16).
    """

    def __init__(
        self,
        depth: int = 16,
        form: str = "imagenet",
        num_classes: int = 1000,
        width_mult: float = 1.0,
        widths: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if depth not in TABLE_1:
            raise UsageError(f"VGG was asked with depth {depth}", try_=", ".join(map(str, TABLE_1)))
        if form not in FORMS:
            raise UsageError(f"VGG was asked in the form {form!r}", try_=", ".join(FORMS))
        chosen, repeats = FORMS[form], TABLE_1[depth]
        convolutions = sum(repeats)
        if widths is None:
            every = [c for c, n in zip(STAGES, repeats, strict=True) for _ in range(n)]
            widths = [max(1, round(c * width_mult)) for c in (*every, *chosen.hidden)]
        if len(widths) != convolutions + len(chosen.hidden):
            raise UsageError(
                f"vgg{depth} was given {len(widths)} widths",
                try_=f"give {convolutions} for the convolutions and {len(chosen.hidden)} for hidden linear layers",
            )
        features: list[nn.Module] = []
        c_in, left = 3, list(widths)
        for stage, count in enumerate(repeats):
            for _ in range(count):
                c_out = left.pop(0)
                features.append(_convolution(c_in, c_out, chosen.batch_norm))
                c_in = c_out
            is_last = stage == len(repeats) - 1
            features.append(nn.AdaptiveAvgPool2d(1) if is_last and chosen.mean else nn.MaxPool2d(2))
        self.features = nn.Sequential(*features)
        classifier: list[nn.Module] = [nn.Dropout(0.5)] if chosen.batch_norm and chosen.hidden else []
        c_in *= chosen.side**2
        for c_out in left:
            norm = [nn.BatchNorm1d(c_out)] if chosen.batch_norm else []
            classifier += [nn.Linear(c_in, c_out, bias=not norm), *norm, nn.ReLU(), nn.Dropout(0.5)]
            c_in = c_out
        self.classifier = nn.Sequential(*classifier, nn.Linear(c_in, num_classes))
        self._initialise(chosen.batch_norm)

    def _initialise(self, batch_norm: bool) -> None:
        """ImageNet: Glorot's, which the paper found to need no pre-training (section 3.1). CIFAR: as both papers' code."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                if not batch_norm:
                    nn.init.xavier_uniform_(layer.weight)
                elif isinstance(layer, nn.Conv2d):
                    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                else:
                    nn.init.normal_(layer.weight, 0.0, 0.01)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


def _convolution(c_in: int, c_out: int, batch_norm: bool) -> nn.Sequential:
    if batch_norm:
        return conv_bn(c_in, c_out, 3)
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, padding=1), nn.ReLU())
