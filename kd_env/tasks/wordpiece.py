"""Build the tokenizer of a text task that has none: a WordPiece vocabulary trained on the train split alone.

It is trained once and kept in the cache under the hash of its texts. The trainer of the ``tokenizers`` library numbers characters in an
order that changes from run to run, which changes later merges; here the characters get their numbers first, so that equal texts give equal
vocabularies.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from kd_env.paths import cache_dir, locked

VOCABULARY = 8000
"""Largest number of word pieces."""
ALPHABET = 1000
"""Largest number of different characters among them."""
ALPHABET_WITH_MARKS = 3000
"""The same for a tokenizer that keeps combining marks; writing systems of syllables or words have thousands of characters."""
WORD = 100
"""Characters of a word; a tokenizer that keeps combining marks cuts longer words, so that no step is quadratic in the longest word."""
LEFT_OUT = 1000
"""A tokenizer that does not cut words is trained without words of at least so many characters."""
MAX_TOKENS = 128
"""Tokens of a text; the rest is cut off."""

FORMAT = 1
SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}


@dataclass(frozen=True, eq=False)
class WordPiece:
    """Makes the Transformers tokenizer of some texts when it is called.

    The tokenizer lower-cases and writes ``[CLS] A [SEP]`` or, of a pair, ``[CLS] A [SEP] B [SEP]``.

    Attributes:
        texts: an object array ``[N]``, or ``[N, 2]`` of pairs.
        marks: keep combining marks (accents, vowel signs, tones), and cut words of more than 100 characters into pieces. Published tasks
            drop marks, as BERT's tokenizer for English does; a longer word is then unknown.
        cased: keep capital letters.
    """

    texts: np.ndarray
    marks: bool = False
    cased: bool = False

    @property
    def variant(self) -> str:
        """What differs from the tokenizer of published tasks; empty if nothing does."""
        return ",".join(name for name in ("marks", "cased") if getattr(self, name))

    def __call__(self) -> Any:
        """Return the tokenizer, always the same object."""
        return self._tokenizer

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer  # Transformers takes seconds to import
        from transformers import PreTrainedTokenizerFast

        texts = sorted(set(self.texts.ravel()))  # rows may come in any order
        alphabet = ALPHABET_WITH_MARKS if self.marks else ALPHABET
        settings = f"{FORMAT}:{VOCABULARY}:{alphabet}:{MAX_TOKENS}{f':{self.variant}' if self.variant else ''}\0"
        key = hashlib.sha256(settings.encode() + "\0".join(texts).encode()).hexdigest()[:16]
        path = cache_dir() / "tokenizers" / f"wordpiece-{key}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path):
            tokenizer = _load(path)
            if tokenizer is None:
                partial = path.with_suffix(".partial")
                _train(texts, self.marks, self.cased).save(str(partial))
                partial.replace(path)
                tokenizer = Tokenizer.from_file(str(path))
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=MAX_TOKENS, **SPECIAL)  # type: ignore[no-untyped-call]


def _load(path: Path) -> Any:
    from tokenizers import Tokenizer

    if not path.exists():
        return None
    try:
        return Tokenizer.from_file(str(path))
    except Exception:  # the library raises nothing narrower for a damaged file; such a file is written again
        return None


def _train(texts: list[str], marks: bool = False, cased: bool = False) -> Any:
    from tokenizers import models, processors, trainers

    draft = _without_framing(models.WordPiece(unk_token="[UNK]"), marks, cased)
    if not marks:  # the trainer is quadratic in the length of a word; the tokenizer does not know words this long
        texts = [re.sub(rf"\S{{{LEFT_OUT},}}", " ", text) for text in texts]
    counts = Counter(character for text in texts for character in draft.normalizer.normalize_str(text) if not character.isspace())
    most = ALPHABET_WITH_MARKS if marks else ALPHABET
    alphabet = sorted(sorted(counts, key=lambda character: (-counts[character], character))[:most])
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        special_tokens=[*SPECIAL.values(), *(f"##{character}" for character in alphabet)],
        show_progress=False,
    )
    draft.train_from_iterator(texts, trainer)
    vocabulary = draft.get_vocab()
    model = models.WordPiece(vocabulary, unk_token="[UNK]")
    tokenizer = _without_framing(model, marks, cased)  # a new one: the draft has characters as special tokens
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def _without_framing(model: Any, marks: bool, cased: bool) -> Any:
    """Return a tokenizer of ``model`` that adds no ``[CLS]`` and ``[SEP]``."""
    from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers

    tokenizer = Tokenizer(model)
    words = pre_tokenizers.BertPreTokenizer()
    if marks:
        bert = normalizers.BertNormalizer(strip_accents=False, lowercase=not cased)
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), bert])  # one form of each character
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.Split(Regex(rf"\S{{{WORD}}}"), "isolated")])
    else:
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=not cased)
        tokenizer.pre_tokenizer = words
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer
