"""The pool of generated pictures, which discriminators see in place of the newest ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


class ImagePool:
    """The history of generated images (section 4; Shrivastava et al., arXiv 1612.07828), `size` deep.

    Until it is full it keeps and returns what comes; then each image is, with probability 1/2, exchanged for a random
    older one. Size 0 returns everything as it comes.
    """

    def __init__(self, size: int = 50) -> None:
        self.size = size
        self.images: list[Array] = []

    def query(self, batch: Array, random: np.random.Generator) -> Array:
        """(N, 3, H, W) -> the same shape, for the discriminator."""
        result = []
        for image in batch:
            if len(self.images) < self.size:
                self.images.append(image.copy())
            elif self.size and random.random() < 0.5:
                place = int(random.integers(self.size))
                image, self.images[place] = self.images[place], image.copy()
            result.append(image)
        return np.stack(result)
