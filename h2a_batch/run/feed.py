"""Feeds: where a run has its photos from. A run does not know which feed it has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from h2a_batch.errors import StorageError
from h2a_batch.places import Address
from h2a_batch.sources import Found, Scan, Source, scan


class Feed(Protocol):
    """Gives out photos, and takes the answer to each."""

    def photos(self) -> Iterator[Found | None]:
        """Yield the photos to convert, and None wherever there is nothing for now."""

    def ready(self) -> None:
        """Note that the conversion is ready."""

    def done(self, photo: Source) -> None:
        """Note that a photo is converted, was converted already, or needs no conversion."""

    def failed(self, photo: Source, error: Exception | None) -> bool:
        """Note that a photo cannot be converted as it is, and tell whether the feed will give it out again.

        Args:
            photo: the photo.
            error: the reason; None where a file of other origin has the name of its output.
        """

    @property
    def waits(self) -> bool:
        """Whether the feed may give out again some photos that it gave out."""

    def idle(self) -> None:
        """Use the time while there is nothing to convert; the results up to now are durable."""

    def saved(self) -> None:
        """Note that the results up to now are durable."""

    def outlasts(self, error: StorageError, writable: Callable[[], bool]) -> bool:
        """Wait until OUT can be written again, then give out anew the photos that were on their way.

        Args:
            error: why OUT cannot be written.
            writable: tells whether OUT can be written again.

        Returns:
            False where the run ends before that.

        Raises:
            StorageError: the feed does not wait.
        """

    def close(self) -> None:
        """Stop giving out photos."""


@dataclass(frozen=True)
class Once:
    """The photos that are there, once.

    Args:
        inputs: as for `scan`.
        how: as for `scan`.
        entered: as for `scan`.
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
