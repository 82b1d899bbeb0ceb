"""Teachers: ``teacher`` (what a teacher is), ``train`` (fit a built-in network), ``pools`` (named pools, trained once and cached)."""

from kd_env.teachers.pools import POOLS, load_pool
from kd_env.teachers.teacher import NetworkTeacher, Pool, Teacher

__all__ = ["POOLS", "NetworkTeacher", "Pool", "Teacher", "load_pool"]
