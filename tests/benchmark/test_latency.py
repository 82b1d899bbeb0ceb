"""Latency is a median in milliseconds, of the longest example alone."""

import itertools

import torch

from kd_env.benchmark.latency import RUNS, WARM_UP, longest_example, median_milliseconds


def test_the_median_is_in_milliseconds_and_ignores_slow_runs_and_the_warm_up():
    durations = itertools.chain([0.004] * (RUNS // 2 + 1), itertools.repeat(9.0))
    now, calls = 0.0, []

    def times():
        nonlocal now
        while True:
            yield now
            now += next(durations)
            yield now

    clock = times()
    assert round(median_milliseconds(lambda: calls.append(1), lambda: next(clock)), 6) == 4.0
    assert len(calls) == WARM_UP + RUNS


def test_the_longest_text_has_no_padding():
    mask = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 0, 0]])
    ids = torch.arange(15).view(3, 5)
    example = longest_example({"input_ids": ids, "attention_mask": mask})
    assert example["input_ids"].tolist() == [[5, 6, 7]]
    assert example["attention_mask"].tolist() == [[1, 1, 1]]


def test_of_images_it_is_the_first():
    pixels = torch.rand(4, 1, 2, 2)
    assert torch.equal(longest_example({"pixel_values": pixels})["pixel_values"], pixels[:1])
