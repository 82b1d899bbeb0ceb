"""The task of these tests, and a teacher of it."""

import pytest
from counted_passes import deep_network

from kd_env import tasks


@pytest.fixture(scope="module")
def digits():
    return tasks.load("digits")


@pytest.fixture(scope="module")
def deep(digits):
    """A trained network of three hidden layers."""
    return deep_network(digits)
