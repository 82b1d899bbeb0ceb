"""The linear classifier, for what differentiates it alone."""

import pytest
from torch import nn

from kd_env.errors import InputError
from kd_env.models.classifier import linear_classifier
from kd_env.models.networks import build
from kd_env.models.wrapper import NetworkWrapper

HERE = f"{__name__}:"


class Plain(nn.Module):
    """A linear network whose features are its pixels."""

    name = "classifier"

    def __init__(self, task):
        super().__init__()
        self.add_module(self.name, self.head(task.num_classes))

    def head(self, num_classes):
        return nn.Linear(64, num_classes)

    def forward(self, pixel_values):
        features = pixel_values.flatten(1)
        return self.get_submodule(self.name)(features), features


class Elsewhere(Plain):
    name = "output"


class Deep(Plain):
    def head(self, num_classes):
        return nn.Sequential(super().head(num_classes), nn.Tanh())


class Doubled(Plain):
    def forward(self, pixel_values):
        logits, features = super().forward(pixel_values)
        return 2 * logits, features


class Around(NetworkWrapper):
    def extend(self, output):
        return output


def test_it_is_found_in_any_wrapper(digits_data):
    for text in ("mlp", "tiny-vit(width=8,layers=1)", f"{HERE}Plain"):
        network = build(text, digits_data.task, 0)
        assert isinstance(linear_classifier(network), nn.Linear)
        assert linear_classifier(Around(Around(network))) is linear_classifier(network)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Elsewhere", "has no attribute classifier; credit=head needs a torch.nn.Linear of that name from features to logits"),
        ("Deep", "has a Sequential as its classifier; credit=head needs"),
        ("Doubled", "has a classifier that does not compute its logits from its features; credit=head needs"),
    ],
)
def test_where_there_is_none_it_is_refused_by_name(digits_data, name, says):
    network = Around(build(f"{HERE}{name}", digits_data.task, 0))
    with pytest.raises(InputError, match=f"student '{HERE}{name}' {says}"):
        linear_classifier(network)
