"""Feeds: where a run has its photos from. A run does not know which of them it has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from h2a_batch.errors import StorageError
from h2a_batch.places import Address
from h2a_batch.sources import Found, Scan, Source, scan


class Feed(Protocol):
    """Gives out photos, and is told what became of each."""

    def photos(self) -> Iterator[Found | None]:
        """Yield what there is to convert, and None wherever there is nothing for now."""

    def ready(self) -> None:
        """Take note that what converts is ready."""

    def done(self, photo: Source) -> None:
        """Take note that a photo is converted, was so already, or needs not be."""

    def failed(self, photo: Source, error: Exception | None) -> bool:
        """Take note that a photo cannot be converted as it is; return whether it will be given out again.

        Args:
            error: why; None where a file of other origin has the name of its output.
        """

    @property
    def waits(self) -> bool:
        """Whether photos that were given out may yet be given out again."""

    def idle(self) -> None:
        """Do what is to be done while there is nothing to convert; the results up to now are durable."""

    def saved(self) -> None:
        """Take note that the results up to now are durable."""

    def outlasts(self, error: StorageError, writable: Callable[[], bool]) -> bool:
        """Wait until OUT can be written again, and give out anew what was on its way; return False at the end.

        Args:
            error: why it cannot be written.
            writable: tries it.

        Raises:
            StorageError: there is nothing to wait for.
        """

    def close(self) -> None:
        """Give out no more."""


@dataclass(frozen=True)
class Once:
    """The photos that are there, once.

    Args:
        inputs, how, entered: as for `scan`.
    """

    inputs: Sequence[Address]
    how: Scan
    entered: Callable[[str], None] = lambda real: None

    def photos(self) -> Iterator[Found | None]:
        return scan(self.inputs, self.how, self.entered)

    def ready(self) -> None:
        pass

    def done(self, photo: Source) -> None:
        pass

    def failed(self, photo: Source, error: Exception | None) -> bool:
        return False

    @property
    def waits(self) -> bool:
        return False

    def idle(self) -> None:
        pass

    def saved(self) -> None:
        pass

    def outlasts(self, error: StorageError, writable: Callable[[], bool]) -> bool:
        raise error

    def close(self) -> None:
        pass
