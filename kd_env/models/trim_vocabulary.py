"""Remove tokens that some texts do not contain from a checkpoint. In: a checkpoint's folder and texts. Out: smaller files in it.

What stays: the tokens of the texts, special and added tokens, and all single characters and bytes, so that other texts are still encoded.
The texts are encoded as before, which is checked:

- WordPiece takes the longest token at each position. Tokens that no text contains were never the longest ones.
- BPE joins the pair of the lowest rank. The tokens from which a token is joined stay, with their merges, in their order.
- Unigram takes the split with the highest score. Splits of remaining tokens keep their scores; the token with the lowest score, which
  decides the score of unknown characters, stays.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from kd_env.errors import InputError
from kd_env.models.checkpoint_files import first_line, read_json
from kd_env.models.pretrained import Checkpoint
from kd_env.models.saving import save_weights

SUPPORTED = ("WordPiece", "BPE", "Unigram")
"""Types of tokenizers whose vocabulary can be trimmed."""
BYTE = re.compile(r"<0x[0-9A-F]{2}>")
"""A token that stands for a byte."""
WORD_START = "▁"
"""What a Unigram tokenizer writes for a space."""


def require_trimmable(tokenizer: Any, place: str) -> None:
    """Check that the vocabulary of a tokenizer can be trimmed.

    Args:
        tokenizer: a tokenizer of Transformers.
        place: what has the tokenizer, for the error message.

    Raises:
        InputError: it is of another type.
    """
    kind = "a tokenizer in Python" if not getattr(tokenizer, "is_fast", False) else _state(tokenizer)["model"]["type"]
    if kind not in SUPPORTED:
        raise InputError(f"--trim-vocabulary: {place} has {kind}; the vocabularies of {', '.join(SUPPORTED)} tokenizers can be trimmed")


def trim(checkpoint: Checkpoint, texts: np.ndarray) -> tuple[int, int]:
    """Trim tokenizer and embeddings of a checkpoint in its folder; return the number of tokens before and after.

    Args:
        checkpoint: the checkpoint; use a copy, since its files are changed one after the other.
        texts: texts ``[N]``, or pairs ``[N, 2]``.

    Raises:
        InputError: the tokenizer cannot be trimmed, or the texts would be encoded otherwise.
    """
    folder, tokenizer = checkpoint.folder, checkpoint.tokenizer()
    require_trimmable(tokenizer, str(folder))
    before = _encode(tokenizer, texts)
    used = {token for row in before for token in row} | set(tokenizer.all_special_ids)
    kept = sorted(tokens_to_keep(read_json(folder / "tokenizer.json"), used))  # old ids, in the order of the new ones
    new_id = {old: new for new, old in enumerate(kept)}
    network = checkpoint.classifier()
    _write_tokenizer(folder, new_id)
    _write_model(folder, network.model, new_id)
    after = _encode(_reopen(folder), texts)
    if after != [[new_id[token] for token in row] for row in before]:
        raise InputError(
            f"--trim-vocabulary: without its unused tokens, {folder} encodes the texts of the task otherwise; leave the option out"
        )
    return len(tokenizer), len(kept)


def tokens_to_keep(state: Mapping[str, Any], used: Iterable[int]) -> set[int]:
    """Return the ids of the tokens that stay.

    Args:
        state: content of ``tokenizer.json``.
        used: ids of tokens that texts contain.
    """
    model, ids = state["model"], _ids(state)
    text_of = {number: token for token, number in ids.items()}
    kept = {text_of[number] for number in used if number in text_of}
    kept |= {token["content"] for token in state["added_tokens"]} | _framing_tokens(state.get("post_processor"))
    kept |= {model["unk_token"]} if model.get("unk_token") in ids else set()
    kept |= {token for token in ids if _is_character(token, model)}
    if model["type"] == "BPE":
        kept |= _parts(kept, _merges(model), model.get("continuing_subword_prefix") or "")
    if model["type"] == "Unigram":
        vocabulary = model["vocab"]
        kept.add(min(vocabulary, key=lambda piece: piece[1])[0])
        kept |= {vocabulary[model["unk_id"]][0]} if model.get("unk_id") is not None else set()
    return {ids[token] for token in kept if token in ids}


def trimmed_state(state: Mapping[str, Any], new_id: Mapping[int, int]) -> dict[str, Any]:
    """Return the content of ``tokenizer.json`` with the tokens of ``new_id`` alone, which maps their old ids to new ones."""
    model, ids = dict(state["model"]), _ids(state)
    if model["type"] == "Unigram":
        model["vocab"] = [piece for number, piece in enumerate(model["vocab"]) if number in new_id]
        model["unk_id"] = None if model.get("unk_id") is None else new_id[model["unk_id"]]
    else:
        model["vocab"] = {token: new_id[number] for token, number in sorted(model["vocab"].items(), key=_second) if number in new_id}
    if model["type"] == "BPE":
        prefix, kept = model.get("continuing_subword_prefix") or "", {token for token, number in ids.items() if number in new_id}
        rows = zip(model["merges"], _merges(model), strict=True)
        model["merges"] = [row for row, (left, right) in rows if {left, right, left + right.removeprefix(prefix)} <= kept]
    added = [{**token, "id": new_id[token["id"]]} for token in state["added_tokens"]]
    padding = state.get("padding")
    padding = padding and {**padding, "pad_id": new_id.get(padding["pad_id"], 0)}
    processor = _with_new_ids(state.get("post_processor"), {token: new_id[number] for token, number in ids.items() if number in new_id})
    return {**state, "model": model, "added_tokens": added, "padding": padding, "post_processor": processor}


def _state(tokenizer: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return content


def _ids(state: Mapping[str, Any]) -> dict[str, int]:
    """Return the ids of all tokens, added ones too."""
    vocabulary = state["model"]["vocab"]
    ids = dict(vocabulary) if isinstance(vocabulary, dict) else {piece[0]: number for number, piece in enumerate(vocabulary)}
    return ids | {token["content"]: token["id"] for token in state["added_tokens"]}


def _second(item: tuple[str, int]) -> int:
    return item[1]


def _is_character(token: str, model: Mapping[str, Any]) -> bool:
    bare = token.removeprefix(model.get("continuing_subword_prefix") or "").removesuffix(model.get("end_of_word_suffix") or "")
    bare = bare.removeprefix(WORD_START) if model["type"] == "Unigram" else bare
    return len(bare) <= 1 or len(token) == 1 or BYTE.fullmatch(token) is not None


def _merges(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the pairs that a BPE tokenizer joins; files of older versions write a pair as one text."""
    return [(pair[0], pair[1]) for pair in (merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"])]


def _parts(tokens: Iterable[str], merges: Iterable[tuple[str, str]], prefix: str) -> set[str]:
    """Return all tokens from which ``tokens`` are joined, step by step."""
    pairs_of: dict[str, list[tuple[str, str]]] = {}
    for left, right in merges:
        pairs_of.setdefault(left + right.removeprefix(prefix), []).append((left, right))
    parts, waiting = set(), list(tokens)
    while waiting:
        for part in [part for pair in pairs_of.get(waiting.pop(), []) for part in pair]:
            if part not in parts:
                parts.add(part)
                waiting.append(part)
    return parts


def _framing_tokens(processor: Mapping[str, Any] | None) -> set[str]:
    """Return the tokens that a post-processor adds to texts."""
    if processor is None:
        return set()
    if processor["type"] == "Sequence":
        return {token for part in processor["processors"] for token in _framing_tokens(part)}
    named = [processor[name][0] for name in ("cls", "sep") if name in processor]
    return {*named, *(token for special in (processor.get("special_tokens") or {}).values() for token in special["tokens"])}


def _with_new_ids(processor: Mapping[str, Any] | None, new_ids: Mapping[str, int]) -> dict[str, Any] | None:
    if processor is None:
        return None
    changed = dict(processor)
    if processor["type"] == "Sequence":
        changed["processors"] = [_with_new_ids(part, new_ids) for part in processor["processors"]]
    for name in ("cls", "sep"):
        if name in processor:
            changed[name] = [processor[name][0], new_ids[processor[name][0]]]
    if processor.get("special_tokens"):
        special_tokens = processor["special_tokens"].items()
        changed["special_tokens"] = {
            name: {**special, "ids": [new_ids[token] for token in special["tokens"]]} for name, special in special_tokens
        }
    return changed


def _encode(tokenizer: Any, texts: np.ndarray) -> list[list[int]]:
    columns = [texts.tolist()] if texts.ndim == 1 else [texts[:, 0].tolist(), texts[:, 1].tolist()]
    rows: list[list[int]] = tokenizer(*columns, truncation=False, return_attention_mask=False, verbose=False)["input_ids"]
    return rows


def _reopen(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # parsers raise many types of error
        raise InputError(f"--trim-vocabulary: the smaller tokenizer cannot be read ({first_line(error)}); leave the option out") from None


def _write_tokenizer(folder: Path, new_id: Mapping[int, int]) -> None:
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    content = trimmed_state(read_json(path), new_id)
    Tokenizer.from_str(json.dumps(content)).save(str(path))
    for name in ("vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spiece.model", "added_tokens.json"):
        (folder / name).unlink(missing_ok=True)  # they hold the whole vocabulary
    settings = read_json(folder / "tokenizer_config.json")
    if "added_tokens_decoder" in settings:
        decoder = settings["added_tokens_decoder"]
        settings["added_tokens_decoder"] = {str(new_id[int(number)]): token for number, token in decoder.items() if int(number) in new_id}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def _write_model(folder: Path, model: Any, new_id: Mapping[int, int]) -> None:
    """Write the weights with the rows of the kept tokens, in the number format that they have."""
    old = model.get_input_embeddings()
    padding = None if old.padding_idx is None else new_id.get(old.padding_idx)
    new = nn.Embedding(len(new_id), old.embedding_dim, padding)
    new.weight = nn.Parameter(old.weight.detach()[torch.tensor(list(new_id))].clone())
    model.set_input_embeddings(new)
    config = read_json(folder / "config.json")
    model.config.vocab_size = len(new_id)
    for name, value in vars(model.config).items():
        if name.endswith("_token_id") and isinstance(value, int):
            setattr(model.config, name, new_id.get(value))
    number_format = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    save_weights(folder, model.to(getattr(torch, number_format)))
