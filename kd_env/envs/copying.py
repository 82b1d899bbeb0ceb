"""Copy an environment. In: an environment. Out: its fork; an environment cannot be pickled."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NoReturn, Self


class CopiedByFork:
    """Base class of environments. They hold a bank and a network, which ``copy.deepcopy`` and ``pickle`` cannot copy by themselves."""

    @abstractmethod
    def fork(self) -> Self:
        """Return an independent environment in the same state; the bank is shared."""

    def _shallow_copy(self) -> Self:
        """Return an environment with the same attributes, of which :meth:`fork` replaces those that change."""
        shallow = object.__new__(type(self))
        vars(shallow).update(vars(self))
        return shallow

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return :meth:`fork`."""
        return self.fork()

    def __reduce__(self) -> NoReturn:
        """Raise an error.

        Raises:
            TypeError: always; ``snapshot()`` returns the state as bytes.
        """
        raise TypeError(f"{type(self).__name__} cannot be pickled; make it again, and restore() the bytes of its snapshot()")
