"""``kd_env/TeacherSelection-v0``: which teachers teach which instance."""

from __future__ import annotations

from kd_env.envs.actions import TeacherAction
from kd_env.envs.batches import BatchEnv
from kd_env.envs.slots import SlotsEnv


class TeacherSelectionEnv(BatchEnv):
    """Which teachers teach which instance of the mini-batch a student is about to learn from.

    ## Description
    An episode is one distillation: a fresh student, ``updates`` mini-batches. After Yuan et al. 2021 (arXiv 2012.06048). For one agent
    row per instance, use ``gymnasium.make_vec`` (see :class:`TeacherSelectionVectorEnv`).

    ## Action Space
    ``action="subset"``: ``MultiBinary(B*K)``, the selected teachers share the instance equally, nobody is legal. ``"one"``:
    ``MultiDiscrete([K]*B)``. ``"weights"``: ``Box(-1, 1, (B*K,))``, weights are ``softmax(10 a)`` of each instance. With
    ``granularity="batch"`` one decision serves the whole batch: ``MultiBinary(K)``, ``Discrete(K)``, ``Box(-1, 1, (K,))``. The weights
    hold for every knowledge type of the setting.

    ## Observation Space
    A ``Dict`` of 1-D float32 ``Box(-10, 10)``, the B instances end to end (their mean with ``granularity="batch"``). Columns of an
    instance: ``kd-env list observations``.

    | block | ``observation="full"`` (default) | ``"summary"`` | ``"cls"`` |
    |---|---|---|---|
    | ``instance`` | D | 3 | - |
    | ``teachers`` | K * C (+ K with ``observe_labels``) | K * 6 (+ 2 K) | D_1 + ... + D_K |
    | ``student`` | C (+ 1 with ``observe_labels``) | 3 (+ 2) | D |
    | ``progress`` | 1 | 1 | 1 |

    ## Rewards
    The mean over the batch of what ``reward`` and ``credit`` pay, see ``kd_env.envs.rewards`` and ``kd_env.envs.credit``, less
    ``teacher_cost`` for each teacher asked; -10 when the student diverges.

    ## Starting State
    ``reset(seed=s)`` draws the student's initial weights and the data order from s. Task, teachers and bank stay the same.

    ## Episode End
    Terminated when the budget is spent, or when the student diverges. The finished student is ``env.unwrapped.finished``.

    ## Information
    | key | when | value |
    |---|---|---|
    | ``example_ids`` | always | ``[B]`` rows of the train split; of the step just taken, after a reset of the next one |
    | ``diverged`` | after a step | bool |
    | ``reward_terms`` | after a step | dict of what went into the reward: |
    | ``reward_terms["improvement"]`` | when measured | of the held-out loss or metric |
    | ``reward_terms["teacher_calls"]`` | with a ``teacher_cost`` | teachers asked, for each instance |
    | ``reward_terms["student_ce"]`` | with ``observe_labels`` | ``[B]`` cross-entropy before the step |
    | ``credit`` | unless ``credit="shared"`` | ``[B, K]``, ``[1, K]`` with ``granularity="batch"`` |
    | ``validation`` | when measured | metric on the validation split |

    ## Arguments
    ``task``, ``teachers``, ``bank`` (a folder), ``data_dir`` (of a named task), ``render_mode`` (``rgb_array``, ``ansi``), and the fields
    of :class:`kd_env.envs.settings.Settings` (``kd-env list settings``).

    ## Version History
    v0: first version.
    """

    action_base = TeacherAction
    defaults = {"action": "subset"}


class TeacherSelectionVectorEnv(SlotsEnv):
    """``S * B`` instance slots over S students, or with ``granularity="batch"`` S slots; else as :class:`TeacherSelectionEnv`."""

    action_base = TeacherSelectionEnv.action_base
    defaults = TeacherSelectionEnv.defaults
