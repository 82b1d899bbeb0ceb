"""Every rule with a formula: the loss of a mini-batch and its gradient are those of the published step, written out again."""

from pathlib import Path

import numpy as np
import pytest
import torch
from rule_problems import env_and_policy
from scipy.optimize import minimize
from torch.nn.functional import cosine_similarity, cross_entropy, kl_div, normalize

from kd_env.models.networks import build
from kd_env.policies import registry
from kd_env.teachers import NetworkTeacher

HERE = "test_published_steps:pool"
K, TAU, KD = 3, 4.0, 0.4
"""Teachers, temperature, and kd_weight: the strength of distillation where a rule keeps the setting's."""


def pool(task):
    """Three untrained teachers of other widths and depths."""
    networks = ("mlp(width=5,depth=2)", "mlp(width=9,depth=3)", "mlp(width=7,depth=2)")
    return [NetworkTeacher(f"teacher{k}", build(text, task, k), task, logit_scale=6.0) for k, text in enumerate(networks)]


class Step:
    """What the published formulas are made of, for the mini-batch about to be taught."""

    def __init__(self, run):
        self.batch, self.output, self.network = run.observe(), run.student_output(), run.student.network
        self.labels = self.batch.labels
        self.z = [self.batch.teacher_logits[:, k] for k in range(K)]
        self.ce = cross_entropy(self.output.logits, self.labels, reduction="none")
        self.teacher_ce = torch.stack([cross_entropy(z, self.labels, reduction="none") for z in self.z], 1)
        self.kl = torch.stack([self.divergence((z / TAU).softmax(1)) for z in self.z], 1)
        self.p = torch.stack([z.softmax(1) for z in self.z], 1)

    def divergence(self, target):
        return kl_div((self.output.logits / TAU).log_softmax(1), target, reduction="none").sum(1) * TAU**2

    def hints(self):
        pairs = zip(self.output.projections["linear"], self.batch.teacher_features, strict=True)
        return torch.stack([(mapped - features).pow(2).mean(1) for mapped, features in pairs], 1)

    def layers(self, directions=False):
        columns = []
        for mapped, layers in zip(self.output.projections["layers"], self.batch.teacher_layers, strict=True):
            layers = layers[:, [0, -1]] if mapped.shape[1] == 2 else layers
            sides = [normalize(each, dim=2) if directions else each for each in (mapped, layers)]
            distance = (sides[0] - sides[1]).pow(2)
            columns.append((distance.sum(2) if directions else distance.mean(2)).mean(1))
        return torch.stack(columns, 1)


def entropy_weights(step, total):
    entropy = -(step.p * step.p.log()).sum(2)
    return (1 - entropy / entropy.sum(1, keepdim=True)) / total


def mix(step, distilled, label=1 - KD, strength=KD):
    return strength * distilled + label * step.ce


def no_teacher(step):
    return step.ce


def average(step):
    return mix(step, step.kl.mean(1))


def ebkd(step):
    return mix(step, (entropy_weights(step, K - 1) * step.kl).sum(1))


def ebkd_released(step):
    return step.ce + (entropy_weights(step, K - 1) * step.kl).sum(1) * (K - 1) / K


def aekd(step):
    """The quadratic program by a general solver."""
    slopes = [torch.autograd.grad(step.kl[:, k].mean(), step.output.logits, retain_graph=True)[0].sum(0).numpy() for k in range(K)]
    gram = np.array([[a @ b for b in slopes] for a in slopes])
    equality = {"type": "eq", "fun": lambda a: a.sum() - 1}
    scale = np.abs(gram).max()
    bounds, options = [(0.0, 0.6)] * K, {"maxiter": 500}
    solved = minimize(lambda a: a @ gram @ a / scale, np.full(K, 1 / K), bounds=bounds, constraints=[equality], tol=1e-14, options=options)
    return mix(step, step.kl @ torch.from_numpy(solved.x))


