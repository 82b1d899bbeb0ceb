"""Ctrl-C is remembered where Python or a library loses it, and the handler of the program is back afterwards."""

import contextlib
import signal
import sys
import threading

import pytest

from kd_env import interrupts
from kd_env.interrupts import SaveSchedule, Terminated, deferred_interrupts, interrupted, raise_if_interrupted, remember_interrupts


@pytest.fixture(autouse=True)
def _default_handler():
    """A shell that runs the tests in the background makes its children ignore the signal."""
    before, hook = signal.signal(signal.SIGINT, signal.default_int_handler), sys.unraisablehook
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert sys.unraisablehook is hook
    raise_if_interrupted()  # nothing is remembered
    signal.signal(signal.SIGINT, before)


class Sender:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def press_in_a_destructor():
    Sender()


def test_a_block_without_ctrl_c_is_left_as_it_is():
    with remember_interrupts():
        raise_if_interrupted()
    with pytest.raises(ValueError, match="an error"), remember_interrupts():
        raise ValueError("an error")


def run(*steps):
    """Take steps in a block that remembers Ctrl-C."""
    with remember_interrupts():
        for step in steps:
            step()


def press():
    signal.raise_signal(signal.SIGINT)


def unreachable():
    pytest.fail("it goes on")


def convert(step):
    """What a library does that turns any error into its own."""
    try:
        step()
    except KeyboardInterrupt as error:
        raise RuntimeError("lost") from error


def press_and_go_on():
    with contextlib.suppress(KeyboardInterrupt):
        press()


def test_ctrl_c_is_raised_at_once():
    with pytest.raises(KeyboardInterrupt):
        run(press, unreachable)


def test_ctrl_c_that_python_drops_is_raised_at_the_next_check():
    steps = []
    with pytest.raises(KeyboardInterrupt):
        run(press_in_a_destructor, lambda: steps.append("after"), raise_if_interrupted, unreachable)
    assert steps == ["after"]


def test_ctrl_c_that_python_drops_is_raised_at_the_end():
    with pytest.raises(KeyboardInterrupt):
        run(press_in_a_destructor)


def test_an_error_in_its_place_is_turned_back():
    with pytest.raises(KeyboardInterrupt):
        run(lambda: convert(press))
    with pytest.raises(KeyboardInterrupt):
        run(press_in_a_destructor, lambda: convert(raise_if_interrupted))


def test_ctrl_c_can_be_pressed_again_and_again():
    with pytest.raises(KeyboardInterrupt):
        run(press_and_go_on, press_and_go_on, press_and_go_on)


def test_a_program_with_a_handler_of_its_own_keeps_it():
    presses = []
    signal.signal(signal.SIGINT, lambda *_: presses.append(1))
    with remember_interrupts():
        signal.raise_signal(signal.SIGINT)
    assert presses == [1]
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_another_thread_is_not_interrupted():
    errors = []

    def work():
        try:
            with remember_interrupts():
                raise_if_interrupted()
        except KeyboardInterrupt as error:
            errors.append(error)

    def in_a_thread():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    with pytest.raises(KeyboardInterrupt):
        run(press_in_a_destructor, in_a_thread)
    assert errors == []


def test_sigterm_is_an_interrupt_of_its_own_kind():
    with pytest.raises(Terminated):
        run(lambda: signal.raise_signal(signal.SIGTERM), unreachable)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_waits_for_work_to_be_saved(number):
    steps = []

    def work():
        with deferred_interrupts():
            schedule = SaveSchedule(5.0)
            schedule.save_if_due(unreachable)
            signal.raise_signal(number)
            raise_if_interrupted()  # not yet
            steps.append(interrupted())
            schedule.save_if_due(lambda: steps.append("saved"))
            unreachable()

    with pytest.raises(KeyboardInterrupt) as caught:
        run(work)
    assert steps == [True, "saved"]
    assert (caught.type is Terminated) == (number == signal.SIGTERM)


def test_the_second_signal_does_not_wait():
    def work():
        with deferred_interrupts():
            press()
            press()
            unreachable()

    with pytest.raises(KeyboardInterrupt):
        run(work)


def test_after_the_block_the_signal_is_raised_at_the_next_check():
    def work():
        with deferred_interrupts():
            press()

    with pytest.raises(KeyboardInterrupt):
        run(work, raise_if_interrupted, unreachable)


def test_work_is_saved_after_some_minutes_and_at_most_a_hundredth_of_the_time(monkeypatch):
    clock, saves = [0.0], []
    monkeypatch.setattr(interrupts.time, "monotonic", lambda: clock[0])
    schedule = SaveSchedule(minutes=1.0)

    def save():
        saves.append(clock[0])
        clock[0] += 2.0  # what saving takes

    for second in range(1000):
        clock[0] = max(clock[0], float(second))
        schedule.save_if_due(save)
    assert saves == [60.0, 262.0, 464.0, 666.0, 868.0], "after 2 s of saving it waits 200 s"
