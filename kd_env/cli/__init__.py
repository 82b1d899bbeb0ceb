"""The ``kd-env`` command: one module per command, the options that several share in ``options``, and ``command_line``, which runs them."""

from kd_env.cli.command_line import app, invoke, main

__all__ = ["app", "invoke", "main"]
