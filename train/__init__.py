"""Training and export of the generators that `h2a_batch` runs: MindSpore in, a MINDIR and its card out."""
