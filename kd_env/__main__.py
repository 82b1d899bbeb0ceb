"""``python -m kd_env`` is the command ``kd-env``, for launchers that start Python modules."""

from kd_env.cli import main

if __name__ == "__main__":
    main()
