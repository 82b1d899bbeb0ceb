"""Train students with the outputs of teachers, one decision per update.

- ``run``: the training run.
- ``data``: the encoded task and the bank that it reads.
- ``settings``: its keywords.
- ``loss``: the loss of a decision; ``reward_ce``: the extra loss on reward labels.
- ``teacher_answers``: where the teachers' outputs come from, the bank or their networks.
- ``teacher_learning``: teachers that learn from their student; ``learning_options``: its setting.
- ``block_swap``: blocks of a teacher in the student; ``swap_schedule``: how probable they are.
- ``order``: the order of the training examples; ``dropout``: the random numbers of dropout.
- ``state``: values that are kept per student; ``snapshot``: the state of a run as tensors.
- ``reward_split``: the held-out labelled examples; ``reward_meter`` measures students on them.

This package does not know rewards or credit: :mod:`kd_env.envs` decides when to measure and what to pay.
"""

from kd_env.distillation.data import EncodedTask
from kd_env.distillation.run import Distillation

__all__ = ["Distillation", "EncodedTask"]
