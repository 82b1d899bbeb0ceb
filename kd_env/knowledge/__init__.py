"""Knowledge: ``bank`` holds what teachers say about every example; each other file is one knowledge type, a term of the loss.

A knowledge type has ``target(teacher) -> Tensor`` and ``loss(student, target, temperature) -> Tensor``, one value an example. Leading axes
broadcast, so one call serves all K teachers.
"""

from kd_env.knowledge import label, response

KNOWLEDGE = {"response": response, "label": label}
