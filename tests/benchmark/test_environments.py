"""Policies of the other environments: run by name, recorded whole, and replayed to the last bit."""

import json

import gymnasium as gym
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from kd_env.analysis.traces import read_trace
from kd_env.benchmark import records
from kd_env.benchmark.replay import replay
from kd_env.cli import invoke

UPDATES = 12
KNOWLEDGE, JOINT = "kd_env/KnowledgeSelection-v0", "kd_env/JointSelection-v0"


class Soft:
    """Any strengths, half the time next to none."""

    access = "nothing"
    environment = KNOWLEDGE

    def __init__(self, env, seed):
        self.rng, self.size = np.random.default_rng(seed), env.single_action_space.shape[0]

    def act(self, observation):
        return self.rng.uniform(-1, 1, (len(observation["progress"]), self.size)).astype(np.float32)


class Hard(Soft):
    """Any of the types."""

    env_options = {"action": "hard"}

    def act(self, observation):
        return self.rng.integers(2, size=(len(observation["progress"]), self.size)).astype(np.int8)


class Everything(Soft):
    """Any action of all factors; now and then it abstains."""

    environment = JOINT


class Learner(Everything):
    """As a learner that keeps what it was paid, and starts a second student before its budget ends."""

    env_options = {"credit": "head"}

    def learn(self, env, num_updates):
        observation, _ = env.reset(seed=7)
        env.step(self.act(observation))
        observation, _ = env.reset(seed=int(self.rng.integers(9)))
        self.paid = 0.0
        for _ in range(num_updates):
            observation, reward, _, _, _ = env.step(self.act(observation))
            self.paid += reward.mean()


POLICIES = {
    "soft": ("Soft", {"kd_weight": 0.5}),
    "soft without labels": ("Soft", {"kd_weight": 1.0}),
    "soft in phases": ("Soft", {"kd_weight": 0.5, "updates_per_phase": 3, "exploration_bonus": 0.1}),
    "hard": ("Hard", {"kd_weight": 0.5, "exploration_bonus": 0.1}),
    "joint": ("Everything", {"kd_weight": 0.5, "batch_size": 16}),
    "joint without labels": ("Everything", {"kd_weight": 1.0, "batch_size": 16}),
    "joint, two factors": ("Everything", {"kd_weight": 0.5, "factors": "kd_weight,temperature", "batch_size": 16}),
    "joint for the batch": ("Everything", {"kd_weight": 0.5, "granularity": "batch", "teacher_cost": 0.1}),
    "joint of a dropout student": ("Everything", {"student": "mlp(width=8,dropout=0.3)", "batch_size": 16}),
}


