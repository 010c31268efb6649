"""What an image is built from: the content of a recipe, checked (appliance-image(5))."""

from __future__ import annotations

from dataclasses import dataclass

from agent.model.image import Manifest

ROOT = "root"


@dataclass(frozen=True, slots=True)
class ImageUser:
    """A user and a group of the same name and number inside an image."""

    name: str
    uid: int
    home: str = "/nonexistent"


@dataclass(frozen=True, slots=True)
class RecipeDirectory:
    """A directory that no package brings, or one whose owner or mode is to be another."""

    path: str
    owner: str = ROOT
    mode: int = 0o755


@dataclass(frozen=True, slots=True)
class RecipeFile:
    """A file given in the recipe itself."""

    path: str
    text: str
    owner: str = ROOT
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class RecipeLink:
    """A symbolic link."""

    path: str
    target: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe. Its manifest has no version yet: that is the first package's, known when packages are
    resolved."""

    path: str
    suite: str
    packages: tuple[str, ...]
    manifest: Manifest
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    users: tuple[ImageUser, ...] = ()
    directories: tuple[RecipeDirectory, ...] = ()
    files: tuple[RecipeFile, ...] = ()
    links: tuple[RecipeLink, ...] = ()

    @property
    def name(self) -> str:
        """The image's name."""
        return self.manifest.name
