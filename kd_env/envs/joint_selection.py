"""Define ``kd_env/JointSelection-v0``: teachers, knowledge types, kd_weight and temperature in one action."""

from __future__ import annotations

from kd_env.envs.actions import JointAction
from kd_env.envs.batches import BatchEnv
from kd_env.envs.slots import SlotsEnv


class JointSelectionEnv(BatchEnv):
    """Choose teachers, knowledge types, ``kd_weight`` and temperature for each instance of the mini-batch.

    ## Description
    An episode is one distillation: a new student learns for ``updates`` mini-batches. This environment is ours. It combines the decisions
    of teacher selection (Yuan et al. 2021) and knowledge selection (Wang et al. 2022).

    ## Action Space
    ``Box(-1, 1, (B*A,))``. An instance has the factors of the setting ``factors``, in this order. With all of them, ``A`` is 3 + K + M.

    | factor | numbers | meaning |
    |---|---|---|
    | ``teachers`` | K | weights ``softmax(10 a)``; a weight below .01 becomes 0 |
    | ``knowledge`` | M | a type is on above 0; the types of the setting ``knowledge``, then ``label`` unless ``kd_weight=1`` is set |
    | ``kd_weight`` | 1 | ``(a + 1) / 2``; the rest is the weight of the label, unless ``kd_weight=1`` is set |
    | ``temperature`` | 1 | the setting's temperature times ``4 ** a`` |
    | ``abstain`` | 1 | above 0, no teacher is selected |

    A factor that is left out keeps its value from the settings: equal weights for all teachers, all types on. With ``granularity="batch"``,
    one decision serves the whole mini-batch: ``Box(-1, 1, (A,))``.

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
    The mean over the mini-batch of the rewards from ``reward`` and ``credit``, minus ``teacher_cost`` for each selected teacher. With a
    ``credit`` other than ``shared``, the reward of an instance is the credit of its decision. Credit is scaled by the root mean square over
    all teachers and types, without centring, so a decision without teachers gets only the credit of the label. The reward is -10 when the
    student diverges.

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
    | ``reward_terms["teacher_calls"]`` | after a step | number of selected teachers, for each instance |
    | ``reward_terms["student_ce"]`` | with ``observe_labels`` | ``[B]`` cross-entropy before the step |
    | ``credit`` | unless ``credit="shared"`` | ``[B, K]``, ``[1, K]`` with ``granularity="batch"`` |
    | ``knowledge_credit`` | unless ``credit="shared"`` | ``[B, M]``, ``[1, M]`` with ``granularity="batch"`` |
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

    action_base = JointAction
    defaults = {"action": "joint", "knowledge": "response,layer,relation"}


class JointSelectionVectorEnv(SlotsEnv):
    """The vector form of :class:`JointSelectionEnv`: ``S * B`` slots over S students; S slots with ``granularity="batch"``."""

    action_base = JointSelectionEnv.action_base
    defaults = JointSelectionEnv.defaults
