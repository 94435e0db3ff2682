"""The commands of `python -m train`, one module each. They import MindSpore in `run`, so that --help is quick."""
