"""Which Debian packages a recipe means, fetched from where this host gets its own.

mmdebstrap(1) makes a root directory of its own for apt, resolves and downloads there and runs no
maintainer script. The recipe's suite is taken from the sites in this host's apt configuration, with its
updates and security pockets, and signed by Debian's archive keys; what was fetched is kept in a cache
and checked against the archive's SHA-256 again.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.model.errors import HostError, ImageError, Problem
from agent.util.files import explain_full_disk
from agent.util.run import run
from agent.util.staging import staging_directory

ARCHITECTURE = "amd64"
_KEYRINGS = tuple(Path(f"/usr/share/keyrings/debian-archive-keyring.{suffix}") for suffix in ("pgp", "gpg"))
_POCKETS = ("", "-updates", "-security")
_ARCHIVES = "/var/cache/apt/archives"
_TIMEOUT_S = 1800.0
_REPEATED = re.compile("mmdebstrap|apt-get|apt download failed")


@dataclass(frozen=True, slots=True)
class Deb:
    """A package as apt resolved it."""

    file_name: str
    sha256: str


def cache_directory() -> Path:
    """Where fetched packages are kept, for the calling user."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if base:
        return Path(base) / "appliance" / "debs"
    return Path("/var/cache/appliance/debs") if os.geteuid() == 0 else Path.home() / ".cache/appliance/debs"


def host_sources(targets: str, suite: str, keyring: Path) -> list[str]:
    """Lines of sources.list(5) for `suite`, from lines `SITE|CODENAME|ORIGIN` about what this host uses.
    Pure."""
    rows = [line.split("|") for line in targets.splitlines() if line.count("|") == 2]
    pockets = {(_pocket(codename), site) for site, codename, origin in rows if origin == "Debian"}
    return [
        f"deb [signed-by={keyring}] {site} {suite}{pocket} main"
        for pocket, site in sorted(pockets)
        if pocket in _POCKETS
    ]


def _pocket(codename: str) -> str:
    """`bookworm-security` → `-security`."""
    _, dash, rest = codename.partition("-")
    return f"{dash}{rest}"


def _index_targets() -> str:
    return run(
        ["apt-get", "indextargets", "--format", "$(SITE)|$(CODENAME)|$(ORIGIN)", "Created-By: Packages"]
    ).decode()


def sources(suite: str) -> list[str]:
    """Lines of sources.list(5) for `suite`; HostError where this host has no Debian site or no keys."""
    keyring = next((path for path in _KEYRINGS if path.exists()), None)
    if keyring is None:
        raise _lacks("keys of the Debian archive", "apt-get install debian-archive-keyring")
    lines = host_sources(_index_targets(), suite, keyring)
    if not any(line.endswith(f" {suite} main") for line in lines):
        raise _lacks("Debian site in its apt configuration", "apt-get update")
    return lines


def _lacks(what: str, command: str) -> HostError:
    return HostError(f"This host has no {what}.", problem=Problem.NOT_SUPPORTED, remedy=f"Try `{command}`.")


def fetch(suite: str, packages: tuple[str, ...], cache: Path) -> list[Path]:
    """The .deb files of `packages` and all they depend on (without recommendations), in the cache,
    sorted."""
    with explain_full_disk("fetching packages"):
        cache.mkdir(parents=True, exist_ok=True)
        # Not in the cache itself, which is copied whole into the work directory.
        with staging_directory(cache.parent, "fetch") as work:
            listing = work / "listing"
            (work / "debs").mkdir()
            _run_mmdebstrap(suite, packages, cache, work)
            debs = [
                _parse_listing(line)
                for line in listing.read_text(encoding="utf-8").splitlines()
                if line[:1] == "'"
            ]
            return sorted(_keep(deb, work / "debs", cache) for deb in debs)


def _run_mmdebstrap(suite: str, packages: tuple[str, ...], cache: Path, work: Path) -> None:
    log = work / "log"
    try:
        run(
            [*_mmdebstrap(suite, packages, cache, work), f"--logfile={log}"],
            stdin=b"",
            timeout_s=_TIMEOUT_S,
            environment={"TMPDIR": str(work), **_proxies()},
        )
    except HostError as error:
        reason = _reason(log)
        if not reason or error.problem is not Problem.FAILED:
            raise
        if "No space left on device" in reason:
            raise HostError(
                f"No space left while fetching packages to {cache}.", problem=Problem.NO_SPACE
            ) from error
        raise HostError(f"Packages of {suite} cannot be fetched: {reason}.") from error


def _mmdebstrap(suite: str, packages: tuple[str, ...], cache: Path, work: Path) -> list[str]:
    quoted_debs = shlex.quote(str(work / "debs"))
    list_packages = (
        'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get install --yes -qq --print-uris'
        # An empty cache, so that everything is listed; the default would be MD5.
        " -oDir::Cache::archives=/nonexistent -oAcquire::ForceHash=SHA256 "
        f"{shlex.join(packages)} > {shlex.quote(str(work / 'listing'))}"
    )
    return [
        "mmdebstrap",
        "--variant=extract",
        f"--mode={'root' if os.geteuid() == 0 else 'chrootless'}",
        f"--architectures={ARCHITECTURE}",
        "--format=null",
        "--skip=extract,chroot/mount",
        f"--include={','.join(packages)}",
        f'--setup-hook=mkdir -p "$1{_ARCHIVES}"',
        f"--setup-hook=sync-in {shlex.quote(str(cache))} {_ARCHIVES}",
        f"--extract-hook={list_packages}",
        f"--extract-hook=sync-out {_ARCHIVES} {quoted_debs}",
        *(f"--aptopt={option}" for option in _apt_proxies()),
        "",
        "/dev/null",
        *sources(suite),
    ]


def _proxies() -> dict[str, str]:
    names = ("http_proxy", "https_proxy", "no_proxy")
    return {name: os.environ[name] for name in names if name in os.environ}


def _apt_proxies() -> Iterator[str]:
    """The host's own proxy settings: where there is a proxy there is often no other way out."""
    dump = run(
        ["apt-config", "dump", "--no-empty", "--format", '%F "%v";%n', "Acquire::http", "Acquire::https"]
    )
    return (line for line in dump.decode().splitlines() if "::proxy" in line.lower())


def _reason(log: Path) -> str:
    """What apt said was wrong, without the lines in which mmdebstrap repeats the command that failed."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    said = (line.removeprefix("E: ").strip().rstrip(".") for line in lines if line.startswith("E: "))
    return "; ".join(dict.fromkeys(line for line in said if not _REPEATED.search(line)))


def _parse_listing(line: str) -> Deb:
    """`'URI' FILE SIZE SHA256:HEX`, as `apt-get --print-uris` writes it."""
    fields = shlex.split(line)
    if len(fields) != 4 or not fields[3].startswith("SHA256:") or "/" in fields[1]:
        raise ImageError(f"apt named a package in an unknown way: {line}")
    return Deb(file_name=fields[1], sha256=fields[3].removeprefix("SHA256:"))


def _keep(deb: Deb, fetched: Path, cache: Path) -> Path:
    """Move a package into the cache; its time of last use is now, so that old ones can be aged away."""
    source, target = fetched / deb.file_name, cache / deb.file_name
    with source.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != deb.sha256:
        target.unlink(missing_ok=True)
        raise ImageError(f"{deb.file_name} is not what the archive promised.", remedy="Try again.")
    os.utime(source)
    shutil.move(source, target)
    return target
