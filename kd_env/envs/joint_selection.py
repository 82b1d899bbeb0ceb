"""``kd_env/JointSelection-v0``: teachers, knowledge, kd_weight and temperature in one action."""

from __future__ import annotations

from kd_env.envs.actions import JointAction
from kd_env.envs.batches import BatchEnv
from kd_env.envs.slots import SlotsEnv


class JointSelectionEnv(BatchEnv):
    """Which teachers teach which knowledge to an instance, with which weight and at which temperature.

    ## Description
    An episode is one distillation: a fresh student, ``updates`` mini-batches. Ours; it joins the
    decisions of teacher selection (Yuan et al. 2021) and knowledge selection (Wang et al. 2022).

    ## Action Space
    ``Box(-1, 1, (B*A,))``, for each instance the factors that ``factors`` names, in this order (``A`` is 3 + K + M with all of them):

    | factor | numbers | meaning |
    |---|---|---|
    | ``teachers`` | K | weights ``softmax(10 a)``; a teacher below .01 is not asked |
    | ``knowledge`` | M | a type is on above 0; the types are those of ``knowledge``, then ``label`` unless ``kd_weight=1`` |
    | ``kd_weight`` | 1 | ``(a + 1) / 2``; the label gets the rest, unless ``kd_weight=1`` leaves labels out |
    | ``temperature`` | 1 | the setting's times ``4 ** a`` |
    | ``abstain`` | 1 | above 0 no teacher is asked |

    A factor that is left out is as in the settings (all teachers with equal weight, all types on). With ``granularity="batch"`` one
    decision serves the whole batch: ``Box(-1, 1, (A,))``.

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
    The mean over the batch of what ``reward`` and ``credit`` pay, minus ``teacher_cost`` for each teacher asked. With ``credit`` other than
    ``shared`` an instance is paid the credit of its decision, scaled by the root mean square over all teachers and types: asking no teacher
    adds 0 to the credit of the label. -10 when the student diverges.

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
    | ``reward_terms["teacher_calls"]`` | after a step | teachers asked, for each instance |
    | ``reward_terms["student_ce"]`` | with ``observe_labels`` | ``[B]`` cross-entropy before the step |
    | ``credit`` | unless ``credit="shared"`` | ``[B, K]``, ``[1, K]`` with ``granularity="batch"`` |
    | ``knowledge_credit`` | unless ``credit="shared"`` | ``[B, M]``, ``[1, M]`` with ``granularity="batch"`` |
    | ``validation`` | when measured | metric on the validation split |

    ## Arguments
    ``task``, ``teachers``, ``bank`` (a folder), ``data_dir`` (of a named task), ``render_mode`` (``rgb_array``, ``ansi``), and the fields
    of :class:`kd_env.envs.settings.Settings` (``kd-env list settings``).

    ## Version History
    v0: first version.
    """

    action_base = JointAction
    defaults = {"action": "joint", "knowledge": "response,layer,relation"}


class JointSelectionVectorEnv(SlotsEnv):
    """``S * B`` instance slots over S students, or with ``granularity="batch"`` S slots; else as :class:`JointSelectionEnv`."""

    action_base = JointSelectionEnv.action_base
    defaults = JointSelectionEnv.defaults
