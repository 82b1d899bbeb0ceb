"""Students: networks that learn from an optimizer's steps.

``protocol`` says what one student (``student``) and a population of several (``population``) can do; ``build`` builds either. ``optimizer``
holds optimizer and schedule, ``evaluation`` measures, ``auxiliary_module`` is a module of a policy's that learns beside a student.
"""
