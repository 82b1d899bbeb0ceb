"""Tune all policies alike on validation. In: the parts of a suite, and a number of validation trials. Out: configurations in TOML files.

- `space`: what is searched for a policy: its own options, and the settings that all policies share
- `study`: the validation trials of one policy, with the sampler that proposes the next (Optuna)
- `tune`: the loop over the policies of a part
- `configuration`: the best configuration of a policy, as a trial uses it
- `files`: configurations in TOML files; those of `configurations` ship with the package
"""
