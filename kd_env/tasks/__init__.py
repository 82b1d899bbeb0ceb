"""Tasks: labelled examples in four splits. ``load("digits")`` returns a :class:`~kd_env.tasks.task.Task`.

``task`` says what a task is, ``loading`` loads a task by its name, ``splits`` holds the split rule, ``metrics`` the metrics.

- Built-in tasks: ``digits``, ``domains``, ``glue``, ``clinc150``, ``fdu_mtl``, ``fashion_mnist``, ``mnist``, ``cifar`` (whose files
  ``array_pickle`` reads), ``tiny_imagenet``; ``published_images`` makes tasks of the last four, ``views`` stores views of their
  images. ``augmentation`` changes images afresh for each update.
- Your own data: ``text_files``, ``in_memory``, and ``image_folders``, whose files ``pictures`` reads.
- What text tasks share: ``folders`` (find files), ``tables`` and ``columnar`` (read a file), ``columns`` and ``labels``
  (check its columns), ``texts`` (make the task) and ``wordpiece`` (its tokenizer).
"""

from kd_env.tasks.in_memory import from_datasets
from kd_env.tasks.loading import TASKS, load, with_data_dir, with_options
from kd_env.tasks.task import Defaults, Split, Task

__all__ = ["TASKS", "Defaults", "Split", "Task", "from_datasets", "load", "with_data_dir", "with_options"]
