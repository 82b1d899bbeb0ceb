"""Trials in, records and a report out.

- `statistics`: intervals, paired differences, Holm's correction, recovered gap (pure functions)
- `records`: one JSON line a finished trial, appended atomically
- `summary`: records to one table a setting, each learned policy beside the best rival with the same labels
- `reading`: a table in words that claim no more than it allows
- `report`: records, traces and tables to report.md, report.html and figures
"""
