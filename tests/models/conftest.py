"""What the tests of networks share: small untrained checkpoints."""

import pytest


@pytest.fixture(scope="session")
def folders(make_checkpoint, tmp_path_factory):
    """A checkpoint folder of each text architecture, by name."""
    place = tmp_path_factory.mktemp("checkpoints")
    return {name: str(make_checkpoint(place / name, name)) for name in ("bert", "distilbert", "roberta")}
