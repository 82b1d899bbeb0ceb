"""Networks of students and teachers.

``networks`` builds a network by its name: a built-in architecture, a checkpoint (``from_checkpoint``) or a class of a user's
(``from_plugin``, ``plugin_network``). ``encoder`` wraps Transformers classifiers; ``pretrained`` and ``checkpoint_files`` open checkpoints,
``saving`` writes one. ``encode`` turns raw inputs into tensors. ``wrapper`` is the base of what learns beside a network; ``modes``,
``classifier`` and ``device`` are what a student asks about its network.
"""
