"""Measure speed: ratios of subjects that are measured side by side in one run, by ``python -m speed``.

- `updates`: a hand-written loop, the distillation, the Gymnasium environment, reward and credit
- `populations`: S students in one step compared with S separate runs
- `policies`: learned policies compared with uniform
- `banks`: the knowledge bank compared with tensor files
- `shares`: the time of each part of an environment step
- `plain_loop`: the hand-written loop
- `measure`, `table`: timing, and printing the results
"""
