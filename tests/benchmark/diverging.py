"""A policy whose student diverges, for tests of several trials at once."""

import dataclasses

from baselines.rule import WEIGHTS


class BreaksSeed4:
    """Weights that carry a gradient; the student of seed 4 diverges at the third update of its first episode."""

    access = "gradient"
    env_options = WEIGHTS

    def __init__(self, context, seed=0, training_episodes=0):
        self.context, self.seed, self.training_episodes, self.episodes = context, seed, training_episodes, 0

    def begin_episode(self, learning):
        self.episodes += 1

    def act(self, observation):
        batch = self.context.batch()
        distance = (batch.student_output.logits[:, None] - batch.teacher_logits).square().mean(2)
        decision = self.context.decision({"response": distance.softmax(1)})
        if self.seed == 4 and self.episodes == 1 and batch.update[0] == 2:
            return dataclasses.replace(decision, strengths={"response": float("nan")})
        return decision

    def state(self):
        return {"episodes": self.episodes}

    def load_state(self, state):
        self.episodes = state["episodes"]
