"""Optimizer options and the learning-rate schedule."""

import pytest

from kd_env.errors import InputError
from kd_env.student.optimizer import OptimizerOptions


@pytest.mark.parametrize(
    ("text", "rates"),
    [
        ("adam", [(0.0, 3e-3), (0.5, 3e-3), (0.99, 3e-3)]),
        ("sgd(lr=1)", [(0.0, 1.0), (0.75, 1.0)]),
        ("adam(lr=2,warmup=0.5)", [(0.0, 0.0), (0.25, 1.0), (0.5, 2.0), (0.9, 2.0)]),
        ("adamw(lr=2,decay=linear)", [(0.0, 2.0), (0.25, 1.5), (0.75, 0.5)]),
        ("adam(lr=2,warmup=0.2,decay=linear)", [(0.0, 0.0), (0.1, 1.0), (0.2, 2.0), (0.6, 1.0), (0.8, 0.5)]),
        ("sgd(lr=2,decay=cosine)", [(0.0, 2.0), (1 / 3, 1.5), (0.5, 1.0), (2 / 3, 0.5), (1.0, 0.0)]),
        ("sgd(lr=2,warmup=0.2,decay=cosine)", [(0.1, 1.0), (0.2, 2.0), (0.6, 1.0)]),
        ("sgd(lr=2,decay=steps)", [(0.0, 2.0), (0.62, 2.0), (0.63, 0.2), (0.75, 0.02), (0.87, 0.02), (0.88, 0.002)]),
    ],
)
def test_the_rate_warms_up_and_decays(text, rates):
    options = OptimizerOptions.of(text)
    for progress, rate in rates:
        assert options.rate(progress) == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("adamm", "did you mean 'adam'"),
        ("adam(rate=1)", "rate.*options: .*lr"),
        ("adam(lr=0)", r"adam\(lr=0\): expected a number above 0"),
        ("adam(lr=-1)", "lr=-1"),
        ("adam(lr=fast)", "lr='fast'"),
        ("adam(lr=true)", "lr=True"),
        ("adam(lr=1e999)", "lr=inf"),
        ("sgd(weight_decay=-0.1)", "weight_decay"),
        ("sgd(warmup=1)", r"warmup=1\): expected a number of at least 0, below 1"),
        ("sgd(decay=cubic)", "constant.*linear.*cosine.*steps"),
        ("adam(nesterov=true)", "nesterov is a form of the momentum of sgd"),
        ("sgd(nesterov=1.5)", "nesterov=1.5"),
        ("sgd(name=adam)", "name"),
        ("sgd(lr=1", "expected name"),
    ],
)
def test_bad_optimizers_are_named(text, says):
    with pytest.raises(InputError, match=says):
        OptimizerOptions.of(text)
