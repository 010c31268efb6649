"""Recipes: what an image is built from."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agent.config.recipe import read_recipe
from agent.model.errors import ConfigurationError
from agent.model.image import Service
from agent.model.recipe import ImageUser, Recipe, RecipeDirectory, RecipeFile, RecipeLink
from tests.unit.config.strategies import values

SHIPPED = sorted((Path(__file__).parents[3] / "conf/images").glob("*.yaml"))
LEAST = """\
name: dns-nsd
role: dns-authoritative/1
suite: trixie
packages: [nsd]
manifest: {service: {exec: [/usr/sbin/nsd, -d]}}
"""


def read(text: str) -> Recipe:
    return read_recipe(text.encode(), "dns-nsd.yaml")


def findings(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        read(text)
    return [str(finding) for finding in caught.value.findings]


def test_the_least_a_recipe_must_say() -> None:
    recipe = read(LEAST)
    assert (recipe.name, recipe.suite, recipe.packages) == ("dns-nsd", "trixie", ("nsd",))
    assert recipe.manifest.service == Service(exec=("/usr/sbin/nsd", "-d"))
    assert (recipe.manifest.vendor, recipe.manifest.version) == ("local", "")


def test_everything_a_recipe_can_say() -> None:
    recipe = read(
        LEAST
        + """\
vendor: example.org
include: [/etc/services]
exclude: [/usr/share/*, /etc/nsd]
users: {nsd: {uid: 101, home: /var/lib/nsd}, other: {uid: 102}}
directories: {/var/lib/nsd: {owner: nsd, mode: 0750}, /srv: {}}
files:
  /etc/motd: {text: "two\\nlines\\n", owner: nsd, mode: 0600}
links: {/etc/mtab: ../proc/self/mounts}
"""
    )
    assert recipe.manifest.vendor == "example.org"
    assert (recipe.include, recipe.exclude) == (("/etc/services",), ("/usr/share/*", "/etc/nsd"))
    assert recipe.users == (ImageUser("nsd", 101, "/var/lib/nsd"), ImageUser("other", 102))
    assert recipe.directories == (RecipeDirectory("/var/lib/nsd", "nsd", 0o750), RecipeDirectory("/srv"))
    assert recipe.files == (RecipeFile("/etc/motd", "two\nlines\n", "nsd", 0o600),)
    assert recipe.links == (RecipeLink("/etc/mtab", "../proc/self/mounts"),)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.stem))
def test_shipped_recipes_are_valid(path: Path) -> None:
    assert read_recipe(path.read_bytes(), str(path)).name == path.stem


def test_recipes_are_shipped() -> None:
    names = {path.stem for path in SHIPPED}
    assert names >= {"dhcp-dnsmasq", "dns-knot", "dns-nsd", "web-lighttpd", "web-nginx"}


@pytest.mark.parametrize(
    "more",
    [
        "unheard-of: 1",
        "include: [etc/services]",
        "exclude: [/../*]",
        "users: {root: {uid: 1}}",
        "users: {a b: {uid: 1}}",
        "users: {a: {}}",
        "users: {a: {uid: 0}}",
        "users: {a: {uid: 5}, b: {uid: 5}}",
        "directories: {/srv: {owner: nobody-knows}}",
        "directories: {/srv: {mode: 0999}}",
        "directories: {srv: {}}",
        "directories: {/a/../b: {}}",
        "files: {/etc/motd: {}}",
        "files: {/etc/motd: {text: [a]}}",
        'files: {/etc/motd: {text: "\\0"}}',
        "links: {/a: ../../b/..}",
        'links: {/a: ""}',
    ],
)
def test_what_is_refused(more: str) -> None:
    assert findings(f"{LEAST}{more}\n")


@pytest.mark.parametrize("key", ["name", "role", "suite", "packages", "manifest"])
def test_what_is_missing_is_named(key: str) -> None:
    content = yaml.safe_load(LEAST)
    del content[key]
    assert any(f"“{key}” is missing" in finding for finding in findings(yaml.safe_dump(content)))


def test_the_identity_of_the_image_is_not_the_manifests_to_say() -> None:
    (finding,) = findings(LEAST.replace("{service", "{version: '1', service"))
    assert finding.startswith("dns-nsd.yaml:5:12: “manifest.version” is not a known key")


@pytest.mark.parametrize("name", ["--help", "nsd=1;reboot", "nsd nsd", "$(reboot)", "../x", "Nsd"])
def test_package_and_suite_names_are_no_options_and_no_shell(name: str) -> None:
    content = yaml.safe_load(LEAST)
    assert findings(yaml.safe_dump({**content, "packages": [name]}))
    assert findings(yaml.safe_dump({**content, "suite": name}))


@given(
    st.sampled_from(("include", "users", "directories", "files", "links", "packages", "manifest", "suite")),
    values,
)
def test_any_value_of_any_key_is_read_or_refused(key: str, value: object) -> None:
    try:
        recipe = read(yaml.safe_dump({**yaml.safe_load(LEAST), key: value}))
    except ConfigurationError:
        return
    assert recipe.packages
