"""Which files of the packages become the image: those of the named packages, and the libraries they are
linked to. Pure.

A pattern is a shell glob over whole paths: `*` also matches slashes, and what matches a directory takes
all in it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from agent.image.elf import Elf, parse_elf
from agent.image.package import Package
from agent.image.tree import Kind, Node, Tree, merged, resolve
from agent.model.errors import ImageError

# What a host needs of a package and a single-purpose guest does not.
UNWANTED = (
    "/etc/NetworkManager",
    "/etc/X11",
    "/etc/apparmor.d",
    "/etc/bash_completion.d",
    "/etc/cron.*",
    "/etc/default",
    "/etc/dhcp",
    "/etc/dpkg",
    "/etc/init.d",
    "/etc/insserv*",
    "/etc/logrotate.d",
    "/etc/network",
    "/etc/ppp",
    "/etc/rc?.d",
    "/etc/resolvconf",
    "/etc/ufw",
    "/usr/include",
    "/usr/lib/NetworkManager",
    "/usr/lib/*.a",
    "/usr/lib/*.la",
    "/usr/lib/*/pkgconfig",
    "/usr/lib/modprobe.d",
    "/usr/lib/networkd-dispatcher",
    "/usr/lib/resolvconf",
    "/usr/lib/systemd",
    "/usr/lib/sysusers.d",
    "/usr/lib/tmpfiles.d",
    "/usr/lib/udev",
    "/usr/share/applications",
    "/usr/share/apport",
    "/usr/share/bash-completion",
    "/usr/share/bug",
    "/usr/share/doc",
    "/usr/share/doc-base",
    "/usr/share/fish",
    "/usr/share/info",
    "/usr/share/lintian",
    "/usr/share/locale",
    "/usr/share/man",
    "/usr/share/menu",
    "/usr/share/pixmaps",
    "/usr/share/pkgconfig",
    "/usr/share/vim",
    "/usr/share/zsh",
)

# The loader's built-in search path on Debian, ld.so(8).
_NO_ELF = Elf(interpreter="", needed=(), search=())
_LIBRARY_DIRECTORIES = ("/usr/lib/x86_64-linux-gnu", "/usr/lib")


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether a pattern matches the path or a directory it lies in."""
    chain = [path]
    while (parent := posixpath.dirname(chain[-1])) != "/":
        chain.append(parent)
    return any(fnmatchcase(link, merged(pattern)) for pattern in patterns for link in chain)


def select(
    packages: list[Package], named: tuple[str, ...], *, include: tuple[str, ...], exclude: tuple[str, ...]
) -> dict[str, Node]:
    """Files of the packages in `named` that are wanted, and what `include` takes from any package."""
    unwanted = (*UNWANTED, *exclude)
    return {
        path: node
        for package in packages
        for path, node in package.nodes.items()
        if node.kind is not Kind.DIRECTORY or not path.startswith("/usr/")
        if matches(path, include) or (package.name in named and path != "/" and not matches(path, unwanted))
    }


def libraries(tree: Tree, available: dict[str, Node]) -> dict[str, Node]:
    """What the programs in `tree` are linked to, from `available`: loader, libraries, and the links that
    name them.

    ImageError with everything that is missing.
    """
    nodes = {**available, **tree.nodes}
    found: dict[str, Node] = {}
    missing: list[str] = []
    waiting = [(path, node) for path, node in tree.files()]
    while waiting:
        path, node = waiting.pop()
        elf = parse_elf(node.content, path) or _NO_ELF
        for wanted in _wanted(elf):
            target = _find(wanted, elf.search, path, nodes)
            if target is None:
                missing.append(f"{path} needs {wanted}")
                continue
            for name in _chain(nodes, target):
                if name not in found and name not in tree.nodes:
                    found[name] = nodes[name]
                    waiting.append((name, nodes[name]))
    if missing:
        raise ImageError(
            f"Libraries are missing: {', '.join(sorted(set(missing)))}.",
            remedy="Name the package that has them in the recipe, or exclude what needs them.",
        )
    return found


def _wanted(elf: Elf) -> tuple[str, ...]:
    return (*elf.needed, elf.interpreter) if elf.interpreter else elf.needed


def _find(wanted: str, search: tuple[str, ...], path: str, nodes: dict[str, Node]) -> str | None:
    """The path by which the loader would open `wanted`."""
    if "/" in wanted:
        return wanted if resolve(nodes, wanted) else None
    origin = posixpath.dirname(path)
    own = [part.replace("$ORIGIN", origin).replace("${ORIGIN}", origin) for part in search]
    places = (posixpath.join(directory, wanted) for directory in (*own, *_LIBRARY_DIRECTORIES))
    return next((place for place in places if resolve(nodes, place)), None)


def _chain(nodes: dict[str, Node], path: str) -> Iterator[str]:
    """`path` and, where it is a link, what it leads to, one by one."""
    name: str | None = merged(path)
    while name and (node := nodes.get(name)) and node.kind is Kind.LINK:
        yield name
        name = merged(posixpath.join(posixpath.dirname(name), node.target))
    end = resolve(nodes, path)
    if end:
        yield end


def copyright_files(packages: Iterable[str], available: dict[str, Node]) -> dict[str, Node]:
    """The copyright notices of `packages`, which must go with their files; some are links to another
    package's."""
    documents = (f"/usr/share/doc/{package}/copyright" for package in packages)
    found = {path: end for path in documents if (end := resolve(available, path))}
    return {path: available[end] for path, end in found.items()}


def lacking_interpreters(tree: Tree) -> list[str]:
    """`/usr/bin/x needs /bin/sh`, for every script whose interpreter neither the image nor the runtime
    has."""
    return [
        f"{path} needs {interpreter}"
        for path, node in tree.files()
        if node.is_executable and (interpreter := _interpreter(node.content))
        if not interpreter.startswith("/run/appliance/bin/") and tree.resolve(interpreter) is None
    ]


def _interpreter(content: bytes) -> str:
    if not content.startswith(b"#!"):
        return ""
    words = content[2:256].partition(b"\n")[0].split()
    return words[0].decode(errors="replace") if words else ""