def camkd_logits(step):
    return mix(step, ((1 - step.teacher_ce.softmax(1)) / (K - 1) * step.kl).sum(1))


def fitnet_mkd(step):
    return mix(step, step.kl.mean(1) + 100 * step.hints().mean(1))


def fitnet_mkd_released(step):
    return step.ce + step.kl.mean(1)


def mt_bert(step):
    trust = 1 / (1 + step.teacher_ce)
    return mix(step, (trust / trust.sum(1, keepdim=True) * step.kl).sum(1) + step.layers().mean(1))


def mt_bert_released(step):
    return step.ce + (step.kl / (1 + step.teacher_ce)).sum(1) + step.layers().sum(1)


def pkd(step):
    return mix(step, step.kl.mean(1) + step.layers(directions=True).mean(1))


def distilbert(step):
    pairs = zip(step.output.projections["linear"], step.batch.teacher_features, strict=True)
    cosine = torch.stack([1 - cosine_similarity(*pair) for pair in pairs], 1)
    return mix(step, (5 * step.kl + cosine).mean(1) / 5)


def amtml(step):
    gate = step.network.auxiliary_module
    weights = torch.stack([(gate.theta[k] * step.output.features) @ gate.u for k in range(K)], 1).softmax(1)
    integrated = sum(weights[:, k, None] * (step.z[k] / TAU).softmax(1) for k in range(K))
    last = [mapped[:, 0 if k == 0 else -1] for k, mapped in enumerate(step.output.projections["layers"])]
    hints = [(last[k] - step.batch.teacher_layers[k][:, -1]).pow(2).mean(1) for k in range(K)]
    cross = (integrated * (integrated.log() - (step.output.logits / TAU).log_softmax(1))).sum(1) * TAU**2
    return mix(step, cross + sum(hints) / K)


def uncertainty(step):
    free = step.network.auxiliary_module.free
    log_sigma = 3 * (free / 3).tanh()
    parts = (KD * step.kl.mean(1), KD * step.hints().mean(1), (1 - KD) * step.ce)
    return sum(part / (2 * (2 * each).exp()) + each for part, each in zip(parts, log_sigma, strict=True))


def entropy_dkd(step):
    parts = torch.zeros_like(step.kl)
    for k, z in enumerate(step.z):
        mask = torch.nn.functional.one_hot(z.argmax(1), z.shape[1]).bool()
        p, q = (z / TAU).softmax(1), (step.output.logits / TAU).softmax(1)
        sure_p, sure_q = p[mask], q[mask]
        binary = sure_p * (sure_p / sure_q).log() + (1 - sure_p) * ((1 - sure_p) / (1 - sure_q)).log()
        rest_p, rest_q = (each.masked_fill(mask, 0.0) / (1 - sure)[:, None] for each, sure in ((p, sure_p), (q, sure_q)))
        others = (rest_p * (rest_p.masked_fill(mask, 1.0).log() - rest_q.masked_fill(mask, 1.0).log())).sum(1)
        parts[:, k] = TAU**2 * (binary + others)
    return mix(step, (entropy_weights(step, K - 1) * parts).sum(1))


def correlation(step):
    q = (step.output.logits.detach() / TAU).softmax(1).numpy()
    p = [(z / TAU).softmax(1).numpy() for z in step.z]
    pearson = torch.tensor([[np.corrcoef(p[k][b], q[b])[0, 1] for k in range(K)] for b in range(len(q))])
    return mix(step, ((pearson / 0.5).softmax(1) * step.kl).sum(1))


def most_confident(step):
    return mix(step, step.kl.gather(1, step.p.amax(2).argmax(1)[:, None])[:, 0])


def best_single(step):
    return mix(step, step.kl.gather(1, step.teacher_ce.argmin(1)[:, None])[:, 0])


