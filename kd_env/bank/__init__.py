"""The knowledge bank: the outputs of every teacher for every example, computed once and kept on disk.

``bank`` opens and reads a bank, ``build`` writes one from the outputs of its ``shards``, ``finished_shards`` lets a stopped build continue.
"""

from kd_env.bank.bank import KnowledgeBank, open_bank

__all__ = ["KnowledgeBank", "open_bank"]
