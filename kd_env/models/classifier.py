"""Find the last layer of a network, which head credit differentiates. In: a network. Out: its linear classifier, or an input error."""

from __future__ import annotations

from torch import nn

from kd_env.errors import InputError
from kd_env.models.low_bit import LowBitLinear
from kd_env.models.plugin_network import PluginNetwork
from kd_env.models.wrapper import unwrap


def linear_classifier(network: nn.Module) -> nn.Linear:
    """Return the linear layer that computes the logits from ``ModelOutput.features``.

    Raises:
        InputError: the network has no ``classifier``, or it is not a ``torch.nn.Linear`` from features to logits, or it is quantised.
    """
    network = unwrap(network)
    classifier = network.classifier
    if not isinstance(network, PluginNetwork):
        assert isinstance(classifier, nn.Linear), "the classifier of a built-in network is linear"
        if isinstance(classifier, LowBitLinear):
            raise InputError(
                f"the student's classifier has {classifier.weight_quantizer.bits} bits, so its logits are not linear in its parameters, as "
                "credit=head needs; use credit=first_order"
            )
        return classifier
    if isinstance(classifier, nn.Linear) and network.classifies_features:
        return classifier
    problem = "has no attribute classifier" if classifier is None else f"has a {type(classifier).__name__} as its classifier"
    if isinstance(classifier, nn.Linear):
        problem = "has a classifier that does not compute its logits from its features"
    raise InputError(
        f"student {network.text!r} {problem}; credit=head needs a torch.nn.Linear of that name from features to logits: add it, or use "
        "another credit"
    )
