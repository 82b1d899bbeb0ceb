"""The knowledge bank: the outputs of every teacher for every example, computed once.

``bank`` opens and reads one, ``build`` makes one, ``finished_shards`` lets a build that was stopped carry on.
"""

from kd_env.bank.bank import KnowledgeBank, open_bank

__all__ = ["KnowledgeBank", "open_bank"]
