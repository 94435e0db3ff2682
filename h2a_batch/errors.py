"""Everything that h2a-batch raises on purpose, each kind with its exit code and a line of advice."""

from __future__ import annotations

from typing import Any

EXIT_OK = 0
EXIT_SOME_FAILED = 1
EXIT_UNUSABLE = 2
EXIT_INTERRUPTED = 130


class H2AError(Exception):
    """Base of all errors a user can meet: a message of one line, and what to do about it.

    Args:
        message: what is wrong, naming the file or option.
        advice: what to do, or an empty string.
    """

    exit_code = EXIT_UNUSABLE

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.advice)

    def __str__(self) -> str:
        return f"{self.message}; {self.advice}" if self.advice else self.message


class UsageError(H2AError):
    """An option, an input or an output path that cannot be used."""


class ModelError(H2AError):
    """A model or its card is missing, broken, or does not fit."""


class RuntimeMissingError(H2AError):
    """MindSpore Lite, or the device asked for, is not available to this Python."""


class BusyError(H2AError):
    """Another run is working on the same output folder."""


class LedgerError(H2AError):
    """The ledger in the output folder cannot be used."""


class StorageError(H2AError):
    """The output volume is full or went away: the run stops, and the next one goes on from there."""

    exit_code = EXIT_SOME_FAILED


class ClusterError(H2AError):
    """The cluster went away, or no node can do the work: the run stops, and the next one goes on from there."""

    exit_code = EXIT_SOME_FAILED


class PhotoError(H2AError):
    """One photo cannot be converted; the run goes on without it.

    Args:
        kind: a short, stable word for scripts: ``empty``, ``not-an-image``, ``truncated``, ``corrupt``,
            ``too-large``, ``unreadable``, ``vanished``, ``changed``, ``unsupported``, ``output``,
            ``model``, ``no-face`` or ``internal``.
    """

    exit_code = EXIT_SOME_FAILED

    def __init__(self, kind: str, message: str, advice: str = "") -> None:
        super().__init__(message, advice)
        self.kind = kind

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.kind, self.message, self.advice)
