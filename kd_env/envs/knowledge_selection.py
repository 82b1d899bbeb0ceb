"""``kd_env/KnowledgeSelection-v0``: which knowledge types a mini-batch, or a phase of them, is taught with."""

from __future__ import annotations

from kd_env.envs.actions import KnowledgeAction
from kd_env.envs.batches import BatchEnv
from kd_env.envs.slots import SlotsEnv


class KnowledgeSelectionEnv(BatchEnv):
    """How strongly each knowledge type is taught, for ``updates_per_phase`` mini-batches at a time.

    ## Description
    An episode is one distillation: a fresh student, ``updates`` mini-batches. After AKD, Wang et al. 2022 (arXiv 2302.00444), whose four
    types are the default: hard label, response, layer, relation. All teachers of the pool have equal weight (AKD has one).

    ## Action Space
    ``action="soft"``: ``Box(-1, 1, (M,))``, the strengths of the M types are ``(a + 1) / 2``. ``"hard"``: ``MultiBinary(M)``. The types are
    those of ``knowledge`` in order, then ``label``, unless ``kd_weight=1`` leaves labels out of the setting. ``kd_weight`` does not
    apply here: the action replaces it; strengths that a type has in ``knowledge`` do apply.

    ## Observation Space
    A ``Dict`` of 1-D float32 ``Box(-10, 10)``, means over the next mini-batch. Columns: ``kd-env list observations``.

    | block | ``observation="cls"`` (default) | ``"full"`` | ``"summary"`` |
    |---|---|---|---|
    | ``instance`` | - | D | 3 |
    | ``teachers`` | D_1 + ... + D_K | K * C (+ K with ``observe_labels``) | K * 6 (+ 2 K) |
    | ``student`` | D | C (+ 1 with ``observe_labels``) | 3 (+ 2) |
    | ``progress`` | 1 | 1 | 1 |

    ## Rewards
    By default the decrease of the held-out cross-entropy over the phase. With ``credit`` other than ``shared``: the strengths times the
    credit of each type. ``exploration_bonus`` adds AKD's bonus for exploring (soft: one minus the cosine to the previous phase's action;
    hard: one over the square root of how often this action was chosen). -10 when the student diverges.

    ## Starting State
    ``reset(seed=s)`` draws the student's initial weights and the data order from s. Task, teachers and bank stay the same.

    ## Episode End
    Terminated when the budget is spent, or when the student diverges. The finished student is ``env.unwrapped.finished``.

    ## Information
    | key | when | value |
    |---|---|---|
    | ``example_ids`` | always | ``[B]`` rows of the train split; of the phase's last mini-batch, after a reset of the next one |
    | ``diverged`` | after a step | bool |
    | ``reward_terms`` | after a step | dict of what went into the reward: |
    | ``reward_terms["improvement"]`` | when measured | of the held-out loss or metric |
    | ``reward_terms["exploration"]`` | with an ``exploration_bonus`` | its share of the reward |
    | ``reward_terms["teacher_calls"]`` | with a ``teacher_cost`` | teachers asked |
    | ``reward_terms["student_ce"]`` | with ``observe_labels`` | ``[B]`` cross-entropy before the step |
    | ``credit`` | unless ``credit="shared"`` | ``[1, M]``, of each type |
    | ``validation`` | when measured | metric on the validation split |

    ## Arguments
    ``task``, ``teachers``, ``bank`` (a folder), ``data_dir`` (of a named task), ``render_mode`` (``rgb_array``, ``ansi``), and the fields
    of :class:`kd_env.envs.settings.Settings` (``kd-env list settings``).

    ## Version History
    v0: first version.
    """

    action_base = KnowledgeAction
    defaults = {"action": "soft", "granularity": "batch", "observation": "cls", "knowledge": "response,layer,relation"}


class KnowledgeSelectionVectorEnv(SlotsEnv):
    """A slot for each of S students; else as :class:`KnowledgeSelectionEnv`."""

    action_base = KnowledgeSelectionEnv.action_base
    defaults = KnowledgeSelectionEnv.defaults
