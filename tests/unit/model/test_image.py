"""Digests, and which image a reference may mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.image import Digest, ImageReference
from tests.fakes.samples import sample_image
from tests.unit.config.strategies import hostile_texts


@given(st.binary(max_size=64))
def test_a_digest_is_read_back_from_each_of_its_forms(content: bytes) -> None:
    digest = Digest.of(content)
    assert Digest.parse(str(digest)) == Digest.parse(digest.directory) == digest
    assert digest.hex.startswith(digest.short)


@given(hostile_texts | st.text(alphabet="sha256:-/.0aA\n", max_size=80))
def test_no_other_text_is_a_digest(text: str) -> None:
    digest = Digest.parse(text)
    assert digest is None or text in {str(digest), digest.directory}


@pytest.mark.parametrize(
    "text", ["sha256:", f"sha256:{'A' * 64}", f"sha256:{'0' * 63}", f"sha256:{'0' * 65}", f"sha1:{'0' * 64}"]
)
def test_almost_digests(text: str) -> None:
    assert Digest.parse(text) is None


@pytest.mark.parametrize(
    ("name", "version", "matches"),
    [
        ("dns-nsd", "", True),
        ("dns-nsd", "4.6.1-1", True),
        ("dns-nsd", "4.6.1", True),
        ("dns-nsd", "4.6", True),
        ("dns-nsd", "4", True),
        ("dns-nsd", "4.6.1-", False),
        ("dns-nsd", "4.", False),
        ("dns-nsd", "4.6.1-12", False),
        ("dns-nsd", "4.60", False),
        ("dns", "", False),
    ],
)
def test_versions_that_a_reference_may_mean(name: str, version: str, *, matches: bool) -> None:
    assert sample_image("dns-nsd", "4.6.1-1").matches(ImageReference(name=name, version=version)) is matches


def test_a_digest_means_one_image() -> None:
    image = sample_image("dns-nsd", "4.6.1-1")
    assert image.matches(ImageReference(digest=image.digest))
    assert not image.matches(ImageReference(digest=Digest.of(b"another")))
