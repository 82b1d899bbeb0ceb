"""What depends on training and evaluation mode."""

import torch
from torch import nn

from kd_env.models.modes import depends_on_mode, draws_in_training, evaluation_mode, running_statistics
from kd_env.models.networks import build
from kd_env.models.plugin_network import PluginNetwork


class Plugin(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x, training=self.training), x


def test_dropout_and_norms_depend_on_the_mode(digits_data, text_data):
    task = digits_data.task
    assert not depends_on_mode(build("mlp(depth=2)", task, 0))
    assert depends_on_mode(build("mlp(dropout=0.1)", task, 0))
    assert depends_on_mode(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    assert not draws_in_training(build("mlp(depth=2)", task, 0))
    assert draws_in_training(build("mlp(dropout=0.1)", task, 0))
    assert draws_in_training(build("tiny-bert(width=8,layers=1)", text_data.task, 0))
    assert not draws_in_training(build("tiny-bert(width=8,layers=1,dropout=0)", text_data.task, 0))


def test_code_of_a_user_may_do_anything():
    network = nn.Sequential(PluginNetwork(Plugin(), "m:C"))
    assert depends_on_mode(network)
    assert draws_in_training(network)


def test_evaluation_mode_ends_with_the_block():
    network = nn.Dropout(0.5)
    with evaluation_mode(network):
        assert not network.training
    assert network.training


def test_running_statistics_are_found_by_name():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.LayerNorm(2), nn.BatchNorm1d(2, track_running_stats=False))
    names = running_statistics(network)
    assert names == ["1.running_mean", "1.running_var", "1.num_batches_tracked"]
    assert all(isinstance(network.get_buffer(name), torch.Tensor) for name in names)
    assert running_statistics(nn.Linear(2, 2)) == []


def test_dropout_without_a_layer_draws():
    """As in Transformers' ViT, whose attention calls the function; and paths that are dropped."""

    class Attention(nn.Module):
        def __init__(self, rate):
            super().__init__()
            self.attention_dropout = rate

        def forward(self, x):
            return nn.functional.dropout(x, self.attention_dropout, self.training)

    assert draws_in_training(nn.Sequential(Attention(0.5)))
    assert depends_on_mode(nn.Sequential(nn.Linear(2, 2), Attention(0.5)))
    assert not draws_in_training(nn.Sequential(Attention(0.0)))
    assert draws_in_training(nn.Sequential(nn.Dropout2d(0.5)))
