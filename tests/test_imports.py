"""Imports point upstream only, package by package."""

import ast
import json
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

ORDER = (
    (
        "kd_env.errors",
        "kd_env.interrupts",
        "kd_env.paths",
        "kd_env.plugins",
        "kd_env.printable",
        "kd_env.randomness",
        "kd_env.serialization",
        "kd_env.spec",
        "kd_env.types",
    ),
    ("kd_env.tasks",),
    ("kd_env.models",),
    ("kd_env.knowledge",),
    ("kd_env.student",),
    ("kd_env.teachers",),
    ("kd_env.bank",),
    ("kd_env.distillation",),
    ("kd_env.envs",),
    ("kd_env.policies",),
    ("baselines",),
    ("agents",),
    ("kd_env.analysis",),
    ("kd_env.benchmark",),
    ("kd_env.testing",),
    ("kd_env.cli",),
    ("kd_env.__main__",),
)
"""From upstream to downstream, package by package and without exceptions."""


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for folder in ("kd_env", "agents", "baselines") for path in sorted((ROOT / folder).rglob("*.py"))}


def imported_by(name):
    """The project's modules that ``name`` imports anywhere, ``TYPE_CHECKING`` blocks and functions included."""
    imported = set()
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                imported.add(inner if inner in FILES else node.module)
    return {module for module in imported if module in FILES} - {name}


GRAPH = {name: imported_by(name) for name in FILES}


def stage(name):
    fits = [place for place, line in enumerate(ORDER) for prefix in line if f"{name}.".startswith(f"{prefix}.")]
    assert len(fits) == 1, f"{name} has {len(fits)} places in the order; give it one"
    return fits[0]


def test_the_graph_is_read_at_all():
    assert len(FILES) > 50
    assert "kd_env.bank" in GRAPH["kd_env.distillation.data"]
    assert "kd_env.benchmark.run" in GRAPH["kd_env.cli.run_options"], "imports inside functions count"


@pytest.mark.parametrize("name", [name for name in FILES if name != "kd_env"])
def test_imports_point_upstream(name):
    downstream = {module for module in GRAPH[name] if module != "kd_env" and stage(module) > stage(name)}
    assert not downstream, f"{name} imports {sorted(downstream)}"


def test_the_package_itself_imports_the_registration_and_on_first_use_the_call_that_does_all_stages():
    assert GRAPH["kd_env"] == {"kd_env.envs.registration", "kd_env.benchmark.distilled"}
    assert not GRAPH["kd_env.envs.registration"]


def test_kd_env_knows_no_policy():
    for name, imports in GRAPH.items():
        if name.split(".")[0] == "kd_env":
            assert not {module for module in imports if module.split(".")[0] in ("agents", "baselines")}, name


def test_there_is_no_cycle():
    tables_of_contents = {name for name, path in FILES.items() if path.name == "__init__.py"}
    TopologicalSorter({name: imports - {name} for name, imports in GRAPH.items()}).prepare()
    for name in tables_of_contents:
        submodules = {module for module in FILES if module.startswith(f"{name}.")}
        for submodule in submodules:
            assert name not in GRAPH[submodule] or submodule not in GRAPH[name], f"{submodule} imports {name}, which imports it"


def modules_after(code):
    script = f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


HEAVY = {"torch", "pandas", "scipy", "sklearn", "matplotlib", "transformers", "stable_baselines3", "pyarrow"}


def test_help_answers_without_the_heavy_libraries():
    loaded = modules_after('from kd_env.cli import invoke\nassert invoke(["--help"]) == 0\nassert invoke(["run", "--help"]) == 0')
    assert "kd_env.cli" in loaded
    assert not loaded & HEAVY


def test_importing_the_package_loads_nothing_heavy_and_makes_the_ids_known():
    ids = {f"kd_env/{name}Selection-v0" for name in ("Teacher", "Knowledge", "Joint")}
    loaded = modules_after(f"import gymnasium, kd_env\nassert {ids!r} <= set(gymnasium.registry)")
    assert not loaded & HEAVY


def test_the_package_of_the_benchmark_names_all_of_its_modules():
    folder = ROOT / "kd_env" / "benchmark"
    named = set(re.findall(r"`(\w+)`", ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))))
    assert {path.stem for path in folder.glob("*.py")} - {"__init__"} <= named
