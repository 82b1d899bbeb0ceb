"""The metadata of a model card are YAML that the hub reads, and say nothing that is not known."""

import json
from dataclasses import replace

import pytest
import yaml

from kd_env import tasks
from kd_env.benchmark.card_metadata import front_matter


@pytest.fixture
def encoder(make_checkpoint, tmp_path):
    folder = make_checkpoint(tmp_path / "encoder", "bert")
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\ntags:\n- sentence-similarity\n---\n# An encoder\n")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "_name_or_path": "org/encoder"}))
    return folder


def read(text):
    first, content, last = text.partition("---\n")[0], *text.removeprefix("---\n").rsplit("---", 1)
    assert (first, last) == ("", "")
    return yaml.safe_load(content)


def test_licence_and_base_model_are_those_of_the_checkpoint(encoder, own_task):
    values = read(front_matter(own_task, f"{encoder}(layers=0)", 0.875))
    assert values["license"] == "apache-2.0"
    assert values["base_model"] == "org/encoder"
    assert values["pipeline_tag"] == "text-classification"
    assert values["metrics"] == ["accuracy"]
    (result,) = values["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "accuracy", "value": 0.875}]
    assert result["dataset"]["name"] == own_task.name
    assert "datasets" not in values, "own data have no name on the hub"


def test_what_is_not_known_is_left_out(own_task, make_checkpoint, tmp_path):
    for student in ("tiny-bert(width=16)", str(make_checkpoint(tmp_path / "plain", "bert"))):
        values = read(front_matter(own_task, student, None))
        assert not {"license", "base_model", "model-index", "datasets"} & set(values)


def test_published_data_have_their_name_on_the_hub():
    named = replace(tasks.load("digits"), name="fashion-mnist", metric="f1_macro")
    values = read(front_matter(named, "tiny-vit", 0.5))
    assert values["datasets"] == ["zalando-datasets/fashion_mnist"]
    assert values["metrics"] == ["f1"]
    assert values["pipeline_tag"] == "image-classification"
