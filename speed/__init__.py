"""Speed, as ratios measured side by side in one run: ``python -m speed``.

``updates`` (a hand-written loop, the distillation, the Gym view, reward and credit), ``populations`` (S students in one step against S
runs), ``policies`` (agents against uniform), ``banks`` (the knowledge bank against tensor files), ``shares`` (where a step goes).
``plain_loop`` is the hand-written loop; ``measure`` times, ``table`` prints.
"""
