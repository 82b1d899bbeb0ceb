"""Checkpoints on a hub that does not answer."""

import pytest

from kd_env.errors import InputError
from kd_env.models.checkpoint_files import find_folder


def test_a_hub_that_does_not_answer(monkeypatch):
    def down(*_args, **_options):
        raise OSError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.snapshot_download", down)
    with pytest.raises(InputError, match=r"the download from the hub failed \(Name or service not known\); check the name and the network"):
        find_folder("no/such-model-anywhere")
