"""S networks in one batched step and S students of their own: how both are made, taught and compared."""

import numpy as np
import torch

from kd_env.models.encode import take
from kd_env.models.networks import build
from kd_env.student.optimizer import OptimizerOptions
from kd_env.student.population import Population
from kd_env.student.student import Student

CPU = torch.device("cpu")
MLP_, VIT, BERT = "mlp(width=12)", "tiny-vit(width=8,layers=1)", "tiny-bert(width=8,layers=1,dropout=0)"
MATERIAL = {MLP_: "digits_data", VIT: "digits_data", BERT: "text_data"}
ADAM, DECAYED = "adam(lr=0.003)", "adam(lr=0.003,weight_decay=0.01)"
ADAMW = "adamw(lr=0.003,weight_decay=0.1,warmup=0.1,decay=linear)"
SGD = "sgd(lr=0.02,weight_decay=0.01,decay=linear)"
UPDATES = 300


def both(data, text, optimizer="adam", precision="float64", students=2, first=0):
    """A population, and its students alone."""
    options = OptimizerOptions.of(optimizer)
    networks = [[build(text, data.task, first + s) for s in range(students)] for _ in range(2)]
    return Population(networks[0], options, CPU, precision), [Student(network, options, CPU, precision) for network in networks[1]]


def teach(data, population, apart, updates, start=0, of=UPDATES, batch=8):
    """Soft labels of the first teacher, for each student on rows of its own; ``progress`` of student s lags s updates behind."""
    students, size = population.num_students, len(data.labels["train"])
    for update in range(start, start + updates):
        rows = np.random.default_rng([3, update]).integers(size, size=(students, batch))
        log_p = torch.from_numpy(data.bank.gather("train", rows.ravel()).logits[:, 0]).to(population.dtype).log_softmax(1)
        progress = np.maximum(update - np.arange(students), 0) / of

        def divergence(output, log_p):
            return (log_p.exp() * (log_p - output.logits.log_softmax(1))).sum(1)

        output = population.forward(take(data.inputs["train"], rows.ravel(), CPU))
        population.step(divergence(output, log_p).view(students, -1).mean(1).sum(), progress)
        for s, student in enumerate(apart):
            output = student.forward(take(data.inputs["train"], rows[s], CPU))
            student.step(divergence(output, log_p[s * batch : (s + 1) * batch]).mean(), progress[s])


def states(population):
    return [population.state_of(s) for s in range(population.num_students)]


def largest_difference(state, other):
    """In weights, relative where they are above .001."""
    assert state.keys() == other.keys()
    weights = [name for name in state if name.startswith("network.")]
    return max(float(((state[name] - other[name]).abs() / other[name].abs().clamp_min(1e-3)).max()) for name in weights)
