"""Trials on a CUDA device: each policy decides as on the CPU, and a stopped trial ends in the same bits."""

import pytest
import torch
from stopped_trials import check_stops, run, trial

from kd_env.policies import registry
from kd_env.randomness import reproducible

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

BUILT_IN = [policy for policy in registry.POLICIES if policy != "iakd"]  # its student must match a teacher
POLICIES = [*BUILT_IN, "sb3:PPO(n_steps=4,batch_size=32)"]
RESUMED = [policy for policy in BUILT_IN if not registry.find(policy).owns_loop]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_teaches_as_on_the_cpu(policy, tmp_path, monkeypatch):
    students = {}
    for device in ("cpu", "cuda"):
        started = trial(policy, device=device, precision="float64", updates=10)
        (folder := tmp_path / device).mkdir()
        with reproducible():
            (record,), parameters, _ = run([started], folder, monkeypatch)
        assert not record["diverged"]
        students[device] = parameters[started.id]
    for on_cpu, on_cuda in zip(*students.values(), strict=True):
        torch.testing.assert_close(on_cuda.cpu(), on_cpu, rtol=0.0, atol=1e-4)


@pytest.mark.parametrize("policy", RESUMED)
def test_a_stopped_trial_ends_equally_on_cuda(policy, tmp_path, monkeypatch):
    longer = {"updates": 40} if registry.find(policy).environment == "kd_env/KnowledgeSelection-v0" else {}
    with reproducible():
        check_stops([trial(policy, device="cuda", **longer)], tmp_path, monkeypatch)
