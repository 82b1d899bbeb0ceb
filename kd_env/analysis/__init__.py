"""Make tables and figures from decision traces and records, for the report and for notebooks.

- `traces`: the weight of each teacher over time and by group of examples, and the entropy of the weights
- `selection_regret`: 1 minus the weight on the best teacher over time, and the recovery after a change, for pools whose answer is known
- `selection_map`: the same means from arrays, averaged over seeds
- `palette`, `canvas`: the colour of each policy, and what figures of policies have in common
- `figures`: learning curves, selection by group, scores by policy
"""
