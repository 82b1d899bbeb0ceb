"""Race candidates for the best student of a task and its teachers.

- ``prepare``: checks the arguments, loads the teachers and builds the bank; ``defaults``: default settings and the budget;
- ``candidates``, ``plan``: the candidates, and the number of updates and seeds at each rung;
- ``race``, ``candidate_run``, ``state``: the race, the students of one candidate, and the saved state;
- ``score``: scores, differences and the choice;
- ``report``, ``card``: the report and the model card.
"""
