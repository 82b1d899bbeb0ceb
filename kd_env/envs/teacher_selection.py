"""Define ``kd_env/TeacherSelection-v0``: choose the teachers of each instance."""

from __future__ import annotations

from kd_env.envs.actions import TeacherAction
from kd_env.envs.batches import BatchEnv
from kd_env.envs.slots import SlotsEnv


class TeacherSelectionEnv(BatchEnv):
    """Choose the teachers of each instance of the next mini-batch.

    ## Description
    An episode is one distillation: a new student learns for ``updates`` mini-batches. After RL-KD, Yuan et al. 2021 (arXiv 2012.06048). To
    decide for each instance separately, use ``gymnasium.make_vec`` (see :class:`TeacherSelectionVectorEnv`).

    ## Action Space
    - ``action="subset"``: ``MultiBinary(B*K)``. The selected teachers of an instance have equal weights. Selecting no teacher is legal.
    - ``action="one"``: ``MultiDiscrete([K]*B)``. Each instance has one teacher.
    - ``action="weights"``: ``Box(-1, 1, (B*K,))``. The weights of an instance are ``softmax(10 a)``.

    With ``granularity="batch"``, one decision serves the whole mini-batch: ``MultiBinary(K)``, ``Discrete(K)``, ``Box(-1, 1, (K,))``. The
    weights apply to all knowledge types of the setting.

    ## Observation Space
    A ``Dict`` of 1-D float32 ``Box(-10, 10)``. A block concatenates the columns of the B instances (with ``granularity="batch"``, it is
    their mean). ``kd-env list observations`` lists the columns of an instance.

    | block | ``observation="full"`` (default) | ``"summary"`` | ``"cls"`` |
    |---|---|---|---|
    | ``instance`` | D | 3 | - |
    | ``teachers`` | K * C (+ K with ``observe_labels``) | K * 6 (+ 2 K) | D_1 + ... + D_K |
    | ``student`` | C (+ 1 with ``observe_labels``) | 3 (+ 2) | D |
    | ``progress`` | 1 | 1 | 1 |

    ## Rewards
    The mean over the mini-batch of the rewards from ``reward`` and ``credit`` (see ``kd_env.envs.rewards`` and ``kd_env.envs.credit``),
    minus ``teacher_cost`` for each selected teacher. The reward is -10 when the student diverges.

    ## Starting State
    ``reset(seed=s)`` draws the student's initial weights and the data order from s. Task, teachers and bank do not change.

    ## Episode End
    The episode terminates when the budget is spent or the student diverges. The finished run is ``env.unwrapped.finished``.

    ## Information
    | key | when | value |
    |---|---|---|
    | ``example_ids`` | always | ``[B]`` positions in train: of the mini-batch of this step; after a reset, of the next mini-batch |
    | ``diverged`` | after a step | bool |
    | ``reward_terms`` | after a step | dict of the numbers behind the reward: |
    | ``reward_terms["improvement"]`` | when measured | improvement of the held-out loss or metric |
    | ``reward_terms["teacher_calls"]`` | with a ``teacher_cost`` | number of selected teachers, for each instance |
    | ``reward_terms["student_ce"]`` | with ``observe_labels`` | ``[B]`` cross-entropy before the step |
    | ``credit`` | unless ``credit="shared"`` | ``[B, K]``, ``[1, K]`` with ``granularity="batch"`` |
    | ``credit_fold`` | unless ``credit="shared"`` | number of the labels' fold that the credit of the last update comes from |
    | ``validation`` | when measured | metric on the validation split |

    With ``info="minimal"``, ``info`` contains ``example_ids`` and ``diverged`` after each step and each reset, for libraries that need
    constant keys.

    ## Arguments
    ``task``, ``teachers``, ``bank`` (a folder), ``data_dir`` (of a named task), ``render_mode`` (``rgb_array``, ``ansi``),
    ``info`` (``full``, ``minimal``), and the fields of :class:`kd_env.envs.settings.Settings` (``kd-env list settings``).

    ## Version History
    v0: first version.
    """

    action_base = TeacherAction
    defaults = {"action": "subset"}


class TeacherSelectionVectorEnv(SlotsEnv):
    """The vector form of :class:`TeacherSelectionEnv`: ``S * B`` slots over S students; S slots with ``granularity="batch"``."""

    action_base = TeacherSelectionEnv.action_base
    defaults = TeacherSelectionEnv.defaults
