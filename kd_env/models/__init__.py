"""Build, open and save the networks of students and teachers.

- ``networks``: builds a network by name: a built-in architecture, a checkpoint (``from_checkpoint``) or a class of your own
  (``from_plugin``, ``plugin_network``).
- ``convolutional``: convolutional networks for small images. ``encoder``: wraps Transformers classifiers.
- ``pretrained``, ``checkpoint_files``: open checkpoints; ``saving``: writes them.
- ``trim_vocabulary``: removes tokens that are not used; ``onnx_export``: writes ONNX files.
- ``low_bit``: layers that are trained with few bits; ``low_bit_files``: saves them; ``low_bit_onnx``: integer operators of them.
- ``encode``: turns raw inputs into tensors.
- ``residual_blocks``: finds residual blocks, and runs those of another network in their place.
- ``wrapper``: the base class of networks with extra parameters, such as projectors.
- ``modes``, ``classifier``, ``device``: properties of a network, and the device that it runs on.
- ``stages``: names of feature maps.
"""
