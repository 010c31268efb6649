"""Recipes: what `appliancectl image build` makes an image from (appliance-image(5)).

A recipe is written by whoever builds the image and runs nothing on the host: packages are unpacked,
never configured.
"""

from __future__ import annotations

import posixpath
import re

import yaml

from agent.config.common import check_absolute_path
from agent.config.document import Findings, Section, Value, read_document
from agent.config.manifest import check_image_name, check_role, check_vendor, read_promises
from agent.model.recipe import ROOT, ImageUser, Recipe, RecipeDirectory, RecipeFile, RecipeLink

DEFAULT_VENDOR = "local"
MAX_BYTES = 256 << 10

_SUITE = re.compile(r"[a-z][a-z0-9-]{0,31}")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9.+-]{1,100}")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
_LAYOUT = str.maketrans("", "", "\n\t")
_MODE = re.compile(r"0?[0-7]{3,4}")


def read_recipe(content: bytes, path: str) -> Recipe:
    """The recipe in `content`; ConfigurationError with everything that is wrong."""
    findings = Findings(path)
    if len(content) > MAX_BYTES:
        findings.add(None, f"larger than {MAX_BYTES >> 10} KiB")
        findings.raise_if_any()
    section = read_document(content, findings)
    findings.raise_if_any()
    recipe = _recipe(section, path)
    section.finish()
    findings.raise_if_any()
    return recipe


def _recipe(section: Section, path: str) -> Recipe:
    users = _users(section.section("users"))
    owners = frozenset({ROOT, *(user.name for user in users)})
    name = section.text("name", check=check_image_name)
    role = section.text("role", check=check_role)
    vendor = section.text("vendor", default=DEFAULT_VENDOR, check=check_vendor)
    promises = section.get("manifest", required=True)
    body = promises.section() if promises else Section(None, section.findings)
    manifest = read_promises(body, name=name, version="", vendor=vendor, role=role)
    body.finish()
    return Recipe(
        path=path,
        suite=section.text("suite", check=_check_suite),
        packages=_packages(section.get("packages", required=True)),
        manifest=manifest,
        include=_globs(section.get("include")),
        exclude=_globs(section.get("exclude")),
        users=users,
        directories=_directories(section.section("directories"), owners),
        files=_files(section.section("files"), owners),
        links=_links(section.section("links")),
    )


def _check_suite(text: str) -> str:
    return "" if _SUITE.fullmatch(text) else f"“{text}” is no suite such as trixie"


def _check_package(text: str) -> str:
    return "" if _PACKAGE.fullmatch(text) else f"“{text}” is no name of a Debian package"


def _packages(value: Value | None) -> tuple[str, ...]:
    if value is None:
        return ()
    packages = value.texts(check=_check_package)
    if value.is_list() and not packages:
        value.complain("at least one package is needed")
    return packages


def _globs(value: Value | None) -> tuple[str, ...]:
    return value.texts(check=check_absolute_path) if value else ()


def _paths(section: Section | None) -> list[tuple[str, Value]]:
    """The entries of a mapping whose keys are paths in the image."""
    if section is None:
        return []
    paths = section.keys()
    entries = [(path, value) for path in paths if (value := section.get(path))]
    for path, value in entries:
        if wrong := check_absolute_path(path) or (
            "" if path.isprintable() else "control characters are not allowed"
        ):
            value.complain(wrong)
    return entries


def _users(section: Section | None) -> tuple[ImageUser, ...]:
    if section is None:
        return ()
    users = []
    names = section.keys()
    for name in names:
        entry = section.section(name)
        if entry is None:
            continue
        if name == ROOT or not _USER.fullmatch(name):
            entry.complain(f"“{name}” cannot be the name of a user")
        uid = entry.get("uid", required=True)
        users.append(
            ImageUser(
                name=name,
                uid=uid.integer(minimum=1, maximum=59999) if uid else 1,
                home=entry.text("home", default="/nonexistent", check=check_absolute_path),
            )
        )
        entry.finish()
    numbers = [user.uid for user in users]
    for number in sorted({number for number in numbers if numbers.count(number) > 1}):
        section.complain(f"uid {number} is given twice")
    return tuple(users)


def _owner(section: Section, owners: frozenset[str]) -> str:
    def check(text: str) -> str:
        return "" if text in owners else f"“{text}” is not a user of this image"

    return section.text("owner", default=ROOT, check=check)


def _mode(section: Section, default: int) -> int:
    def check(text: str) -> str:
        return "" if _MODE.fullmatch(text) else f"“{text}” is no mode such as 0755"

    return int(section.text("mode", default=f"{default:o}", check=check) or "0", 8)


def _directories(section: Section | None, owners: frozenset[str]) -> tuple[RecipeDirectory, ...]:
    directories = []
    for path, value in _paths(section):
        entry = value.section()
        directories.append(RecipeDirectory(path, owner=_owner(entry, owners), mode=_mode(entry, 0o755)))
        entry.finish()
    return tuple(directories)


def _files(section: Section | None, owners: frozenset[str]) -> tuple[RecipeFile, ...]:
    files = []
    for path, value in _paths(section):
        entry = value.section()
        files.append(
            RecipeFile(
                path,
                text=_multiline(entry),
                owner=_owner(entry, owners),
                mode=_mode(entry, 0o644),
            )
        )
        entry.finish()
    return tuple(files)


def _multiline(section: Section) -> str:
    """File content: unlike every other text it has lines and tabs."""
    value = section.get("text", required=True)
    if value is None:
        return ""
    if not isinstance(value.node, yaml.ScalarNode):
        return value.text()
    text = str(value.node.value)
    if not text.translate(_LAYOUT).isprintable():
        value.complain("control characters are not allowed")
    return text


def _links(section: Section | None) -> tuple[RecipeLink, ...]:
    entries = [(path, value.text(check=_check_target)) for path, value in _paths(section)]
    return tuple(RecipeLink(path, target) for path, target in entries)


def _check_target(text: str) -> str:
    return (
        ""
        if text and posixpath.normpath(text) == text
        else f"“{text}” is no target of a link in its plain form"
    )
