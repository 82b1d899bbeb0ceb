"""Models: what a network is, whoever uses it.

``networks`` builds the built-in architectures, ``encoder`` wraps Transformers classifiers, ``pretrained`` and ``checkpoint_files`` open
checkpoints, ``from_checkpoint`` cuts a student out of one, ``encode`` turns raw inputs into tensors, ``saving`` writes a checkpoint.
"""
