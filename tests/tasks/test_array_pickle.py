"""What a pickle of arrays may not do: it names no code, and it is whole."""

import pickle

import numpy as np
import pytest
from published_files import images, python2

from kd_env.errors import InputError
from kd_env.tasks.array_pickle import read_pickle


class Harmful:
    def __reduce__(self):
        return print, ("this must not be printed",)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({"data": Harmful()}),
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.",
        pickle.dumps(np.array([print, "x"], dtype=object)),
    ],
)
def test_a_pickle_that_names_code_is_refused(content, tmp_path, capsys):
    path = tmp_path / "batch"
    path.write_bytes(content)
    with pytest.raises(InputError, match="batch: not a pickle of arrays"):
        read_pickle(path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("cut", range(0, 400, 23))
def test_a_cut_pickle_is_refused_or_is_no_set(tmp_path, cut):
    whole = b"\x80\x02" + python2({"data": images(1)[:, :200], "labels": [1, 2, 3]}) + b"."
    path = tmp_path / "batch"
    path.write_bytes(whole[: len(whole) - 1 - cut])
    with pytest.raises(InputError, match="not a pickle of arrays"):
        read_pickle(path)
