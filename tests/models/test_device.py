"""Devices that are there and that are not."""

import pytest
import torch

from kd_env.errors import InputError
from kd_env.models.device import pick_device


@pytest.mark.parametrize("name", ["cpu:x", "tpu", "mps", "meta", *([] if torch.cuda.is_available() else ["cuda", "cuda:0"])])
def test_devices_that_are_not_here_are_refused(name):
    with pytest.raises(InputError, match="device="):
        pick_device(name)


def test_devices_that_are_here_are_taken():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
