"""Make tables and figures from decision traces and records, for the report and for notebooks.

- `traces`: the weight of each teacher over time and by group of examples, and the entropy of the weights
- `figures`: learning curves, selection by group, scores by policy
"""
