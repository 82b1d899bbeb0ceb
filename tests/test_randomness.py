"""Results repeat inside the context, and torch's settings are as before after it."""

import os

import pytest
import torch

from kd_env.randomness import CUBLAS_WORKSPACE, reproducible

FILLED = torch.utils.deterministic


def settings():
    return torch.get_num_threads(), torch.get_deterministic_debug_mode(), FILLED.fill_uninitialized_memory


@pytest.fixture
def two_threads(monkeypatch):
    threads = torch.get_num_threads()
    monkeypatch.setenv(CUBLAS_WORKSPACE[0], "")  # so that its absence is restored
    monkeypatch.delenv(CUBLAS_WORKSPACE[0])
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("with_cuda", [False, True])
@pytest.mark.usefixtures("two_threads")
def test_settings_hold_inside_and_are_restored(with_cuda, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: with_cuda)
    before = settings()
    with reproducible():
        assert settings() == ((1, 1, False) if with_cuda else (1, *before[1:]))
        assert os.environ.get(CUBLAS_WORKSPACE[0]) == (CUBLAS_WORKSPACE[1] if with_cuda else None)
    assert settings() == before


@pytest.mark.usefixtures("two_threads")
def test_a_workspace_of_the_user_stays(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv(CUBLAS_WORKSPACE[0], ":16:8")
    with reproducible():
        assert os.environ[CUBLAS_WORKSPACE[0]] == ":16:8"
