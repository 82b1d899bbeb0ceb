"""What a user's module returns becomes a ``ModelOutput``."""

from collections import OrderedDict, namedtuple

import pytest
import torch
from torch import nn

from kd_env.errors import InputError
from kd_env.models.plugin_network import PluginNetwork
from kd_env.types import ModelOutput

Pair = namedtuple("Pair", ["logits", "features"])
EXTRA = frozenset({"layers"})


class Returning(nn.Module):
    """Returns what it was built with."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x):
        return self.value


class Deep(nn.Module):
    """Returns its input as layers, where it is asked for them."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def forward(self, x, extra_outputs=frozenset()):
        self.asked.append(extra_outputs)
        return {"logits": x[:, -1], "features": x[:, -1], **({"layers": x} if "layers" in extra_outputs else {})}


LOGITS, FEATURES = torch.ones(2, 3), torch.zeros(2, 4)


@pytest.mark.parametrize(
    "value",
    [
        (LOGITS, FEATURES),
        Pair(LOGITS, FEATURES),
        {"features": FEATURES, "logits": LOGITS},
        OrderedDict(logits=LOGITS, features=FEATURES, hidden_states=()),
        ModelOutput(LOGITS, FEATURES),
    ],
    ids=lambda value: type(value).__name__,
)
def test_logits_and_features_are_named(value):
    output = PluginNetwork(Returning(value), "m:C")(x=torch.zeros(2))
    assert isinstance(output, ModelOutput)
    assert output.logits is LOGITS
    assert output.features is FEATURES
    assert output.layers is None


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (LOGITS, "Tensor"),
        ((LOGITS,), "tuple"),
        ((LOGITS, FEATURES, LOGITS), "tuple"),
        ([LOGITS, FEATURES], "list"),
        ({"logits": LOGITS}, "dict of logits"),
        (None, "NoneType"),
    ],
)
def test_anything_else_is_named(value, what):
    with pytest.raises(InputError, match=f"student 'm:C': forward returned a {what}; return"):
        PluginNetwork(Returning(value), "m:C")(x=torch.zeros(2))


def test_layers_are_asked_for_where_forward_takes_extra_outputs():
    deep, x = Deep(), torch.ones(2, 3, 4)
    network = PluginNetwork(deep, "m:C")
    assert network(x=x).layers is None
    assert torch.equal(network(x=x, extra_outputs=EXTRA).layers, x)
    assert deep.asked == [frozenset(), EXTRA]
    assert PluginNetwork(Returning((LOGITS, FEATURES)), "m:C")(x=x, extra_outputs=EXTRA).layers is None