STEPS = {
    "no_teacher": no_teacher,
    "uniform": average,
    "ebkd": ebkd,
    "ebkd(scale=released)": ebkd_released,
    "aekd": aekd,
    "camkd_logits": camkd_logits,
    "fitnet_mkd": fitnet_mkd,
    "fitnet_mkd(scale=released)": fitnet_mkd_released,
    "mt_bert": mt_bert,
    "mt_bert(scale=released)": mt_bert_released,
    "pkd": pkd,
    "distilbert": distilbert,
    "amtml": amtml,
    "uncertainty": uncertainty,
    "entropy_dkd": entropy_dkd,
    "correlation": correlation,
    "most_confident": most_confident,
    "best_single": best_single,
}
ELSEWHERE = {
    "camkd": "test_camkd_maps.py",
    "mmkd": "test_mmkd_maps.py",
    "majority_sign": "test_instance_weights.py",
    "lookahead": "test_lookahead.py",
    "single": "test_rules.py",
    "random_single": "test_rules.py",
    "oracle": "test_rules.py",
    "all_knowledge": "test_akd_baselines.py",
    "random_hard": "test_akd_baselines.py",
    "random_soft": "test_akd_baselines.py",
    "dev_weighted": "test_rl_kd_ensembles.py",
    "lr_ensemble": "test_rl_kd_ensembles.py",
    "lr_dev": "test_rl_kd_ensembles.py",
    "router": "test_router.py",
    "reward_supervised": "test_rules.py",
    "uniform_reward_ce": "test_rules.py",
    "stacking": "test_stacking.py",
    "taught_stacking": "test_stacking.py",
    "self_stacking": "test_self_stacking.py",
    "mutual_learning": "../knowledge/test_published_losses.py",  # the uniform mean of the type peer
    "peer_ensemble": "../knowledge/test_published_losses.py",
    "pcl": "test_pcl.py",
    "ctsl_mkt": "../knowledge/test_peer_relation.py",
}
"""Rules whose step or weights are written out in another file."""


@pytest.mark.parametrize("text", STEPS)
def test_the_loss_and_its_gradient_are_the_published_ones(text):
    settings = {"student": "mlp(width=6,depth=2)", "batch_size": 8, "temperature": TAU, "kd_weight": KD, "precision": "float64"}
    env, policy = env_and_policy(text, HERE, **settings)
    env.reset(seed=0)
    run = env.selection.distillation
    with torch.no_grad():
        for parameter in run.student.parameters:
            parameter += 0.05 * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()), dtype=parameter.dtype
            )
    run.forget_batch()
    decision = policy.act(None) if not hasattr(policy, "rule") else policy.rule.decide(policy.rule.context.batch())
    if isinstance(decision, torch.Tensor):
        decision = policy.rule.context.decision(dict.fromkeys(run.loss.terms, decision.to(run.student.dtype)))
    loss, expected = run.per_example_loss(decision), STEPS[text](Step(run))
    close = {"rtol": 1e-5, "atol": 1e-7}
    torch.testing.assert_close(loss, expected.to(loss.dtype), **close)
    slopes = [
        torch.autograd.grad(each.mean(), run.student.parameters, retain_graph=True, materialize_grads=True) for each in (loss, expected)
    ]
    for ours, theirs in zip(*slopes, strict=True):
        torch.testing.assert_close(ours, theirs, **close)


def test_every_rule_has_its_formula_written_out():
    here, modules = Path(__file__).parent, {name: path for name, path in registry.POLICIES.items() if path.startswith("baselines.")}
    listed = {text.partition("(")[0] for text in STEPS} | set(ELSEWHERE)
    assert listed <= set(modules)
    assert all((here / file).is_file() for file in ELSEWHERE.values())
    for name in set(modules) - listed:
        file = f"test_{modules[name].partition(':')[0].rpartition('.')[2]}.py"
        assert (here / file).is_file(), f"{name}: write its step out in STEPS, or in {file}"
