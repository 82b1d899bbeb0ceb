"""Race candidates for the best student of a task and its teachers.

- ``set_up``: checks what the user asks for; ``defaults`` fills in what was left open;
- ``candidates``, ``plan``: who takes part, and for how many updates;
- ``race``, ``racer``, ``state``: the race, the students of one candidate, and what is kept so that a stopped race goes on;
- ``score``: what decides;
- ``report``, ``card``: what is said of it.
"""
