"""Define ``kd_env/KnowledgeSelection-v0``: choose the strengths of the knowledge types for a mini-batch or a phase."""

from __future__ import annotations

from kd_env.envs.actions import KnowledgeAction
from kd_env.envs.batches import BatchEnv
from kd_env.envs.slots import SlotsEnv


class KnowledgeSelectionEnv(BatchEnv):
    """Choose a gate for each knowledge type, for ``updates_per_phase`` mini-batches at a time. A gate multiplies the type's strength.

    ## Description
    An episode is one distillation: a new student learns for ``updates`` mini-batches. After AKD, Wang et al. 2022 (arXiv 2302.00444). The
    default types are the four types of AKD: hard label, response, layer, relation. All teachers of the pool have equal weights (AKD has one
    teacher).

    ## Action Space
    - ``action="soft"``: ``Box(-1, 1, (M,))``. The gates of the M types are ``(a + 1) / 2``.
    - ``action="hard"``: ``MultiBinary(M)``. A gate is 0 or 1.

    The types are the types of the setting ``knowledge`` in order, then ``label`` unless ``kd_weight=1`` is set. The gates replace
    ``kd_weight``. The strengths in ``knowledge`` still apply.

    ## Observation Space
    A ``Dict`` of 1-D float32 ``Box(-10, 10)``, the means over the next mini-batch. ``kd-env list observations`` lists the columns.

    | block | ``observation="cls"`` (default) | ``"full"`` | ``"summary"`` |
    |---|---|---|---|
    | ``instance`` | - | D | 3 |
    | ``teachers`` | D_1 + ... + D_K | K * C (+ K with ``observe_labels``) | K * 6 (+ 2 K) |
    | ``student`` | D | C (+ 1 with ``observe_labels``) | 3 (+ 2) |
    | ``progress`` | 1 | 1 | 1 |

    ## Rewards
    By default, the reward is the decrease of the held-out cross-entropy over the phase. With a ``credit`` other than ``shared``, it is the
    sum of gates times credit over the types. ``exploration_bonus`` adds AKD's bonus for exploration (soft: one minus the cosine to the
    previous phase's gates; hard: one over the square root of the number of times that the action was chosen). The reward is -10 when the
    student diverges.

    ## Starting State
    ``reset(seed=s)`` draws the student's initial weights and the data order from s. Task, teachers and bank do not change.

    ## Episode End
    The episode terminates when the budget is spent or the student diverges. The finished run is ``env.unwrapped.finished``.

    ## Information
    | key | when | value |
    |---|---|---|
    | ``example_ids`` | always | ``[B]`` positions in train: of the phase's last mini-batch; after a reset, of the next mini-batch |
    | ``diverged`` | after a step | bool |
    | ``reward_terms`` | after a step | dict of the numbers behind the reward: |
    | ``reward_terms["improvement"]`` | when measured | improvement of the held-out loss or metric |
    | ``reward_terms["exploration"]`` | with an ``exploration_bonus`` | the bonus |
    | ``reward_terms["teacher_calls"]`` | with a ``teacher_cost`` | number of selected teachers |
    | ``reward_terms["student_ce"]`` | with ``observe_labels`` | ``[B]`` cross-entropy before the step |
    | ``credit`` | unless ``credit="shared"`` | ``[1, M]``, credit of each type |
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

    action_base = KnowledgeAction
    defaults = {"action": "soft", "granularity": "batch", "observation": "cls", "knowledge": "response,layer,relation"}


class KnowledgeSelectionVectorEnv(SlotsEnv):
    """The vector form of :class:`KnowledgeSelectionEnv`: one slot for each of S students."""

    action_base = KnowledgeSelectionEnv.action_base
    defaults = KnowledgeSelectionEnv.defaults
