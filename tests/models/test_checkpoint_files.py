"""Checkpoints on a hub that does not answer."""

import json
import os

import pytest
import torch
from safetensors.torch import save_file
from transformers import BertConfig

from kd_env.errors import InputError
from kd_env.models.checkpoint_files import find_folder, require_layers


def test_a_hub_that_does_not_answer(monkeypatch):
    def down(*_args, **_options):
        raise OSError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.snapshot_download", down)
    with pytest.raises(InputError, match=r"the download from the hub failed \(Name or service not known\); check the name and the network"):
        find_folder("no/such-model-anywhere")


def test_a_pipe_in_a_checkpoint_is_refused(make_checkpoint, tmp_path):
    folder = make_checkpoint(tmp_path / "good")
    os.mkfifo(folder / "vocab.txt")
    with pytest.raises(InputError, match=r"vocab\.txt is a pipe or a device; copy its content to a file"):
        find_folder(str(folder))


@pytest.mark.parametrize("sharded", [False, True])
def test_more_layers_than_tensors_are_refused_before_they_are_built(sharded, tmp_path):
    if sharded:
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "x", "b": "x"}}))
    else:
        save_file({"a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "model.safetensors")
    require_layers(tmp_path, BertConfig(num_hidden_layers=2))
    with pytest.raises(InputError, match=r"config\.json: 1000000 layers, and the weights are 2 tensors; save or download it again"):
        require_layers(tmp_path, BertConfig(num_hidden_layers=10**6))
