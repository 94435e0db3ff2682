"""The generator: the model of a MINDIR file, which MindSpore Lite runs on one device."""

from __future__ import annotations

import os
import platform
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from h2a_batch.errors import ModelError, RuntimeMissingError
from h2a_batch.inference.card import Card, card_from_shape, card_of, find_model
from h2a_batch.inference.optimised import load
from h2a_batch.inference.weights import check_weights

DEFAULT_MODEL = "anime-256"


class Generator:
    """A generator that turns human faces into anime faces, run by MindSpore Lite.

    Args:
        model: a name in ``models/`` or the path of a ``.mindir`` file, with or without a card beside it.
        device: ``cpu``, ``ascend``, ``ascend:N`` or ``auto`` (Ascend where there is one, else CPU).
        threads: CPU threads for one image. Several one-thread generators are faster than one with many threads.
        batch_size: images in one call of the model. On a CPU 1 is best; on Ascend larger batches are.

    Raises:
        ModelError: the model is missing or broken, has weights that are no numbers, or does not fit its card.
        RuntimeMissingError: MindSpore Lite or the device is missing.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = DEFAULT_MODEL,
        *,
        device: str = "auto",
        threads: int = 1,
        batch_size: int = 1,
    ) -> None:
        path = find_model(model)
        card = card_of(path)
        self.device = resolve_device(device)
        self.threads = threads
        self.batch_size = batch_size
        self._lite = load_runtime()
        self._lock = threading.Lock()
        check_weights(path)
        self._model = self._build(path)
        self._inputs = self._model.get_inputs()
        if len(self._inputs) != 1:
            raise ModelError(f"{path}: it takes {len(self._inputs)} inputs", "a generator takes one, a batch of images")
        self.card: Card = self._fit_card(path, card)
        self._probe()

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the generator on a batch.

        Args:
            batch: float32 of shape ``card.input.shape(n)``, in the card's value range; any n from 1.

        Returns:
            float32 of shape ``card.output.shape(n)``, in the range of the card's output.

        Raises:
            ModelError: MindSpore Lite failed, or its answer has numbers that are not finite.
            ValueError: the batch has another shape than the model takes.
        """
        if batch.ndim != 4 or len(batch) == 0 or batch.shape != self.card.input.shape(len(batch)):
            raise ValueError(
                f"expected a batch of shape {self.card.input.shape(max(1, len(batch)))}, got {batch.shape}"
            )
        with self._lock:
            parts = [self._predict(batch[i : i + self.batch_size]) for i in range(0, len(batch), self.batch_size)]
        result = parts[0] if len(parts) == 1 else np.concatenate(parts)
        self._check_finite(result)
        return result

    def paint(self, images: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        """Run the generator on pixels.

        Args:
            images: uint8 RGB of shape (height, width, 3), in the size of the card's input.

        Returns:
            uint8 RGB of shape (height, width, 3), in the size of the card's output, one for each image.

        Raises:
            ModelError: as for `run`.
        """
        return self.card.output.to_images(self.run(self.card.input.to_tensor(images)))

    def _check_finite(self, values: NDArray[np.float32]) -> None:
        """Raise ModelError where an answer of the model has numbers that are not finite."""
        if not np.isfinite(values).all():
            raise ModelError(
                f"{self.card.path}: the generator gave numbers that are not finite", "train or export it again"
            )

    def _predict(self, part: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the model on at most `batch_size` images."""
        count = len(part)
        if count < self.batch_size:  # fill the batch: a resize would make Ascend compile the graph again
            part = np.concatenate([part, np.repeat(part[-1:], self.batch_size - count, axis=0)])
        try:
            self._inputs[0].set_data_from_numpy(np.ascontiguousarray(part, dtype=np.float32))
            output = self._model.predict(self._inputs)[0].get_data_to_numpy()
        except RuntimeError as error:
            raise ModelError(f"{self.card.path}: MindSpore Lite failed: {one_line(error)}") from error
        values: NDArray[np.float32] = np.asarray(output, dtype=np.float32)
        return values[:count]

    def _probe(self) -> None:
        """Run once on gray: this finds a model that does not fit before any photo, and speeds up the first photo."""
        pixels = self.card.input
        gray = np.full((pixels.height, pixels.width, 3), 128, np.uint8)
        answer = self._predict(pixels.to_tensor([gray] * self.batch_size))
        shape = tuple(answer.shape)
        if len(shape) != 4 or shape[0] != self.batch_size:
            raise ModelError(f"{self.card.path}: it gives {shape} for {self.batch_size} images", "use --batch-size 1")
        wanted = self.card.output.shape(self.batch_size)
        if not self.card.facts and len(shape) == 4 and shape != wanted:  # only the graph knows its output
            self.card = replace(self.card, output=card_from_shape(self.card.path, shape).output)
        elif shape != wanted:
            raise ModelError(
                f"{self.card.path}: it gives {shape}, its card says {wanted}",
                "the two do not belong together",
            )
        self._check_finite(answer)

    def _build(self, path: Path) -> Any:
        """Load the model on the device; raise ModelError if that fails."""
        lite = self._lite
        context = lite.Context()
        kind, _, index = self.device.partition(":")
        context.target = [kind]
        if kind == "ascend":
            context.ascend.device_id = int(index or 0)
        context.cpu.thread_num = self.threads
        context.cpu.inter_op_parallel_num = 1
        context.cpu.thread_affinity_mode = 0  # bound threads fight with the decode and encode pools
        try:
            return load(lite, path, context)
        except RuntimeError as error:
            advice = "" if kind == "cpu" else f"check that CANN and {self.device} are usable, or use --device cpu"
            raise ModelError(f"{path}: MindSpore Lite cannot load it: {one_line(error)}", advice) from error

    def _fit_card(self, path: Path, card: Card | None) -> Card:
        """Set the batch size, and check that graph and card agree on the input's shape.

        Raises:
            ModelError: they do not agree, or the graph cannot take such batches.
        """
        shape = list(self._inputs[0].shape)
        card = card or card_from_shape(path, shape)
        wanted = list(card.input.shape(self.batch_size))
        if len(shape) != 4 or any(have not in (-1, want) for have, want in zip(shape[1:], wanted[1:], strict=True)):
            raise ModelError(
                f"{path}: the graph takes {shape}, its card says {wanted}", "the two do not belong together"
            )
        if shape != wanted:
            try:
                self._model.resize(self._inputs, [wanted])
                self._inputs = self._model.get_inputs()
            except RuntimeError as error:
                raise ModelError(
                    f"{path}: it cannot run batches of {self.batch_size}: {one_line(error)}",
                    "use --batch-size 1",
                ) from error
        return card


def resolve_device(device: str) -> str:
    """Return the device for which ``auto`` stands here; return any other name unchanged."""
    if device != "auto":
        return device
    return "ascend:0" if Path("/dev/davinci_manager").exists() else "cpu"


def load_runtime() -> Any:
    """Return the package `mindspore_lite`; its log stays silent unless ``GLOG_v`` says otherwise.

    Raises:
        RuntimeMissingError: this Python lacks the package, or cannot load it.
    """
    os.environ.setdefault("GLOG_v", "4")  # the library reads it once, when it loads
    try:
        import mindspore_lite
    except ImportError as error:
        here = f"CPython {platform.python_version()} on {platform.system()} {platform.machine()}"
        why = "is not installed" if isinstance(error, ModuleNotFoundError) else f"cannot be loaded ({one_line(error)})"
        raise RuntimeMissingError(
            f"MindSpore Lite {why} for {here}",
            "on x86-64 Linux with CPython 3.10 to 3.12 run scripts/h2a-batch once, it builds and installs it; "
            "elsewhere, and for Ascend, install Huawei's mindspore_lite wheel for your platform",
        ) from error
    return mindspore_lite


def one_line(error: BaseException) -> str:
    """Return an exception's text without its line breaks, at most 200 characters."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:197] + "..."
