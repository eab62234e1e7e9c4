# Sourced by the scripts: what they ask of the machine, and where they keep
# what they install. Never needs root and writes only below $cache (and, with
# cargo, in the target folder).
#
# Invariant: a folder in the cache is complete or has no stamp. An interrupted
# set-up is done again, and two set-ups never work on one folder at once.
# shellcheck shell=bash disable=SC2034 # some names are for the sourcing script

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
lib=$root/scripts/lib

say() { printf '%s\n' "$*" >&2; }

die() {
    say "$(basename "$0"): $*"
    exit 1
}

if [[ -z ${SWEEPD_CACHE:-} && -z ${XDG_CACHE_HOME:-} && -z ${HOME:-} ]]; then
    die "no HOME is set; name a folder for downloads in SWEEPD_CACHE"
fi
cache=$(realpath -m -- "${SWEEPD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sweepd}")
llama_cpp=$cache/llama-cpp

# --- what the machine must have ---------------------------------------------

lacking=() # what is missing, each with the way to get it

# require PART...: all that is missing at once, then the end.
require() {
    local part
    for part in "$@"; do "check_$part"; done
    ((${#lacking[@]} > 0)) || return 0
    say "$(basename "$0"): this machine lacks:"
    printf '  - %s\n' "${lacking[@]}" >&2
    exit 1
}

as_root() { if [[ $(id -u) == 0 ]]; then echo "$*"; else echo "sudo $*"; fi; }

# at_least FOUND WANTED, both as 1.2.3
at_least() { [[ $(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1) == "$2" ]]; }

check_rust() {
    local wanted found
    wanted=$(sed -n 's/^rust-version *= *"\([0-9.]*\)".*/\1/p' "$root/Cargo.toml")
    found=$(cargo --version 2>/dev/null | awk '{ print $2 }') || found=
    if [[ -n $found ]] && at_least "${found%%-*}" "$wanted"; then return; fi
    local why="cargo $wanted or newer (found: ${found:-none})" get
    if command -v rustup >/dev/null; then
        get="rustup default stable && rustup update stable"
    else
        get="install rustup, from https://rustup.rs or, from Debian 13 on, with: $(as_root apt-get install rustup);
    then: rustup default stable. (Debian's own package cargo is too old.)"
    fi
    lacking+=("$why
    $get")
}

check_cc() {
    if command -v cc >/dev/null; then return; fi
    lacking+=("cc, which links Rust programs
    $(as_root apt-get install build-essential)")
}

python= # an interpreter itself, never a shim

check_python() {
    local candidate found=none
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 python3.10; do
        python=$("$candidate" -I -c 'import sys; print(sys.executable)' 2>/dev/null) || continue
        if "$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then break; fi
        [[ $found != none ]] || found=$("$python" -I -c 'import platform; print(platform.python_version())')
        python=
    done
    if [[ -z $python ]]; then
        lacking+=("python3, 3.10 or newer (found: $found)
    $(as_root apt-get install python3 python3-venv)")
    elif ! "$python" -I -c 'import ensurepip, venv; ensurepip.version()' >/dev/null 2>&1; then
        lacking+=("the modules venv and ensurepip of $python
    $(as_root apt-get install python3-venv)")
    fi
}

# --- what the scripts install ------------------------------------------------

# Waits for the lock of the folder and keeps it until the (sub)shell ends.
lock_folder() {
    mkdir -p "$(dirname "$1")"
    exec 9>"$1.lock"
    flock --nonblock 9 && return
    say "waiting for another set-up of $1"
    flock 9
}

# make_venv FOLDER REQUIREMENTS [INSTALL]: a virtual environment with just these
# packages. INSTALL is with_pip, or with_uv for hundreds of large ones. The
# caller holds the folder's lock.
make_venv() {
    local folder=$1 requirements=$2 install=${3:-with_pip} stamp=$1/.complete wanted
    wanted=$("$python" -I -VV && echo "$python" && cat "$requirements")
    if [[ -f $stamp && $(<"$stamp") == "$wanted" ]] && "$folder/bin/python" -I -c '' 2>/dev/null; then
        return
    fi
    say "installing $(grep -o '^[a-z][a-z0-9_-]*' "$requirements" | sort -u | paste -sd' ') into $folder"
    rm -rf "$folder"
    "$python" -I -m venv "$folder"
    "$install" "$folder/bin/python" "$requirements" || die "could not install $requirements: see above"
    place "$stamp" 644 <<<"$wanted"
}

with_pip() {
    "$1" -I -m pip install --quiet --no-input --disable-pip-version-check --requirement "$2"
}

# What a package asks for in vain is replaced by the lines of NAME-overrides.txt.
# uv leaves modules uncompiled, and every start of an engine would compile
# thousands of them anew.
with_uv() {
    local overrides=${2%.txt}-overrides.txt with=()
    [[ ! -f $overrides ]] || with=(--overrides "$overrides")
    "$1" -I -m pip install --quiet --no-input --disable-pip-version-check uv
    "$(dirname "$1")/uv" pip install --quiet --python "$1" --requirement "$2" "${with[@]}" || return
    say "compiling its modules"
    env -u PYTHONDONTWRITEBYTECODE "$1" -I -m compileall -q -j 0 "$(dirname "$1")/../lib" >/dev/null 2>&1 || true
}

# place FILE MODE: standard input as the file's content, in one step.
place() {
    mkdir -p "$(dirname "$1")"
    cat >"$1.new"
    chmod "$2" "$1.new"
    mv -f "$1.new" "$1"
}
