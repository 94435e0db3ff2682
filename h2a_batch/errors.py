"""The errors that h2a-batch raises on purpose. Each kind has an exit code and may carry a line of advice."""

from __future__ import annotations

from typing import Any

EXIT_OK = 0
EXIT_SOME_FAILED = 1
EXIT_UNUSABLE = 2
EXIT_INTERRUPTED = 130


class H2AError(Exception):
    """The base of all errors that a user can meet: it says what is wrong, in one line, and what to do about it.

    Args:
        message: says what is wrong and names the file or the option.
        advice: says what to do; may be empty.
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
    """An option, an input or an output path cannot be used."""


class ModelError(H2AError):
    """A model or its card is missing or broken, or the two do not fit together."""


class BrokenModelError(ModelError):
    """A model gave no picture for many photos in a row. The run stops; the photos stay as they are."""

    exit_code = EXIT_SOME_FAILED


class RuntimeMissingError(H2AError):
    """This Python lacks MindSpore Lite, or the machine lacks the device that was asked for."""


class BusyError(H2AError):
    """Another run works on the same output folder."""


class LedgerError(H2AError):
    """The ledger of the output folder cannot be used."""


class StorageError(H2AError):
    """The output volume is full or went away. The run stops; the next run continues where this one stopped."""

    exit_code = EXIT_SOME_FAILED


class ShortageError(H2AError):
    """The machine's memory ran short. The run stops; the next run continues where this one stopped."""

    exit_code = EXIT_SOME_FAILED


class ClusterError(H2AError):
    """The cluster went away, or none of its nodes can work. The run stops; the next run continues where it stopped."""

    exit_code = EXIT_SOME_FAILED


class StreamError(H2AError):
    """Standard output cannot be written. The run stops; the next run continues where this one stopped."""

    exit_code = EXIT_SOME_FAILED


class PhotoError(H2AError):
    """One photo cannot be converted. The run goes on without it.

    Args:
        kind: a short, stable word for scripts: ``empty``, ``not-an-image``, ``truncated``, ``corrupt``,
            ``too-large``, ``hostile``, ``unreadable``, ``vanished``, ``changed``, ``unsupported``, ``output``,
            ``model``, ``no-face`` or ``internal``.
        message: as for `H2AError`.
        advice: as for `H2AError`.
    """

    exit_code = EXIT_SOME_FAILED

    def __init__(self, kind: str, message: str, advice: str = "") -> None:
        super().__init__(message, advice)
        self.kind = kind

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.kind, self.message, self.advice)
