"""The heart: one distillation run, which knows nothing of Gymnasium.

In: a task without test, a bank, settings, a seed, and one :class:`~kd_env.types.Decision` an update. Out: a student.
``observe()`` runs the student on the next mini-batch with gradients; ``apply(decision)`` backpropagates the loss through that same forward
pass, so that seeing costs nothing extra.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor
from torch.nn.functional import cross_entropy

from kd_env import randomness
from kd_env.errors import InputError
from kd_env.knowledge import KNOWLEDGE, label, response
from kd_env.knowledge.bank import KnowledgeBank
from kd_env.reward_meter import RewardMeter, labelled_rows
from kd_env.settings import Settings
from kd_env.spec import unknown
from kd_env.student.encode import encode, take
from kd_env.student.networks import build
from kd_env.student.student import OptimizerOptions, Student, pick_device
from kd_env.tasks import Split, Task
from kd_env.types import Decision, Features, Inputs, ModelOutput, Outcome


@dataclass(frozen=True)
class Material:
    """What every run on one task and pool shares: encoded splits and the bank. Nothing here changes, nothing here is test."""

    task: Task
    bank: KnowledgeBank
    inputs: dict[str, Inputs]
    labels: dict[str, Tensor]

    @classmethod
    def of(cls, task: Task, bank: KnowledgeBank) -> Material:
        """Encode the three development splits of ``task``; test is left behind."""
        task = task.development()
        splits: dict[str, Split] = {"train": task.train, "reward": task.reward, "validation": task.validation}
        inputs = {name: encode(task, split.inputs) for name, split in splits.items()}
        return cls(task, bank, inputs, {name: torch.from_numpy(split.labels) for name, split in splits.items()})


class Distillation:
    """A student being taught. Deterministic in ``seed`` on CPU, whatever else draws from torch's global generator."""

    def __init__(self, material: Material, settings: Settings, seed: int) -> None:
        """Initialise the student and the data order from ``seed``.

        Raises:
            InputError: fewer training examples than one mini-batch, or more reward labels asked for than there are.
        """
        seed = int(seed)  # a NumPy integer would not go into a snapshot
        self.material, self.settings, self.seed = material, settings, seed
        size = len(material.labels["train"])
        if size < settings.batch_size:
            raise InputError(f"batch_size={settings.batch_size} is more than the {size} training examples of task {material.task.name!r}")
        self.reward_rows = labelled_rows(material.labels["reward"].numpy(), settings.reward_labels, settings.label_seed)
        self.student = Student(
            build(settings.student, material.task, seed),
            OptimizerOptions.of(settings.optimizer),
            pick_device(settings.device),
            settings.precision,
        )
        reward_inputs = take(material.inputs["reward"], self.reward_rows, torch.device("cpu"))
        reward_labels = material.labels["reward"][self.reward_rows]
        self.meter = RewardMeter(reward_inputs, reward_labels, settings.reward_examples, settings.measure, seed)
        self.update = 0
        self.student_forward_examples = 0
        self.features: Features | None = None
        self.diverged = False
        self._retained: ModelOutput | None = None
        self._inputs: Inputs = {}
        self._rng = randomness.fresh_states(seed, self.student.device)
        self._rng_before = self._rng

    @property
    def done(self) -> bool:
        """The budget is spent, or the student has diverged."""
        return self.diverged or self.update >= self.settings.updates

    @property
    def num_teachers(self) -> int:
        """K."""
        return self.material.bank.num_teachers

    def observe(self) -> Features:
        """Run the student on the next mini-batch, once however often it is asked, and say what can be seen."""
        if self.features is None:
            rows = self._next_rows()
            device = self.student.device
            self._inputs = take(self.material.inputs["train"], rows, device)
            self._rng_before = self._rng
            with self.rng():
                self._retained = self.student.forward(self._inputs)
            self.student_forward_examples += len(rows)
            said = self.material.bank.gather("train", rows)
            self.features = Features(
                update=self.update,
                progress=self.update / self.settings.updates,
                example_ids=rows,
                labels=self.material.labels["train"][rows].to(device),
                teacher_logits=torch.from_numpy(said.logits).to(device, self.student.dtype),
                teacher_features=tuple(torch.from_numpy(feature).to(device, self.student.dtype) for feature in said.features),
                student=ModelOutput(self._retained.logits.detach(), self._retained.features.detach()),
            )
        return self.features

    def loss_terms(self, decision: Decision) -> Tensor:
        """The loss of each example ``[B]`` of the observed mini-batch, differentiable."""
        features = self.observe()
        assert self._retained is not None
        total: Tensor | None = None  # [B]
        for name, strength in decision.strengths.items():
            if not isinstance(strength, Tensor) and strength == 0.0:
                continue
            if name == "label":
                term = label.loss(self._retained, features.labels)
            elif name == "response":
                term = (decision.weights[name] * self.response_terms(decision.temperature)).sum(1)
            else:
                raise unknown("knowledge type", name, KNOWLEDGE)
            term = strength * term
            total = term if total is None else total + term
        return torch.zeros_like(self._retained.logits[:, 0]).detach() if total is None else total

    def response_terms(self, temperature: float) -> Tensor:
        """Response loss of the observed mini-batch for each teacher, ``[B, K]``, differentiable."""
        features = self.observe()
        assert self._retained is not None
        return response.every_teacher(self._retained.logits, features.teacher_logits, temperature)

    def apply(self, decision: Decision) -> Outcome:
        """Teach the observed mini-batch as ``decision`` says: one optimizer step, and a measurement where it is due."""
        assert not self.done, "the budget is spent"
        features = self.observe()
        measures = self.settings.reward in ("dev_improvement", "mixed") and self.settings.credit == "shared"
        if measures and self.meter.before is None:
            self.meter.start(self.student)
        student_ce = cross_entropy(features.student.logits, features.labels, reduction="none")
        loss = self.loss_terms(decision).mean()
        if self.settings.reward_ce > 0.0:
            loss = loss + self.settings.reward_ce * self._reward_ce()
        value = float(loss.detach())
        self.diverged = not np.isfinite(value)
        if not self.diverged and loss.requires_grad:
            self.student.step(loss, features.progress)
        self.skip()
        due = measures and (self.done or self.update % (self.settings.reward_every or self.settings.updates) == 0)
        improvement = self.meter.improvement(self.student) if due and not self.diverged else None
        self.diverged = self.diverged or not np.isfinite(improvement or 0.0)
        return Outcome(value, student_ce, None if self.diverged else improvement, self.diverged)

    def skip(self) -> None:
        """On to the next mini-batch, the student as it is."""
        self.update += 1
        self.features, self._retained = None, None

    def run_again(self) -> Tensor:
        """Logits ``[B, C]`` of the mini-batch last taught, after its update; one more pass, and counted."""
        self.student_forward_examples += self.settings.batch_size
        return self.student.predict(self._inputs)

    def validate(self) -> tuple[float, float]:
        """Loss and metric on the validation split."""
        return self.student.evaluate(self.material.inputs["validation"], self.material.labels["validation"])

    def inputs_of_batch(self) -> Inputs:
        """What the student reads in :meth:`observe`."""
        self.observe()
        return self._inputs

    @contextmanager
    def rng(self, replay: bool = False) -> Iterator[None]:
        """Draw dropout from this run's own generator; ``replay`` repeats the mask of the retained forward pass and leaves no trace."""
        if not self.student.has_dropout:
            yield
            return
        outer = randomness.states(self.student.device)
        randomness.set_states(self._rng_before if replay else self._rng, self.student.device)
        try:
            yield
        finally:
            if not replay:
                self._rng = randomness.states(self.student.device)
            randomness.set_states(outer, self.student.device)

    def snapshot(self) -> bytes:
        """The whole state of the run, self-contained, without pickle; bit-exact on CPU, in another process too."""
        observed = self.features is not None
        tensors = {f"network.{name}": tensor for name, tensor in self.student.network.state_dict().items()}
        for index, state in self.student.optimizer.state_dict()["state"].items():
            for name, tensor in state.items():
                if tensor is not None:
                    tensors[f"optimizer.{index}.{name}"] = tensor
        for index, tensor in enumerate(self.meter.gradient or ()):
            tensors[f"gradient.{index}"] = tensor
        for index, tensor in enumerate(self._rng_before if observed else self._rng):
            tensors[f"rng.{index}"] = tensor
        meter = self.meter
        state = {
            "identity": self._identity(),
            "seed": self.seed,
            "update": self.update,
            "observed": observed,
            "diverged": self.diverged,
            "before": meter.before,
            "measurements": meter.measurements,
            "gradient_update": meter.gradient_update,
            "gradient_of_head": meter.gradient_of_head,
            "reward_forward_examples": meter.forward_examples,
            "student_forward_examples": self.student_forward_examples - observed * self.settings.batch_size,
        }
        tensors["state"] = torch.frombuffer(bytearray(json.dumps(state).encode()), dtype=torch.uint8)
        return bytes(save_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))

    def restore(self, snapshot: bytes) -> None:
        """Go back (or over) to a snapshot of a run of the same task, pool and settings.

        Raises:
            InputError: not a snapshot, or one of another task, pool or settings.
        """
        try:
            tensors = load_tensors(snapshot)
            state = json.loads(tensors.pop("state").numpy().tobytes())
            identity = dict(state["identity"])
        except (SafetensorError, KeyError, ValueError, TypeError):
            raise InputError("restore: these bytes are not a snapshot; give what snapshot() returned") from None
        if identity != self._identity():
            differs = sorted({key for key, _ in identity.items() ^ self._identity().items()})
            raise InputError(f"restore: the snapshot is of another run; these differ: {', '.join(differs)}")
        fresh = Distillation(self.material, self.settings, state["seed"])
        self.__dict__.update(fresh.__dict__)
        self.student.network.load_state_dict(_part(tensors, "network"))
        optimizer: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _part(tensors, "optimizer").items():
            index, _, key = name.partition(".")
            optimizer.setdefault(int(index), {})[key] = tensor
        groups = self.student.optimizer.state_dict()["param_groups"]
        self.student.optimizer.load_state_dict({"state": optimizer, "param_groups": groups})
        gradient, rng = _part(tensors, "gradient"), _part(tensors, "rng")
        self.meter.gradient = [gradient[str(i)].to(self.student.device) for i in range(len(gradient))] or None
        self._rng = [rng[str(i)] for i in range(len(rng))]
        self.meter.before = None if state["before"] is None else tuple(state["before"])
        self.meter.measurements = state["measurements"]
        self.meter.gradient_update, self.meter.gradient_of_head = state["gradient_update"], state["gradient_of_head"]
        self.meter.forward_examples = state["reward_forward_examples"]
        self.update, self.diverged = state["update"], state["diverged"]
        self.student_forward_examples = state["student_forward_examples"]
        if state["observed"]:
            self.observe()

    def fork(self) -> Distillation:
        """An independent run that continues from here; task and bank are shared."""
        twin = Distillation(self.material, self.settings, self.seed)
        twin.restore(self.snapshot())
        return twin

    def _identity(self) -> dict[str, object]:
        return {"task": self.material.task.fingerprint, "bank": self.material.bank.fingerprint, **asdict(self.settings)}

    def _next_rows(self) -> np.ndarray:
        size, batch = len(self.material.labels["train"]), self.settings.batch_size
        epoch, position = divmod(self.update, size // batch)
        return _epoch_order(self.seed, epoch, size)[position * batch : (position + 1) * batch].copy()

    def _reward_ce(self) -> Tensor:
        count = len(self.meter.labels)
        draw = randomness.stream(self.seed, "reward_ce", self.update).choice(count, min(self.settings.batch_size, count), replace=False)
        self.student_forward_examples += len(draw)
        with self.rng():
            logits = self.student.forward(take(self.meter.inputs, draw, self.student.device)).logits
        return cross_entropy(logits, self.meter.labels[draw].to(self.student.device))


@lru_cache(maxsize=8)
def _epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    return randomness.stream(seed, "order", epoch).permutation(size)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.partition(".")[2]: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}
