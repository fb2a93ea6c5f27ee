# Sourced by the other scripts. Makes the environment and installs the package, once for each state
# of its sources, and leaves the interpreter's path in $python.
#
#   CGADV_VENV    where the environment is made (.venv in the project)
#   CGADV_PYTHON  an interpreter that has everything already; nothing is installed then

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${CGADV_VENV:-$root/.venv}

fail() {
    echo "$(basename "$0"): $1" >&2
    exit 1
}

find_python() {
    local name
    for name in python3 python3.13 python3.12 python3.11 python3.10; do
        if "$name" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
            >/dev/null 2>&1; then
            echo "$name"
            return
        fi
    done
    fail "found no Python 3.10 to 3.13, expected one as python3 or python3.10 … python3.13"
}

# Gigabytes that are free where a folder is to be.
room() {
    df -Pk "$(dirname "$1")" | awk 'NR == 2 { print int($4 / 1048576) }'
}

digest() {
    (cd "$root" && find "$@" -type f ! -path '*/__pycache__/*' ! -path '*/_lib/*' -print0 |
        LC_ALL=C sort -z | xargs -0 cat) | "$python" -c \
        'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'
}

# Commands that are started at once make the environment one after another.
locked() {
    if command -v flock >/dev/null; then
        (
            flock 9
            "$@"
        ) 9>"$venv.lock"
    else
        "$@"
    fi
}

# install STAMP DIGEST PIP-ARGUMENTS…: unless that was done for the same digest.
install() {
    locked install_alone "$@"
}

install_alone() {
    local stamp=$venv/$1 wanted=$2
    shift 2
    [ "$(cat "$stamp" 2>/dev/null || true)" = "$wanted" ] && return
    "$python" -m pip install -qq --disable-pip-version-check "$@" ||
        fail "installation failed; see the message of pip above, and run this again"
    echo "$wanted" >"$stamp"
}

environment() {
    "$python" -m pip --version >/dev/null 2>&1 && return
    local found
    found=$(find_python)
    echo "making the environment $venv with $("$found" --version)"
    # Where the system's Python comes without ensurepip, its own pip puts pip into the environment.
    "$found" -m venv "$venv" 2>/dev/null || {
        "$found" -m venv --without-pip "$venv" &&
            "$found" -m pip --python "$python" install -qq pip
    } || fail "can't make an environment with $found: install its venv module (python3-venv)"
}

if [ -n "${CGADV_PYTHON:-}" ]; then
    python=$CGADV_PYTHON
else
    python=$venv/bin/python
    mkdir -p "$(dirname "$venv")"
    locked environment
    command -v c++ g++ clang++ >/dev/null ||
        echo "found no C++ compiler: without the compiled kernels training is far slower" >&2
    requirements=$(digest scripts/requirements.txt)
    if [ ! -e "$venv/requirements.stamp" ]; then
        free=$(room "$venv")
        # What is installed, and beside it the files that pip fetches and unpacks.
        [ "$free" -ge 11 ] ||
            fail "found $free GB free for $venv, expected 11 or more: make room, or set CGADV_VENV to another place"
    fi
    [ "$(cat "$venv/requirements.stamp" 2>/dev/null || true)" = "$requirements" ] ||
        echo "installing torch, OpenMM and what else is needed (about 5 GB, some minutes)"
    install requirements.stamp "$requirements" -r "$root/scripts/requirements.txt"
    sources=$(digest pyproject.toml setup.py CMakeLists.txt openmm_cgadv)
    [ "$(cat "$venv/package.stamp" 2>/dev/null || true)" = "$sources" ] ||
        echo "building and installing the package"
    install package.stamp "$sources" --no-build-isolation "$root"
fi
