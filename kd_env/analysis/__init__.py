"""Make tables and figures from decision traces and records, for the report and for notebooks.

- `traces`: the weight of each teacher over time and by group of examples, and the entropy of the weights
- `selection_regret`: 1 minus the weight on the best teacher over time, and the recovery after a change, for pools whose answer is known
- `selection_map`: the same means from arrays, averaged over seeds
- `palette`, `canvas`: the colour of each policy, and what figures have in common: axes, panels, legends
- `seeds`, `intervals`: the traces of several seeds, and means with intervals over seeds
- `decisions`: a row per decision, and which decisions two traces share
- `difficulty`: easy and hard examples, and the weight of each teacher on them
- `agreement`: how often two policies, or a policy and a rule, choose the same teacher
- `entropy`: marginal and conditional entropy of the selection, and mutual information
- `score_regret`: the score and the cross-entropy that a policy loses to the oracle, by seed and by group
- `compare`: two policies example by example: where they differ, and who was right
- `references`: weights of rules and correct teachers for every example, from the bank
- `credit`: credit against the improvement that follows
- `credit_direction`: which teachers credit favours while a student is taught
- `figures`: learning curves, selection by group, scores by policy
- `policy_figures`, `comparison_figures`: the figures of the other tables
"""