def command(policy, settings, out):
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    name = f"{__name__}:{policy}"
    return ["run", "--task", "digits", "--policy", name, "--seeds", "3", "--updates", str(UPDATES), "--quiet", "--out", str(out), *words]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The folder and the record of a case, run once by the command."""
    finished = {}

    def run(case):
        if case not in finished:
            folder = tmp_path_factory.mktemp("results")
            assert invoke(command(*POLICIES[case], folder)) == 0
            finished[case] = folder, records.read(folder)[0]
        return finished[case]

    return run


@pytest.mark.parametrize("case", POLICIES)
def test_a_policy_of_another_environment_is_run_and_replayed(case, recorded, capsys):
    folder, record = recorded(case)
    assert record["env"]["id"] == globals()[POLICIES[case][0]].environment
    assert (record["access"], record["diverged"]) == ("nothing", False)
    assert 0.0 <= record["test"] <= 1.0
    assert (folder / "report.html").exists()
    capsys.readouterr()
    assert invoke(["replay", str(folder), record["trial"]]) == 0
    assert capsys.readouterr().out == f"{record['trial']}: equal\n"


@pytest.mark.parametrize("case", POLICIES)
def test_the_trace_holds_what_the_actions_meant(case, recorded):
    """Against the same policy, driven by hand."""
    policy, settings = POLICIES[case]
    folder, record = recorded(case)
    trace = read_trace(folder / "traces" / f"{record['trial']}.parquet")
    env = gym.make_vec(vectorization_mode="vector_entry_point", **record["env"])
    agent = globals()[policy](env, 3)
    layout = env.unwrapped.selection.layout
    phase, batch = settings.get("updates_per_phase", 1), env.unwrapped.selection.settings.distillation.batch_size
    steps = trace.groupby("update").first().index
    assert len(steps) == UPDATES
    observation = {"progress": np.zeros(env.num_envs)}
    for update in range(UPDATES):
        if update % phase == 0:
            action = np.repeat(agent.act(observation), batch // env.num_envs, axis=0)
        rows = trace[trace["update"] == update]
        slot = rows["slot"].to_numpy()
        assert set(slot) == set(range(batch))
        if policy in ("Soft", "Hard"):
            expected = (action + 1) / 2 if policy == "Soft" else action
            np.testing.assert_allclose(np.stack(rows["gates"].to_list()), expected[slot], atol=1e-6)
            assert (rows["weight"] == 0.25).all(), "all teachers alike"
            continue
        ends = np.cumsum(list(layout.widths.values()))[:-1]
        factors = dict(zip(layout.widths, np.split(action[slot], ends, axis=1), strict=True))
        np.testing.assert_allclose(rows["kd_weight"], (factors["kd_weight"][:, 0] + 1) / 2, atol=1e-6)
        np.testing.assert_allclose(rows["temperature_scale"], 4.0 ** factors["temperature"][:, 0], rtol=1e-5)
        if "knowledge" in factors:
            assert np.array_equal(np.stack(rows["gates"].to_list()), factors["knowledge"] > 0)
            assert np.array_equal(rows["teacher"] == -1, factors["abstain"][:, 0] > 0)
        else:
            assert "gates" not in rows


def test_a_learner_of_another_environment(tmp_path):
    """The record is of the first student that was finished, whatever was begun before."""
    assert invoke(command("Learner", {"kd_weight": 0.5}, tmp_path)) == 0
    (record,) = records.read(tmp_path)
    assert record["env"]["credit"] == "head"
    assert len(read_trace(tmp_path / "traces" / f"{record['trial']}.parquet")["update"].unique()) == UPDATES


# a record that was touched


@pytest.fixture
def originals(recorded):
    """Records of a soft and of a joint policy."""
    return {policy: (recorded(case)[0], recorded(case)[1]["trial"]) for policy, case in (("Soft", "soft"), ("Everything", "joint"))}


def changed(folder, trial, target, change):
    """A copy of a results folder with another trace."""
    (target / "traces").mkdir()
    (target / "results.jsonl").write_bytes((folder / "results.jsonl").read_bytes())
    table = pyarrow.parquet.read_table(folder / "traces" / f"{trial}.parquet")
    rows = change(table.to_pylist())
    other = pyarrow.Table.from_pylist(rows, schema=None if any(rows[0].keys() ^ set(table.column_names)) else table.schema)
    pyarrow.parquet.write_table(other.replace_schema_metadata(table.schema.metadata), target / "traces" / f"{trial}.parquet")


def put(update, column, change, which=lambda row: True, row=0):
    """Change one row of an update."""

    def at(rows):
        chosen = [entry for entry in rows if entry["update"] == update and which(entry)][row]
        chosen[column] = change(chosen[column])
        return rows

    return at


def taught(row):
    return row["teacher"] >= 0


def everywhere(column, change):
    return lambda rows: [{**row, column: change(row[column])} for row in rows]


def flipped(gates):
    return [1.0 - gates[0], *gates[1:]]


TAMPERED = {
    "a strength of knowledge": ("Soft", put(4, "gates", flipped)),
    "a strength of knowledge in the last row of a decision": ("Soft", put(4, "gates", flipped, row=-1)),
    "the strengths of an update": (
        "Soft",
        lambda rows: [{**r, "gates": flipped(r["gates"]) if r["update"] == 4 else r["gates"]} for r in rows],
    ),
    "a strength of knowledge by little": ("Soft", put(4, "gates", lambda gates: [gates[0] + 1e-3, *gates[1:]])),
    "another order of the knowledge": ("Soft", everywhere("gates", lambda gates: gates[::-1])),
    "knowledge left out": ("Soft", everywhere("gates", lambda gates: gates[:-1])),
    "knowledge left out once": ("Soft", put(4, "gates", lambda gates: gates[:-1])),
    "knowledge there is not": ("Soft", everywhere("gates", lambda gates: [*gates, 1.0])),
    "no strengths": ("Soft", lambda rows: [{name: value for name, value in row.items() if name != "gates"} for row in rows]),
    "strengths that are none": ("Soft", everywhere("gates", lambda gates: [float("nan")] * len(gates))),
    "missing strengths": ("Soft", put(4, "gates", lambda gates: None)),
    "a strength where there was none": ("Soft", lambda rows: [{**row, "kd_weight": 0.5} for row in rows]),
    "one number for all knowledge": ("Soft", lambda rows: [{**row, "gates": row["gates"][0], "more": 0} for row in rows]),
    "a gate": ("Everything", put(4, "gates", flipped, taught)),
    "a gate in the last row of a decision": ("Everything", put(4, "gates", flipped, taught, row=-1)),
    "a strength": ("Everything", put(4, "kd_weight", lambda value: 1.0 - value, taught)),
    "a strength in the last row of a decision": ("Everything", put(4, "kd_weight", lambda value: 1.0 - value, taught, row=-1)),
    "a temperature": ("Everything", put(4, "temperature_scale", lambda value: 2.0 * value, taught)),
    "all temperatures": ("Everything", everywhere("temperature_scale", lambda value: 1.0)),
    "all strengths of the last update": (
        "Everything",
        lambda rows: [{**row, "kd_weight": 0.0 if row["update"] == UPDATES - 1 else row["kd_weight"]} for row in rows],
    ),
    "no strength": ("Everything", lambda rows: [{name: value for name, value in row.items() if name != "kd_weight"} for row in rows]),
    "no temperature": (
        "Everything",
        lambda rows: [{name: value for name, value in row.items() if name != "temperature_scale"} for row in rows],
    ),
    "a teacher who abstained": ("Everything", put(4, "teacher", lambda value: 2, lambda row: row["teacher"] == -1)),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_a_trace_that_was_tampered_with_is_found_out(what, originals, tmp_path, capsys):
    policy, change = TAMPERED[what]
    folder, trial = originals[policy]
    changed(folder, trial, tmp_path, change)
    status = invoke(["replay", str(tmp_path), trial])
    printed = capsys.readouterr()
    assert status in (1, 2), printed.out
    assert (printed.out if status == 1 else printed.err).strip()
    assert "Traceback" not in printed.err
    if status == 2:
        assert printed.err.count("\n") == 1


@pytest.mark.parametrize("policy", ["Soft", "Everything"])
def test_a_copied_trace_is_still_equal(policy, originals, tmp_path):
    """What the test above does to a trace is not itself what is found."""
    folder, trial = originals[policy]
    changed(folder, trial, tmp_path, lambda rows: rows)
    assert replay(tmp_path, trial) == []


@pytest.mark.parametrize("name", ["id", "knowledge", "kd_weight", "temperature"])
def test_a_record_of_another_setting_is_found_out(name, originals, tmp_path, capsys):
    folder, trial = originals["Soft"]
    changed(folder, trial, tmp_path, lambda rows: rows)
    record = json.loads((tmp_path / "results.jsonl").read_text())
    others = {"id": JOINT, "knowledge": "response,relation,layer", "kd_weight": 1.0, "temperature": 3.0}
    assert record["env"].get(name) != others[name]
    record["env"][name] = others[name]
    (tmp_path / "results.jsonl").write_text(json.dumps(record) + "\n")
    assert invoke(["replay", str(tmp_path), trial]) in (1, 2)
    assert "Traceback" not in capsys.readouterr().err
