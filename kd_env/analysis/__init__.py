"""Decision traces and tables in, small tables and figures out (what the notebooks and the report call).

- `traces`: who was selected for what, over time: read, bin, entropy
- `figures`: learning curves, selection by group, scores by policy
"""
