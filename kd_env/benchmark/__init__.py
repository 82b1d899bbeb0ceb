"""Run trials, keep their records, and report them.

- `trial`: a policy on a task with a seed, its settings checked and its id
- `suites`: named sets of trials, in the files of the folder `suites` or of one's own
- `tuning`: the package that tunes all policies alike on validation, and the configurations that it found
- `run`, `run_trial`, `recorder`: run trials, each to a record and a trace
- `process_executor`, `ray_executor`: in processes of this machine, or on a Ray cluster (`ray_cluster`)
- `ray_shards`: builds banks on a Ray cluster
- `shared_student`: in processes that share one student
- `records`: one JSON line per finished trial, appended atomically
- `replay`: take a record's decisions again and compare
- `rerun`: run a record's trial again and compare
- `check`: check all records of a folder, by one or the other
- `statistics`: intervals, paired differences, Holm's correction, recovered gap (pure functions)
- `summary`, `overview`: one table per setting, and one table of all settings
- `report_text`, `report_claims`: conclusions as text, and what may be claimed about the highest score
- `report`, `report_sections`: report.md, report.html and figures/, and what they contain
- `report_page`, `report_figures`, `report_svg`: sortable tables; which figures, and figures as part of a page
- `report_tuned`: tuned policies beside the same policies by default
- `report_paper`, `report_latex`, `report_methods`: the folder for a paper: LaTeX tables, and the methods as text
- `student_checkpoint`, `kept_students`: save a student; the students that a results folder keeps
- `distill`, `distill_kept`, `card`: the best student of some trials, new or kept, as a Transformers checkpoint with a model card
- `race`: the package of a race for the best student; `distilled`: its student, from Python or the command line; `card_metadata`
- `shipping`: what is done to a finished student: `trimmed` vocabulary, other `formats` (ONNX, number formats), `push` to the Hub
- `latency`: how long a network takes for one example; `low_bit_card`: the part of a model card on bits
- `default_student`: says which student is used, with its size beside the teachers'
- `tensorboard_log`: the progress of a trial as TensorBoard events
- `progress`, `catalogue`: the progress bars and the lists of the command line
"""
