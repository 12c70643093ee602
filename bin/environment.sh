# Makes what the programs beside this file need, on first use.  Sourced by them:
#
#   root=CHECKOUT; . "$root/bin/environment.sh"
#   find_python            sets $python to any Python >= 3.11; installs one if it may and must
#   need_environment run   sets $python to the checkout's own environment with the run-time dependencies
#   need_environment test  the same with what the tests need
#
# Also `sh bin/environment.sh run|test` prepares and ends.  All messages go to standard error.  The environment is
# CHECKOUT/.venv; .venv/ready-run and .venv/ready-test are written last and hold what they were made from, so a start
# that finds them does no work at all: no process is started to check.  Making it is under a lock (the kernel drops it
# with its holder) and in a temporary folder, renamed into place: two at once, or a kill at any point, do no harm.

say() {
    echo "corral: $*" >&2
}

fail() {
    say "$*"
    exit 125
}

find_python() {
    # A version in the name needs no process to check it.
    for python in "$root/.venv/bin/python" /usr/bin/python3.11 /usr/bin/python3.12 /usr/bin/python3.13 /usr/bin/python3.14; do
        [ -x "$python" ] && return 0
    done
    for python in /usr/bin/python3 python3.14 python3.13 python3.12 python3.11 python3; do
        python=$(command -v "$python") && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' && return 0
    done
    [ -n "${1-}" ] && fail "no Python 3.11 or newer was found"
    may_install || fail "no Python 3.11 or newer was found: install one (Debian: apt-get install python3)"
    install_packages python3-minimal python3
    find_python again
}

need_environment() {
    if [ -x "$root/.venv/bin/python" ] && [ -f "$root/.venv/ready-$1" ] &&
        [ ! "$root/pyproject.toml" -nt "$root/.venv/ready-$1" ] &&
        [ ! "$root/bin/packages-$1.apt" -nt "$root/.venv/ready-$1" ]; then
        python=$root/.venv/bin/python
        return 0
    fi
    make_environment "$1"
    python=$root/.venv/bin/python
}

may_install() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null
}

# The names in a list, without its comments.
packages_of() {
    sed 's/#.*//; s/[[:space:]]*$//; /^$/d' "$root/bin/packages-$1.apt"
}

missing_packages() {
    command -v dpkg-query >/dev/null || return 0
    for package in $(for list in "$@"; do packages_of "$list"; done); do
        case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) in
            installed) ;;
            *) echo "$package" ;;
        esac
    done
}

# Authorities that were put on the machine before the package ca-certificates was: installing that (python3-venv needs
# it) writes the list anew, from the package's and from this folder.
keep_authorities() {
    list=/etc/ssl/certs/ca-certificates.crt
    kept=/usr/local/share/ca-certificates/from-before.crt
    [ -s "$list" ] && [ ! -e "$kept" ] || return 0
    case $(dpkg-query -W -f '${db:Status-Status}' ca-certificates 2>/dev/null) in installed) return 0 ;; esac
    mkdir -p "${kept%/*}" && cp "$list" "$kept"
}

install_packages() {
    say "installing Debian packages:" "$@"
    keep_authorities
    # A machine that has never fetched the package lists has to, once.
    if ! apt_install "$@" >/dev/null 2>&1; then
        apt-get update -qq >&2 </dev/null || fail "cannot fetch the package lists (apt-get update failed)"
        output=$(apt_install "$@" 2>&1) || fail "cannot install $* (apt-get install failed):
$output"
    fi
}

# Some of the packages bring services (sshd, a registry), which nobody has asked to be started: Debian's own switch for
# that (policy-rc.d(8)) is thrown meanwhile, in a subshell, which puts it back whatever ends it.
apt_install() (
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        trap 'exit 1' HUP INT TERM
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" || exit 1
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" </dev/null
)

make_environment() {
    root=$(cd "$root" && pwd)
    exec 9>"$root/.venv.lock" || fail "cannot write to $root: the environment is made there"
    if ! flock -n 9; then
        say "waiting for another start that prepares $root/.venv"
        flock 9
    fi
    find_system_python
    # What the tests need contains what running needs, and once there it is kept.
    lists=run
    if [ "$1" = test ] || [ -f "$root/.venv/ready-test" ]; then lists="run test"; fi
    for list in $lists; do last=$list; done
    if [ "$(cat "$root/.venv/ready-$last" 2>/dev/null)" = "$(state_of $lists)" ]; then
        touch "$root"/.venv/ready-*
    else
        check_packages $lists
        build_environment $lists
    fi
    exec 9>&-
}

check_packages() {
    missing=$(missing_packages "$@")
    [ -n "$missing" ] || return 0
    if may_install; then
        install_packages $missing
    else
        say "these Debian packages are missing and only root can install them:" $missing
    fi
}

# Not the environment's own interpreter: it may be about to be replaced.
find_system_python() {
    for base_python in /usr/bin/python3.11 /usr/bin/python3.12 /usr/bin/python3.13 /usr/bin/python3.14; do
        [ -x "$base_python" ] && return 0
    done
    find_python
    base_python=$python
}

# What an environment is made from, as one line: the interpreter, the dependencies, the package lists.
state_of() {
    "$base_python" -c "$state_program" "$root" "$@"
}

state_program='
import hashlib, sys
text = sys.version.encode()
for name in ("pyproject.toml", *(f"bin/packages-{name}.apt" for name in sys.argv[2:])):
    text += open(f"{sys.argv[1]}/{name}", "rb").read()
print(hashlib.sha256(text).hexdigest())'

# The dependencies that pyproject.toml states, one a line; for the list "test" the extra of that name too.
dependencies_program='
import sys, tomllib
project = tomllib.load(open(f"{sys.argv[1]}/pyproject.toml", "rb"))["project"]
extras = [one for name in sys.argv[2:] for one in project["optional-dependencies"].get(name, [])]
print(*project["dependencies"], *extras, sep="\n")'

build_environment() {
    wanted=$("$base_python" -c "$dependencies_program" "$root" "$@") || fail "cannot read $root/pyproject.toml"
    "$base_python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$base_python cannot make environments: install its venv module (Debian: apt-get install python3-venv)"
    rm -rf "$root"/.venv.new.*
    new=$(mktemp -d "$root/.venv.new.XXXXXX") && chmod 755 "$new" || fail "cannot write to $root: the environment is made there"
    say "preparing $root/.venv:" $wanted
    "$base_python" -m venv "$new" >&2 || fail "cannot make an environment with $base_python"
    printf '%s\n' "$wanted" >"$new/requirements.txt"
    "$new/bin/python" -m pip install -q --disable-pip-version-check --no-input -r "$new/requirements.txt" >&2 ||
        fail "cannot install the dependencies (pip failed; PIP_INDEX_URL and pip.conf apply)"
    # Scripts name their interpreter by path; from now on that is the final one.
    grep -rlI "$new" "$new/bin" "$new/pyvenv.cfg" | xargs -r sed -i "s|$new|$root/.venv|g"
    state_of run >"$new/ready-run"
    if [ "$*" != run ]; then state_of "$@" >"$new/ready-test"; fi
    if [ -e "$root/.venv" ]; then mv "$root/.venv" "$new.old"; fi
    mv "$new" "$root/.venv"
    rm -rf "$new.old"
}

case $0 in
    */environment.sh)
        root=$(cd "$(dirname "$0")/.." && pwd)
        case ${1-} in
            run | test) need_environment "$1" ;;
            *) fail "usage: sh bin/environment.sh run|test" ;;
        esac
        ;;
esac
