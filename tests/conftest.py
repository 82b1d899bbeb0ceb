"""Fixtures of all tests: a cache of their own, one thread, and data to distil with."""

import gc
import os
import random

import pytest
import torch

from baselines.stacking import Stack
from kd_env import tasks
from kd_env.bank.bank import open_bank
from kd_env.bank.fingerprint import fingerprint
from kd_env.distillation import EncodedTask
from kd_env.envs import make
from kd_env.models.networks import build
from kd_env.paths import cache_dir
from kd_env.randomness import seeded
from kd_env.teachers import NetworkTeacher, Pool, load_pool
from kd_env.teachers.pool_recipes import POOLS


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """The workers of one run share a fresh cache, so that each pool is trained once; the user's stays as it is."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KD_ENV_CACHE", str(shared / "kd-env-cache"))
        yield


gc.disable()  # collecting 7,000 tests makes few cycles, and looking for them takes half of its time


def pytest_collection_finish():
    """Keep 7,000 test items and all modules out of the passes of Python's collector of reference cycles."""
    gc.collect()
    gc.freeze()
    gc.enable()


LOADED_POOLS, OPENED_BANKS = {}, {}
"""Built-in pools by cache, name and task, and banks in the cache by fingerprint, for all tests in this process."""


@pytest.fixture(scope="module", autouse=True)
def _load_once():
    """Environments load each built-in pool and open its bank once: that takes longer than a small episode. tests/bank tests it."""
    load, open_ = make.load_pool, make.open_bank

    def loaded(text, task):
        if text not in POOLS:
            return load(text, task)
        key = cache_dir(), text, task.fingerprint
        LOADED_POOLS[key] = LOADED_POOLS[key] if key in LOADED_POOLS else load(text, task)
        return LOADED_POOLS[key]

    def opened(task, pool, directory=None, keep=frozenset()):
        if directory is not None:
            return open_(task, pool, directory, keep=keep)
        key = cache_dir(), fingerprint(task, pool, keep)
        OPENED_BANKS[key] = OPENED_BANKS[key] if key in OPENED_BANKS else open_(task, pool, keep=keep)
        return OPENED_BANKS[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(make, "load_pool", loaded)
        patch.setattr(make, "open_bank", opened)
        yield


STACKS = {}
"""Fitted stacks by their examples and seed, for all tests in this process; nobody changes a stack."""


@pytest.fixture(scope="module")
def fit_stacks_once():
    """Policies that start from a stack fit it once on the same labels with the same seed: a fit takes seconds."""

    def fitted(examples, seed, temperature=None):
        parts = examples.teacher_logits, *examples.teacher_features, examples.labels
        key = seed, temperature, *(part.numpy().tobytes() for part in parts)
        STACKS[key] = STACKS[key] if key in STACKS else Stack(examples, seed, temperature)
        return STACKS[key]

    with pytest.MonkeyPatch.context() as patch:
        for module in ("baselines.stacking", "baselines.taught_stacking", "agents.credit_policies"):
            patch.setattr(f"{module}.Stack", fitted)
        yield


@pytest.fixture(scope="session")
def digits_data():
    """Digits with the four experts: K = 4, C = 10."""
    task = tasks.load("digits")
    return EncodedTask.of(task, open_bank(task, load_pool("digits/experts", task)))


@pytest.fixture(scope="session")
def text_data():
    """A little generated text with three untrained teachers: K = 3, C = 4."""
    task = tasks.load("domains(train=160,reward=48,validation=32,test=16)")
    network = "tiny-bert(width=16,layers=1,dropout=0)"
    teachers = tuple(NetworkTeacher(f"teacher{seed}", build(network, task, seed), task, logit_scale=4.0) for seed in range(3))
    return EncodedTask.of(task, open_bank(task, Pool("untrained", teachers)))


@pytest.fixture(scope="session")
def layered_data():
    """The same text with three untrained teachers of other depths and widths, whose bank keeps layers and attention."""
    task = tasks.load("domains(train=160,reward=48,validation=32,test=16)")
    shapes = [(16, 1, 2), (8, 3, 4), (12, 2, 1)]
    networks = [f"tiny-bert(width={width},layers={layers},heads={heads},dropout=0)" for width, layers, heads in shapes]
    teachers = tuple(NetworkTeacher(f"teacher{k}", build(text, task, k), task, logit_scale=4.0) for k, text in enumerate(networks))
    return EncodedTask.of(task, open_bank(task, Pool("layered", teachers), keep=frozenset({"layers", "attention"})))


WORDS = {
    "neg": "bad poor awful dull weak",
    "pos": "good fine great superb lovely",
    "": "the a film was it that with and plot actor scene saw",
}


@pytest.fixture(scope="session")
def own_data(tmp_path_factory):
    """A folder with a user's own data: 420 texts of known words, classes neg and pos, groups a and b."""
    rng, rows = random.Random(0), {}
    while len(rows) < 420:
        label = rng.choice(("neg", "pos"))
        words = rng.choices(WORDS[""].split(), k=rng.randint(2, 14)) + rng.choices(WORDS[label].split(), k=2)
        rng.shuffle(words)
        rows[" ".join(words)] = label
    folder = tmp_path_factory.mktemp("own") / "data"
    folder.mkdir()
    lines = [f"{text}\t{label}\t{'ab'[number % 2]}\n" for number, (text, label) in enumerate(rows.items())]
    (folder / "train.tsv").write_text("sentence\tlabel\tgroup\n" + "".join(lines))
    return folder


@pytest.fixture(scope="session")
def own_task(own_data):
    return tasks.load(f"folder:{own_data}")


@pytest.fixture(scope="session")
def make_checkpoint():
    """``make_checkpoint(folder, "bert", labels=("pos", "neg"))``: a small untrained checkpoint with its tokenizer."""
    return write_checkpoint


def write_checkpoint(folder, architecture="bert", labels=None, seed=0, layers=3, **options):
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers.utils import logging

    logging.disable_progress_bar()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    vocabulary = {word: number for number, word in enumerate([*special.values(), *" ".join(WORDS.values()).split()])}
    shape = {"hidden_size": 16, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 24, "initializer_range": 0.3}
    text = {"vocab_size": len(vocabulary), "pad_token_id": 0, "max_position_embeddings": 40}
    config_class, model_class = {
        "bert": (transformers.BertConfig, transformers.BertForSequenceClassification),
        "distilbert": (transformers.DistilBertConfig, transformers.DistilBertForSequenceClassification),
        "roberta": (transformers.RobertaConfig, transformers.RobertaForSequenceClassification),
        "electra": (transformers.ElectraConfig, transformers.ElectraForSequenceClassification),
        "vit": (transformers.ViTConfig, transformers.ViTForImageClassification),
    }[architecture]
    if architecture == "distilbert":
        shape = {"dim": 16, "n_layers": layers, "n_heads": 2, "hidden_dim": 24, "initializer_range": 0.3}
    if architecture == "roberta":
        text["pad_token_id"], vocabulary = 1, {**vocabulary, "[CLS]": 0, "[PAD]": 1, "[SEP]": 2, "[UNK]": 3}
    config = config_class(**shape, **({} if architecture == "vit" else text), **options)
    if labels is not None:
        config.id2label, config.label2id = dict(enumerate(labels)), {name: number for number, name in enumerate(labels)}
    with seeded(seed):
        model_class(config).save_pretrained(folder)
    if architecture != "vit":
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
        )
        inputs = ["input_ids", "attention_mask", *(["token_type_ids"] if architecture == "bert" else [])]
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, model_max_length=32, model_input_names=inputs, **special
        ).save_pretrained(folder)
    return folder
