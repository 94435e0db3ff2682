"""Unpacks what is kept of the cp37 wheel, and packs the wheel for the running interpreter."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

from wheel_common import LITE_VERSION, BuildError, say

LIBRARIES = "mindspore_lite/lib/"
# What the wheel leaves out of the original's lib folder, and why. All else is needed on CPU (tried: without
# any one of the others the import or build_from_file fails) or on Ascend (the next table).
LEFT_OUT = {
    "libtransformer-shared.so": "121 MB, CUDA kernels of the TensorRT plugin",
    "libtensorrt_plugin_python.so": "16 MB, NVIDIA GPUs through TensorRT 8, CUDA 11; needs the above",
    "liblite-unified-executor.so": "11 MB, no other library names it",
    "_c_lite_wrapper.cpython-37m-x86_64-linux-gnu.so": "0.6 MB, CPython 3.7's module, which is replaced",
    "libdvpp_utils.so": "0.5 MB, needs libpython3.7 and minddata, which are not in the wheel",
}
# Kept although CPU never opens them: 12 MB packed, and an x86_64 Ascend host needs them to load a MINDIR.
KEPT_FOR_ASCEND = {
    "libascend_kernel_plugin_python.so": "opened when the context's target is Ascend: runs the model on it",
    "libascend_pass_plugin.so": "opened by the converter at load for Ascend: graph passes, MINDIR to OM",
    "libmslite_shared_lib.so": "needed by the line above",
}
METADATA = """\
Metadata-Version: 2.1
Name: mindspore-lite
Version: {version}
Summary: MindSpore Lite {lite}, inference only, rebuilt for this interpreter
Home-page: https://www.mindspore.cn/lite
Author: The MindSpore Authors
License: Apache 2.0
Classifier: License :: OSI Approved :: Apache Software License
Classifier: Operating System :: POSIX :: Linux
Classifier: Programming Language :: Python :: {python}
Requires-Python: =={python}.*
Requires-Dist: numpy>=1.17.0
Description-Content-Type: text/markdown

Made by h2a-batch from PyPI's mindspore-lite {lite} (built for CPython 3.7) on the machine it runs on; not an
official package. Changed: `_c_lite_wrapper` was rebuilt for this interpreter from h2a-batch's own source, its
converter as `_c_lite_converter`. Left out of `mindspore_lite/lib`: {left_out}. All else is as published by the
MindSpore authors under the Apache License 2.0 (https://www.apache.org/licenses/LICENSE-2.0).
"""


def wheel_tag() -> str:
    """This interpreter's compatibility tag; not `manylinux`, as it is built against this machine's libc."""
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    abi = f"cp{str(sysconfig.get_config_var('SOABI')).split('-')[1]}"
    return f"{python}-{abi}-linux_x86_64"


def wheel_name(version: str) -> str:
    """The wheel's file name for this interpreter."""
    return f"mindspore_lite-{version}-{wheel_tag()}.whl"


def unpack(original: Path, folder: Path) -> None:
    """Unpack the kept files of the cp37 wheel; raises BuildError where the wheel has not what it should."""
    say("unpacking the runtime")
    with zipfile.ZipFile(original) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
        missing = {*LEFT_OUT, *KEPT_FOR_ASCEND} - {name.removeprefix(LIBRARIES) for name in names}
        if missing:
            raise BuildError(f"{original} is not the expected wheel: it has no {', '.join(sorted(missing))}")
        for name in names:
            if name.removeprefix(LIBRARIES) not in LEFT_OUT:
                archive.extract(name, folder)


def check_loads(module: Path) -> None:
    """Load the new module in a fresh interpreter; raises BuildError, with the reason, if that fails."""
    code = (
        "import importlib.util as u, sys; s = u.spec_from_file_location(sys.argv[1], sys.argv[2]); "
        "m = u.module_from_spec(s); getattr(m, 'ModelBind', m.ConverterBind)()"
    )
    command = [sys.executable, "-c", code, module.name.partition(".")[0], str(module)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace")
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise BuildError(f"the rebuilt module does not load: {reason} (report this with `g++ --version`)")


def pack(folder: Path, version: str, target: Path) -> None:
    """Write the wheel: the files of `folder`, then METADATA, WHEEL, top_level.txt and RECORD.

    Args:
        folder: holds `mindspore_lite/`.
        version: the wheel's version.
        target: the wheel to write.
    """
    say("packing the wheel")
    info = f"mindspore_lite-{version}.dist-info"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    left_out = ", ".join(sorted(LEFT_OUT))
    texts = {
        "METADATA": METADATA.format(version=version, lite=LITE_VERSION, python=python, left_out=left_out),
        "WHEEL": f"Wheel-Version: 1.0\nGenerator: h2a-batch\nRoot-Is-Purelib: false\nTag: {wheel_tag()}\n",
        "top_level.txt": "mindspore_lite\n",
    }
    record: list[tuple[str, str, str]] = []
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = path.relative_to(folder).as_posix()
            record.append(_add(archive, name, path.read_bytes(), executable=".so" in path.name))
        for name, text in texts.items():
            record.append(_add(archive, f"{info}/{name}", text.encode()))
        record.append((f"{info}/RECORD", "", ""))
        lines = io.StringIO()
        csv.writer(lines, lineterminator="\n").writerows(record)
        _add(archive, f"{info}/RECORD", lines.getvalue().encode())


def _add(archive: zipfile.ZipFile, name: str, data: bytes, executable: bool = False) -> tuple[str, str, str]:
    entry = zipfile.ZipInfo(name)  # a fixed date: the same input gives the same archive
    entry.external_attr = (0o100755 if executable else 0o100644) << 16
    archive.writestr(entry, data, zipfile.ZIP_DEFLATED, compresslevel=1)  # 120 MB, not 109, in a third of the time
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return name, f"sha256={digest}", str(len(data))
