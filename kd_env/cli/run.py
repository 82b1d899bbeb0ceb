"""``kd-env run``: distil students with policies and seeds of one's choice."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from kd_env.cli.options import (
    Bank,
    CheckpointMinutes,
    DataDir,
    Executor,
    GpusPerTrial,
    GroupColumn,
    LabelColumn,
    MaxLength,
    Out,
    PairColumn,
    Quiet,
    Set,
    Student,
    Task,
    Teachers,
    TensorBoard,
    TextColumn,
    Updates,
    Workers,
    command_line,
    join_teachers,
    named_task,
    print_notes,
    read_seeds,
    read_settings,
)
from kd_env.cli.run_options import RunOptions
from kd_env.cli.trials import connect, run_trials
from kd_env.cli.tuned import configurations
from kd_env.errors import InputError


def run(
    context: typer.Context,
    task: Task,
    out: Out,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            metavar="POLICY",
            help="Policy, with options as in reinforce(window=4); sb3:PPO(n_steps=16); or module:Class. Can be repeated. "
            "See kd-env list policies.",
        ),
    ] = None,
    teachers: Teachers = None,
    student: Student = None,
    updates: Updates = None,
    seeds: Annotated[str, typer.Option("--seeds", metavar="SEEDS", help="Seeds, e.g. 0-4 or 0,3,7.")] = "0-4",
    set_: Set = None,
    bank: Bank = None,
    population: Annotated[
        int,
        typer.Option("--population", min=1, metavar="N", help="Number of seeds that learn at once, which is faster for small students."),
    ] = 1,
    no_test: Annotated[bool, typer.Option("--no-test", help="Do not evaluate on test, for choosing settings by validation.")] = False,
    save_policy: Annotated[bool, typer.Option("--save-policy", help="Save what each policy learned, in DIR/policies.")] = False,
    keep: Annotated[
        str | None,
        typer.Option(
            "--keep",
            metavar="best|all|none",
            help="Finished students to keep in DIR/students, for kd-env distill --from DIR: the best on validation of each task and "
            "student, all, or none. Default: best, for students that can be saved (Transformers models and convolutional networks). If "
            "you give it, finished trials whose students are missing run again.",
        ),
    ] = None,
    policy_from: Annotated[
        Path | None,
        typer.Option(
            "--policy-from",
            metavar="DIR",
            help="Begin with saved policies: a results folder of --save-policy (each trial takes the policy of its seed, or the only "
            "one), or one file. Without --policy, all saved policies are used.",
        ),
    ] = None,
    tuned: Annotated[
        bool, typer.Option("--tuned", help="Use the policies as they were tuned for this task and pool. See kd-env bench --tune.")
    ] = False,
    tuned_from: Annotated[
        Path | None,
        typer.Option(
            "--tuned-from", metavar="DIR", help="Like --tuned, with your own configurations: the folder DIR/tuned, or one file in it."
        ),
    ] = None,
    frozen: Annotated[bool, typer.Option("--frozen", help="Use the saved policies without learning.")] = False,
    data_dir: DataDir = None,
    text: TextColumn = None,
    pair: PairColumn = None,
    label: LabelColumn = None,
    group: GroupColumn = None,
    max_length: MaxLength = None,
    workers: Workers = 0,
    executor: Executor = "process",
    gpus_per_trial: GpusPerTrial = 0.0,
    checkpoint_minutes: CheckpointMinutes = 5.0,
    tensorboard: TensorBoard = False,
    quiet: Quiet = False,
) -> None:
    """Distil students with one or several policies, with a report.

    Each policy distils one student for each seed. Finished trials are not run again, and stopped trials are
    resumed. The best student is kept if its kind can be saved: kd-env distill --from DIR makes a checkpoint with a
    model card of it, without teaching again.
    """
    options = RunOptions(workers, executor, gpus_per_trial, checkpoint_minutes, quiet)
    connect(context, options)
    from kd_env import tasks
    from kd_env.benchmark import saved_policies
    from kd_env.benchmark.kept_students import FOLDER, KEEP, with_missing_students
    from kd_env.benchmark.shared_student import is_first
    from kd_env.benchmark.trial import Trial
    from kd_env.spec import one_of

    if not policy and policy_from is None:
        raise InputError("Missing option '--policy': name a policy of kd-env list policies, or give saved ones with --policy-from DIR")
    if frozen and policy_from is None:
        raise InputError("--frozen: only saved policies can be used without learning; add --policy-from DIR")
    if keep is not None:
        one_of("run", *KEEP, keep=keep)
    if (tuned or tuned_from) and policy_from is not None:
        raise InputError("--tuned: a saved policy is used as it was saved; leave --tuned or --policy-from out")
    names = list(dict.fromkeys(policy or ()))
    settings = read_settings(set_, student=student, updates=updates)
    task = named_task(task, data_dir, text, pair, label, group, max_length)  # a record's task carries all that decides it
    pool = join_teachers(teachers)
    seed_list = read_seeds(seeds)
    saved = {} if policy_from is None else saved_policies.find(policy_from, names, seed_list)
    chosen = configurations(task, pool, names, settings, tuned_from, quiet) if tuned or tuned_from else {}
    trials = []
    for seed in seed_list:
        for number, file in enumerate(saved.get(seed, [None] * len(names))):
            trial = Trial(
                task,
                names[number] if file is None else saved_policies.source_of(file).policy,
                seed,
                pool,
                None if bank is None else str(bank),
                "run",
                settings,
                command_line(),
                not no_test,
                tuned=chosen.get(names[number]) if file is None else None,
                save_policy=save_policy,
                tensorboard=tensorboard,
                keep=keep or "best",
            )
            trials.append(
                trial if file is None else replace(trial, policy_from=str(file), policy_from_name=str(policy_from), frozen=frozen)
            )
    print_notes(tasks.load(task), quiet)
    if keep in ("best", "all"):
        trials = with_missing_students(trials, out)
    page = run_trials(trials, out, options, population)
    if (out / FOLDER).is_dir() and not quiet and is_first():
        command = shlex.join(["kd-env", "distill", "--from", str(out), "--out", "student"])
        print(f"the best student is kept; {command} makes a checkpoint with a model card of it", file=sys.stderr)
    print(page)
