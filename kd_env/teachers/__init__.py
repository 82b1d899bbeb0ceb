"""Teachers and pools of them. ``load_pool(text, task)`` returns the :class:`Pool` that a text names.

- ``teacher``: what a teacher and a pool are. ``load``: the pool that a text names. ``pools``: pools whose teachers are trained here, once;
  ``pool_recipes`` describes the built-in ones. ``pool_files``: your own pools, from a file or a folder. ``names``: names that hold commas.
- ``existing``: a classifier of a pool file that is used as it is. ``own``: a callable or a module as a teacher. ``classes``: which class of
  a checkpoint is which class of the task.
- ``train_recipe``: train a built-in network as a recipe says. ``finetune`` (with ``finetune_config``, ``training_rows`` and
  ``finetune_loop``): fine-tune a Transformers model into a checkpoint.
- ``live``: the networks of teachers, in the loop.
- ``checkpoint``: a checkpoint as a teacher. ``out_of_fold``: several checkpoints, each trained without its fold. ``heads``: classifiers at
  every layer of one teacher, fitted by ``logistic_regression``.
- ``faculty``: a checkpoint of other classes as a teacher, by optimal transport (``sinkhorn``).
- ``file_hashes``: hashes of checkpoint files. ``vocabulary_check``: teachers that read other tokens than the student.
"""

from kd_env.teachers.load import load_pool
from kd_env.teachers.pool_recipes import POOLS
from kd_env.teachers.teacher import NetworkTeacher, Pool, Teacher

__all__ = ["POOLS", "NetworkTeacher", "Pool", "Teacher", "load_pool"]
