"""Trimmed tokenizers encode the texts as before, with fewer tokens, and other texts by their characters or bytes."""

import json

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from kd_env.errors import InputError
from kd_env.models.pretrained import open_checkpoint
from kd_env.models.trim_vocabulary import require_trimmable, tokens_to_keep, trim, trimmed_state
from kd_env.randomness import seeded

CORPUS = ["the longest words are lower than lowest", "new newer newest", "wide wider widest", "a slow, low wind; blowing", "unhappily"] * 3
TEXTS = np.array(["newest wind", "lower and slow", "the widest"], dtype=object)
SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}


def wordpiece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=list(SPECIAL.values()), show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def byte_bpe():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=list(SPECIAL.values()), initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=80, special_tokens=list(SPECIAL.values()), unk_token="[UNK]", show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def write(folder, tokenizer, pair=False):
    """Write a small untrained classifier with this tokenizer."""
    ids = tokenizer.get_vocab()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")]
    )
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "max_position_embeddings": 40}
    config = transformers.BertConfig(vocab_size=len(ids) + 3, pad_token_id=ids["[PAD]"], initializer_range=0.5, **shape)  # 3 spare rows
    with seeded(0):
        transformers.BertForSequenceClassification(config).save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=32, **SPECIAL).save_pretrained(folder)
    return folder


def logits_of(opened, texts):
    with torch.no_grad():
        return opened.classifier().model(**opened.reader()(texts)).logits


@pytest.mark.parametrize("make", [wordpiece, byte_bpe, unigram])
def test_texts_are_read_as_before_by_fewer_tokens(make, own_task, tmp_path):
    folder = write(tmp_path / "model", make())
    opened = open_checkpoint(str(folder), own_task)
    tokenizer = opened.tokenizer()
    before, pieces = logits_of(opened, TEXTS), [tokenizer.tokenize(text) for text in TEXTS]
    whole, fewer = trim(opened, TEXTS)
    assert (whole, fewer < whole) == (len(tokenizer), True)
    trimmed = open_checkpoint(str(folder), own_task)
    tokenizer = trimmed.tokenizer()
    assert trimmed.config.vocab_size == fewer == len(tokenizer)
    assert [tokenizer.tokenize(text) for text in TEXTS] == pieces
    assert torch.equal(logits_of(trimmed, TEXTS), before)
    assert trimmed.config.pad_token_id == tokenizer.pad_token_id
    unseen = tokenizer("unhappily")["input_ids"]  # a token of the whole vocabulary that TEXTS do not contain
    assert tokenizer.unk_token_id not in unseen
    assert tokenizer.decode(unseen, skip_special_tokens=True).strip() == "unhappily"
    assert len(unseen) > 4, "it is read in pieces"
    assert trim(trimmed, TEXTS) == (fewer, fewer), "nothing is left to remove"


def test_the_number_format_of_the_weights_stays(own_task, tmp_path):
    folder = write(tmp_path / "model", wordpiece())
    open_checkpoint(str(folder), own_task).classifier().model.to(torch.float16).save_pretrained(folder)
    before = logits_of(open_checkpoint(str(folder), own_task), TEXTS)
    trim(open_checkpoint(str(folder), own_task), TEXTS)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float16"
    assert torch.equal(logits_of(open_checkpoint(str(folder), own_task), TEXTS), before)


def test_pairs_are_read_as_before(own_task, tmp_path):
    pairs = np.stack([TEXTS, TEXTS[::-1]], 1)
    folder = write(tmp_path / "model", wordpiece())
    before = logits_of(open_checkpoint(str(folder), own_task), pairs)
    trim(open_checkpoint(str(folder), own_task), pairs)
    assert torch.equal(logits_of(open_checkpoint(str(folder), own_task), pairs), before)


def test_a_token_of_bpe_keeps_what_it_is_joined_from():
    vocabulary = {token: number for number, token in enumerate(["a", "b", "c", "ab", "abc", "bc", "cc"])}
    model = {"type": "BPE", "vocab": vocabulary, "merges": [["a", "b"], "ab c", ["b", "c"], ["c", "c"]], "unk_token": None}
    state = {"model": model, "added_tokens": [], "post_processor": None, "padding": None}
    kept = tokens_to_keep(state, [vocabulary["abc"]])
    assert kept == {vocabulary[token] for token in ("a", "b", "c", "ab", "abc")}
    trimmed = trimmed_state(state, {old: new for new, old in enumerate(sorted(kept))})["model"]
    assert trimmed["merges"] == [["a", "b"], "ab c"]
    assert trimmed["vocab"] == {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4}


def test_the_score_of_unknown_characters_stays():
    pieces = [["<unk>", 0.0], ["x", -9.0], ["low", -1.0], ["rare piece", -12.0], ["unused", -2.0], ["<0x0A>", -3.0]]
    state = {"model": {"type": "Unigram", "vocab": pieces, "unk_id": 0}, "added_tokens": [], "post_processor": None, "padding": None}
    assert tokens_to_keep(state, [2]) == {0, 1, 2, 3, 5}, "the piece with the lowest score decides it"
    assert trimmed_state(state, {0: 0, 1: 1, 2: 2, 3: 3, 5: 4})["model"]["vocab"] == [pieces[row] for row in (0, 1, 2, 3, 5)]


def test_tokens_that_frame_texts_get_their_new_ids():
    roberta = {"type": "RobertaProcessing", "sep": ["</s>", 9], "cls": ["<s>", 7], "trim_offsets": True}
    state = {
        "model": {"type": "WordPiece", "vocab": {"x": 0, "yy": 1, "<s>": 7, "</s>": 9}, "unk_token": "x"},
        "added_tokens": [{"id": 12, "content": "<mask>", "special": True}],
        "post_processor": {"type": "Sequence", "processors": [roberta]},
        "padding": {"pad_id": 9},
    }
    assert tokens_to_keep(state, []) == {0, 7, 9, 12}
    trimmed = trimmed_state(state, {0: 0, 7: 1, 9: 2, 12: 3})
    assert trimmed["post_processor"]["processors"] == [{**roberta, "sep": ["</s>", 2], "cls": ["<s>", 1]}]
    assert (trimmed["added_tokens"][0]["id"], trimmed["padding"]["pad_id"]) == (3, 2)


def test_other_tokenizers_are_refused(make_checkpoint, own_task, tmp_path):
    folder = make_checkpoint(tmp_path / "words")
    with pytest.raises(InputError, match=r"has WordLevel; the vocabularies of WordPiece, BPE, Unigram tokenizers can be trimmed"):
        require_trimmable(open_checkpoint(str(folder), own_task).tokenizer(), "student 'words'")
    with pytest.raises(InputError, match="a tokenizer in Python"):
        require_trimmable(object(), "student 'slow'")
