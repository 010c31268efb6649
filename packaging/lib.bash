# shellcheck shell=bash
# What the build and test entry points share: messages, the cache, apt, and commands inside a Debian tree.
# Sourced, never run. Everything for people goes to standard error; standard output belongs to the caller.

# A failure inside $(...) ends that too.
shopt -s inherit_errexit
umask 022
export LC_ALL=C.UTF-8

# The compiler, dpkg and apt must be Debian's, whatever else (pyenv, conda, npm) a login shell put in front.
PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/bin
export PATH

# shellcheck disable=SC2034 # read by the scripts that source this file
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${APPLIANCE_CACHE:-/var/cache/appliance-build}
debian_keyring=/usr/share/keyrings/debian-archive-keyring.gpg

say() { printf '%s==>%s %s\n' "${colour_on-}" "${colour_off-}" "$*" >&2; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

if [[ -t 2 ]]; then
    colour_on=$'\e[1;34m' colour_off=$'\e[0m'
fi

# seconds_since START: START is a value of $EPOCHREALTIME.
seconds_since() { awk -v from="$1" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.2f", to - from }'; }

# timed TEXT COMMAND...: runs the command between two messages, the second with the time it took.
timed() {
    local text=$1 from=$EPOCHREALTIME
    shift
    say "$text …"
    "$@"
    say "$text: $(seconds_since "$from") s"
}

# as_root SCRIPT ARGUMENT...: goes on as root; sudo may be missing where root is already the user.
as_root() {
    (( EUID == 0 )) && return
    command -v sudo >/dev/null || die "must run as root (there is no sudo to ask)"
    exec sudo --preserve-env=APPLIANCE_CACHE,CI,TERM -- "$@"
}

# need COMMAND=PACKAGE...: installs with apt what the machine lacks. A path stands for a file, a word for a command.
need() {
    local pair missing=()
    for pair; do
        case $pair in
            /*) [[ -e ${pair%%=*} ]] ;;
            *) command -v "${pair%%=*}" >/dev/null ;;
        esac || missing+=("${pair#*=}")
    done
    (( ${#missing[@]} == 0 )) || install_packages "${missing[@]}"
}

# need_packages PACKAGE...: the same for packages without a telling command.
need_packages() {
    local package missing=()
    for package; do
        [[ $(dpkg-query --showformat '${db:Status-Status}' --show "$package" 2>/dev/null) == installed ]] \
            || missing+=("$package")
    done
    (( ${#missing[@]} == 0 )) || install_packages "${missing[@]}"
}

install_packages() {
    say "installing with apt: $*"
    # Indexes of a fresh machine are missing or old enough to name files that have left the archive.
    apt_locked update -qq >&2
    local log
    log=$(mktemp)
    if ! DEBIAN_FRONTEND=noninteractive apt_locked install -qq --yes --no-install-recommends "$@" >"$log" 2>&1; then
        cat "$log" >&2
        die "apt could not install: $*"
    fi
    rm "$log"
}

# Another apt (an unattended upgrade, a second run of ours) is waited for instead of failing on its lock.
apt_locked() { apt-get -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@"; }

# locked NAME COMMAND...: at most one holder of NAME at a time; the lock goes with the process.
locked() {
    local name=$1 descriptor
    shift
    mkdir -p "$cache/locks"
    exec {descriptor}>"$cache/locks/$name"
    flock --nonblock "$descriptor" || { say "waiting for another run that holds $name"; flock "$descriptor"; }
    # The command must not inherit the descriptor: a daemon it leaves behind would hold the lock for ever.
    "$@" {descriptor}>&-
    exec {descriptor}>&-
}

# short_hash: reads standard input, prints enough of its SHA-256 for a cache key.
short_hash() { sha256sum | cut -c1-20; }

# files_hash ROOT PATH...: a digest over names, modes and contents of the files below ROOT/PATH.
files_hash() {
    local root=$1
    shift
    (cd "$root" && list_files "$@" | xargs --null --no-run-if-empty sh -c 'stat --format="%a %n" -- "$@"; sha256sum -- "$@"' sh) \
        | short_hash
}

# list_files PATH...: NUL-terminated, sorted. Not `git ls-files`: a checkout may come without git or belong to
# somebody else than root, and what git ignores here is only what Python and the linters leave behind.
list_files() {
    local path existing=()
    for path; do [[ -e $path ]] && existing+=("$path"); done
    (( ${#existing[@]} == 0 )) && return
    find "${existing[@]}" \( -name __pycache__ -o -name '.*_cache' \) -prune -o \( -type f -o -type l \) -print0 | sort --zero-terminated
}

# debian_site: the archive this machine's own apt uses.
debian_site() {
    local site
    site=$(apt_index_site Debian)
    if [[ -z $site ]]; then # a machine on which apt never ran lists no indexes yet
        apt_locked update -qq >&2
        site=$(apt_index_site Debian)
    fi
    [[ -n $site ]] || die "apt on this machine has no Debian archive configured"
    printf '%s\n' "$site"
}

# security_site: the same for security updates; empty where none is configured.
security_site() { apt_index_site Debian-Security; }

# The label tells the two archives apart.
apt_index_site() {
    # shellcheck disable=SC2016 # apt expands these
    apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(SITE)' 'Created-By: Packages' \
        | awk -F'|' -v label="$1" '$1 == "Debian" && $2 == label { print $3; exit }'
}

# apt_sources SUITE...: one-line sources for main of these suites, with security updates where the machine has them.
apt_sources() {
    local suite site security
    site=$(debian_site)
    security=$(security_site)
    for suite; do
        printf 'deb [signed-by=%s] %s %s main\n' "$debian_keyring" "$site" "$suite"
        if [[ -n $security && $suite != *-* ]]; then
            printf 'deb [signed-by=%s] %s %s-security main\n' "$debian_keyring" "$security" "$suite"
        fi
    done
}

# control_packages FIELD [PACKAGE]: the packages that FIELD of debian/control names, in the source paragraph or in
# PACKAGE's: first alternatives, without versions, substitution variables and packages of our own.
control_packages() {
    awk -v field="$1:" -v paragraph="${2-}" '
        /^(Source|Package):/ { wanted = paragraph == "" ? $1 == "Source:" : $2 == paragraph; if ($1 == "Package:") own[$2] = 1 }
        /^[^ \t#]/ { in_field = wanted && $1 == field; if (in_field) sub(/^[^:]*:/, "") }
        in_field && !/^#/ { text = text $0 }
        END {
            n = split(text, entries, ",")
            for (i = 1; i <= n; i++) {
                sub(/\|.*/, "", entries[i]); gsub(/\([^)]*\)|\[[^]]*\]|<[^>]*>|[ \t]/, "", entries[i])
                if (entries[i] != "" && entries[i] !~ /\$\{/ && !(entries[i] in own)) print entries[i]
            }
        }' "$project/packaging/debian/control"
}

# build_tree: the tree in which everything for distribution is compiled: that of the oldest Debian it has to run on.
build_tree() {
    local build_depends
    mapfile -t build_depends < <(control_packages Build-Depends)
    "$project/packaging/tree" bookworm build-essential bc bison flex lintian "${build_depends[@]}"
}

# in_tree TREE [NSPAWN OPTION]... -- COMMAND...: runs a command in a read-only Debian tree, without network. /tmp and
# /mnt are fresh; what the command needs and what it makes is bound to places below /mnt by the caller.
in_tree() {
    local tree=$1 options=()
    shift
    while [[ $1 != -- ]]; do options+=("$1"); shift; done
    shift
    need systemd-nspawn=systemd-container
    # There may be no systemd to register with or to get a scope from. nspawn's system call filter would only cost time.
    SYSTEMD_SECCOMP=0 systemd-nspawn --quiet --directory="$tree" --read-only --tmpfs=/tmp:mode=1777 --tmpfs=/mnt \
        --private-network --register=no --keep-unit --as-pid2 --pipe --setenv=LC_ALL=C.UTF-8 --resolv-conf=off \
        --timezone=off --link-journal=no "${options[@]}" -- "$@"
}
