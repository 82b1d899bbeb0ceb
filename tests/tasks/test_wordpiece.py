"""The trained tokenizer: equal texts give equal vocabularies in any process, from the train split alone, once."""

import hashlib
import pickle
import subprocess
import sys
import time
import unicodedata

import numpy as np
import pytest

from kd_env.tasks.wordpiece import VOCABULARY, WordPiece

RNG = np.random.default_rng(0)
SYLLABLES = np.array(["ba", "ko", "du", "fi", "re", "mo", "lu", "sha", "té", "ñi"])
TEXTS = np.array([" ".join("".join(RNG.choice(SYLLABLES, size=RNG.integers(1, 5))) for _ in range(8)) for _ in range(300)], dtype=object)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("KD_ENV_CACHE", str(tmp_path))


def tokens(tokenizer, *texts):
    return tokenizer.convert_ids_to_tokens(tokenizer(*texts)["input_ids"])


def vocabulary(tokenizer):
    return hashlib.sha256(repr(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()


def test_texts_and_pairs_have_cls_and_sep():
    tokenizer = WordPiece(TEXTS)()
    word = TEXTS[0].split()[0]
    assert tokens(tokenizer, word)[:: len(tokens(tokenizer, word)) - 1] == ["[CLS]", "[SEP]"]
    assert [token for token in tokens(tokenizer, word, word) if token.startswith("[")] == ["[CLS]", "[SEP]", "[SEP]"]
    assert (tokenizer.pad_token_id, tokenizer.model_max_length) == (0, 128)


def test_seen_texts_are_encoded_without_loss_and_an_unseen_character_is_unknown():
    tokenizer = WordPiece(TEXTS)()
    encoded = tokenizer(list(TEXTS))["input_ids"]
    assert tokenizer.unk_token_id not in {token for row in encoded for token in row}
    plain = str.maketrans("éñ", "en")
    decoded = tokenizer.batch_decode(encoded, skip_special_tokens=True)
    assert decoded == [text.translate(plain) for text in TEXTS], "lower case without accents"
    assert tokens(tokenizer, "ba☃")[1:-1] == ["[UNK]"]
    assert tokens(tokenizer, "##ba")[1:-1] == ["[UNK]", "[UNK]", "ba"], "## in a text does not continue a word"
    assert set(tokenizer.all_special_tokens) == {"[PAD]", "[UNK]", "[CLS]", "[SEP]"}


def test_the_order_of_rows_and_the_process_do_not_matter():
    script = f"""
import hashlib, numpy as np
from kd_env.tasks.wordpiece import _train
texts = {sorted(set(TEXTS))!r}
for _ in range(3):
    print(hashlib.sha256(repr(sorted(_train(texts).get_vocab().items())).encode()).hexdigest())
"""
    elsewhere = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert elsewhere == [vocabulary(WordPiece(TEXTS[::-1])())] * 3


def test_it_is_trained_once_and_again_where_the_file_is_damaged(tmp_path):
    first = WordPiece(TEXTS)
    assert first() is first()
    (file,) = (tmp_path / "tokenizers").glob("*.json")
    written = file.stat().st_mtime_ns
    again = WordPiece(np.random.default_rng(1).permutation(TEXTS))()
    assert vocabulary(again) == vocabulary(first())
    assert file.stat().st_mtime_ns == written
    file.write_text("{")
    assert vocabulary(WordPiece(TEXTS)()) == vocabulary(first())
    assert file.stat().st_size > 1000


def test_other_texts_have_another_vocabulary_and_its_size_is_limited():
    many = np.array([f"word{i:05d}" for i in range(12_000)], dtype=object)
    large = WordPiece(many)()
    assert len(large) <= VOCABULARY
    assert vocabulary(large) != vocabulary(WordPiece(TEXTS)())


def test_both_texts_of_pairs_are_in_the_vocabulary():
    pairs = np.array([[f"{text}", "zzz"] for text in TEXTS], dtype=object)
    assert tokens(WordPiece(pairs)(), "zzz") == ["[CLS]", "zzz", "[SEP]"]


def test_it_can_be_sent_to_another_process():
    assert vocabulary(pickle.loads(pickle.dumps(WordPiece(TEXTS)))()) == vocabulary(WordPiece(TEXTS)())


PAIRS_OF_WORDS = {"Hindi": ("कल", "कुल"), "Vietnamese": ("bán", "bạn"), "Thai": ("ดี", "ดุ"), "German": ("drucken", "drücken")}


@pytest.mark.parametrize("language", PAIRS_OF_WORDS)
def test_words_that_differ_in_combining_marks_alone_are_told_apart(language):
    first, second = PAIRS_OF_WORDS[language]
    texts = np.array([f"{word} {number}" for number in range(40) for word in (first, second)], dtype=object)
    tokenizer = WordPiece(texts, marks=True)()
    assert tokens(tokenizer, first) != tokens(tokenizer, second)
    assert tokenizer.unk_token_id not in tokenizer(first)["input_ids"] + tokenizer(second)["input_ids"]
    assert tokens(tokenizer, unicodedata.normalize("NFD", second)) == tokens(tokenizer, second), "one form of each character"


def test_capital_letters_are_kept_if_asked_for():
    texts = np.array(["US us it IT"] * 3, dtype=object)
    assert tokens(WordPiece(texts, marks=True)(), "US") == tokens(WordPiece(texts, marks=True)(), "us")
    cased = WordPiece(texts, marks=True, cased=True)
    assert tokens(cased(), "US") == ["[CLS]", "US", "[SEP]"] != tokens(cased(), "us")
    assert (cased.variant, WordPiece(texts).variant) == ("marks,cased", "")


def test_texts_without_marks_have_the_same_vocabulary_with_and_without_them():
    plain = np.array([text.translate(str.maketrans("éñ", "en")) for text in TEXTS], dtype=object)
    assert vocabulary(WordPiece(plain)()) == vocabulary(WordPiece(plain, marks=True)())


@pytest.mark.long
def test_a_word_of_a_hundred_thousand_characters_is_cut_and_not_unknown():
    word = "".join(RNG.choice(list("abcdefgh"), size=100_000))
    started = time.process_time()
    tokenizer = WordPiece(np.array([word, "hello"], dtype=object), marks=True)()
    ids = tokenizer(word, verbose=False)["input_ids"]
    assert time.process_time() - started < 10, "linear in the longest word"
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == word


def test_a_word_that_a_published_tokenizer_does_not_know_is_not_trained_on():
    """The trainer takes minutes for a word of a million letters."""
    word = "".join(RNG.choice(list("abcdefgh"), size=100_000))
    assert vocabulary(WordPiece(np.array([*TEXTS, f"ba {word} ko"], dtype=object))()) == vocabulary(
        WordPiece(np.array([*TEXTS, "ba ko"], dtype=object))()
    )
