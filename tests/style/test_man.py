"""Man pages render without a warning, are complete, and are named as they say."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.style.files import ROOT, each

PAGES = tuple(sorted((ROOT / "packaging/man").glob("*.[1-8]")))
REQUIRED = {
    "appliance-agent.8",
    "appliancectl.1",
    "appliance.yaml.5",
    "appliance-network.yaml.5",
    "appliance-image.5",
    "appliance@.service.8",
}


def test_every_page_is_there() -> None:
    assert {page.name for page in PAGES} >= REQUIRED


@each(PAGES)
def test_renders_without_warnings(path: Path) -> None:
    environment = {**os.environ, "MANWIDTH": "100", "LC_ALL": "C.UTF-8", "MANROFFSEQ": ""}
    command: list[str | Path] = ["man", "--warnings", "--encoding=UTF-8", "--local-file", path]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode != 0 or result.stderr:
        pytest.fail(f"{path.name}:\n{result.stderr}", pytrace=False)


@each(PAGES)
def test_title_is_the_file_name(path: Path) -> None:
    title = re.search(r"^\.(?:TH|Dt) +(\S+) +(\d)", path.read_text("utf-8"), re.MULTILINE)
    assert title, "no .TH or .Dt line"
    assert f"{title[1]}.{title[2]}".lower().replace("\\-", "-").replace('"', "") == path.name.lower()


@each(PAGES)
def test_references_lead_somewhere(path: Path) -> None:
    """What looks like one of our pages must be one; a page elsewhere is not ours to check."""
    text = path.read_text("utf-8").replace("\\-", "-")
    names = {
        f"{name}.{section}"
        for name, section in re.findall(r"\b(appliance[\w.@-]*?)(?:\\fR|\\fP| )?\((\d)\)", text)
    }
    assert names <= {page.name for page in PAGES}
