"""The start file of a training job on ModelArts (Huawei Cloud); README.md beside it has the way from an empty bucket.

    start.py --data_url obs://BUCKET/h2a-batch/data/faces --train_url obs://BUCKET/h2a-batch/output --config smoke

fetches the data set, trains by `python -m train fit`, copies the run to train_url every few minutes, at the end and
when the job is stopped, and exports the models of both directions to train_url/models. Where train_url has a
checkpoint, the run goes on from it. This file itself is read by Python 3.7, so that older images say what they lack.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

HERE = os.path.dirname(os.path.realpath(__file__))
PACKAGES = ("numpy", "PIL", "tqdm", "mindspore", *(["tomli"] if sys.version_info < (3, 11) else []))


def main() -> int:
    if not (3, 10) <= sys.version_info[:2] <= (3, 12):
        return refuse("this image has Python {}.{}, and 3.10, 3.11 or 3.12 is needed".format(*sys.version_info))
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if "mindspore" in missing:
        return refuse("this image has no MindSpore; choose one that has 2.7 or later")
    if missing:
        return refuse(f"this image lacks {', '.join(missing)}: is pip-requirements.txt in the job's code directory?")
    sys.path[:0] = [HERE, os.path.dirname(os.path.dirname(HERE))]
    from job import main as work

    return work(sys.argv[1:])


def refuse(reason: str) -> int:
    print(f"modelarts: {reason}", file=sys.stderr, flush=True)
    return 2


if __name__ == "__main__":
    sys.exit(main())
