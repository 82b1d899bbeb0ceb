"""Build and train students: networks that learn by optimizer steps.

- ``protocol``: the interface that one student (``student``) and a population of several (``population``) share.
- ``build``: builds students.
- ``epoch_order``: the order of an epoch's examples.
- ``data_parallel``: shares the passes of one student among processes.
- ``optimizer``: optimizer and learning-rate schedule.
- ``evaluation``: loss and metric.
- ``auxiliary_module``: a policy's module that learns with a student.
"""
