"""Verbs about images: build, import, list, show, verify, remove.

They work in the calling process: the store is a directory, and nothing about it needs the agent.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import agent
from agent.cli import swap
from agent.cli.output import format_bytes, print_json, print_table
from agent.cli.verbs import Subparsers, add_verb
from agent.config.common import parse_reference
from agent.config.manifest import render_manifest
from agent.config.recipe import read_recipe
from agent.host.store import ImageStore
from agent.model.errors import ApplianceError, ImageError, Problem
from agent.model.image import Digest, Image
from agent.model.paths import Paths
from agent.util.progress import TextProgress

if TYPE_CHECKING:
    from agent.image.build import Built

_RECIPES = (Path(agent.__file__).parent.parent / "conf/images", Path("/usr/share/appliance/images"))
"""A checkout's own recipes come before the installed ones."""

_SHORTEST_DIGEST = len("sha256:") + 6


def add_verbs(verbs: Subparsers, common: argparse.ArgumentParser) -> None:
    """Register `image` and its own verbs."""
    image = add_verb(
        verbs, common, "image", _list, help="build, import, list, show, verify and remove images"
    )
    own = image.add_subparsers(title="verbs", metavar="VERB", dest="image_verb")
    add_verb(own, common, "list", _list, help="list the images in the store (the default verb)")
    built = add_verb(own, common, "build", _build, help="build an image from a recipe")
    built.add_argument("recipe", metavar="RECIPE", help="a file, or the name of a recipe that is installed")
    built.add_argument(
        "-o", "--output", metavar="FILE", type=Path, help="write the image there instead of importing it"
    )
    imported = add_verb(own, common, "import", _import, help="copy an image into the store")
    imported.add_argument("file", metavar="FILE", type=Path)
    shown = add_verb(own, common, "show", _show, help="show an image and its manifest")
    _add_image(shown)
    verified = add_verb(
        own, common, "verify", _verify, help="hash images again and compare with their digests"
    )
    verified.add_argument("image", metavar="IMAGE", nargs="?", help="all images where none is given")
    removed = add_verb(own, common, "remove", _remove, help="remove an image that no appliance uses")
    _add_image(removed)
    swap.add_image_verbs(own, common)


def _add_image(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "image", metavar="IMAGE", help="NAME, NAME:VERSION or sha256:DIGEST (six digits or more)"
    )


def _store() -> ImageStore:
    return ImageStore(Paths().images)


def find_recipe(text: str) -> Path:
    """A path as it is; a bare name among the installed recipes."""
    if "/" in text or text.endswith(".yaml"):
        return Path(text)
    candidates = [directory / f"{text}.yaml" for directory in _RECIPES]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        names = sorted({path.stem for directory in _RECIPES for path in directory.glob("*.yaml")})
        raise ImageError(
            f"There is no recipe “{text}”.",
            problem=Problem.NOT_FOUND,
            remedy=f"Installed recipes: {', '.join(names) or 'none'}.",
        )
    return found


def find_image(store: ImageStore, text: str) -> Image:
    """The image that the user means; a digest may be shortened as far as it stays unique."""
    if text.startswith("sha256:") and Digest.parse(text) is None:
        return _by_short_digest(store, text)
    reference = parse_reference(text)
    if reference is None:
        raise ImageError(f"“{text}” is no image: NAME, NAME:VERSION or sha256:DIGEST expected.")
    return store.resolve(reference)


def _by_short_digest(store: ImageStore, text: str) -> Image:
    images = [image for image in store.images() if str(image.digest).startswith(text)]
    if len(text) < _SHORTEST_DIGEST or len(images) > 1:
        raise ImageError(
            f"“{text}” is not enough of a digest to tell images apart.", problem=Problem.NOT_FOUND
        )
    if not images:
        raise ImageError(f"There is no image {text}….", problem=Problem.NOT_FOUND)
    return images[0]


def _short(digest: Digest) -> str:
    return f"sha256:{digest.short}"


def _record(store: ImageStore, image: Image) -> dict[str, object]:
    manifest = image.manifest
    return {
        "name": manifest.name,
        "version": manifest.version,
        "role": manifest.role,
        "vendor": manifest.vendor,
        "architecture": manifest.architecture,
        "digest": str(image.digest),
        "size_bytes": image.size_bytes,
        "imported_at": image.imported_at,
        "path": image.path,
        "used_by": store.users(image.digest),
    }


def _warn_of_damage(store: ImageStore) -> None:
    for damage in store.damaged():
        print(f"appliancectl: {damage.error}", file=sys.stderr)


def _list(arguments: argparse.Namespace) -> int:
    store = _store()
    images = store.images()
    _warn_of_damage(store)
    if arguments.style.json:
        print_json([_record(store, image) for image in images], arguments.style)
        return 0
    rows = [
        [
            image.manifest.name,
            image.manifest.version,
            image.manifest.role,
            _short(image.digest),
            format_bytes(image.size_bytes),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(image.imported_at)),
            " ".join(store.users(image.digest)) or "-",
        ]
        for image in images
    ]
    columns = ("NAME", "VERSION", "ROLE", "DIGEST", "SIZE", "IMPORTED", "USED BY")
    print_table(columns, rows, arguments.style, what="image")
    return 0


def _build(arguments: argparse.Namespace) -> int:
    from agent.image.build import build

    path = find_recipe(arguments.recipe)
    try:
        recipe = read_recipe(path.read_bytes(), str(path))
    except OSError as error:
        raise ImageError(f"Recipe {path}: {error.strerror}.", problem=Problem.NOT_FOUND) from error
    progress = TextProgress(sys.stderr)
    if arguments.output:
        output = arguments.output.absolute()
        if not output.parent.is_dir():
            raise ImageError(f"{output.parent} is not a directory.", problem=Problem.NOT_FOUND)
        return _show_built(build(recipe, output, progress), Digest.of(output.read_bytes()), arguments)
    store = _store()
    store.ensure_writable()
    with tempfile.TemporaryDirectory(prefix="appliance-image-", dir="/var/tmp") as directory:
        built = build(recipe, Path(directory) / f"{recipe.name}.squashfs", progress)
        image = store.import_file(built.path, progress)
    return _show_built(built, image.digest, arguments, path=image.path)


def _show_built(built: Built, digest: Digest, arguments: argparse.Namespace, *, path: str = "") -> int:
    where = path or str(built.path)
    if arguments.style.json:
        packages = [
            dict(zip(("name", "version", "architecture"), line.split(), strict=True))
            for line in built.packages
        ]
        record = {"name": built.manifest.name, "version": built.manifest.version, "digest": str(digest)}
        print_json(
            {**record, "size_bytes": built.size_bytes, "path": where, "packages": packages}, arguments.style
        )
    else:
        print(f"{built.manifest.title}: {format_bytes(built.size_bytes)}, {digest}\n{where}")
    return 0


def _import(arguments: argparse.Namespace) -> int:
    store = _store()
    image = store.import_file(arguments.file, TextProgress(sys.stderr))
    if arguments.style.json:
        print_json(_record(store, image), arguments.style)
    else:
        print(f"{image.manifest.title}: {format_bytes(image.size_bytes)}, {image.digest}")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    store = _store()
    image = find_image(store, arguments.image)
    record = _record(store, image)
    record["verified"] = store.is_verified(image)
    manifest = render_manifest(image.manifest)
    if arguments.style.json:
        print_json({**record, "manifest": manifest}, arguments.style)
        return 0
    facts = {
        "Image": image.manifest.title,
        "Digest": str(image.digest),
        "Path": image.path,
        "Size": format_bytes(image.size_bytes),
        "Imported": time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(image.imported_at)),
        "Verified": "yes" if record["verified"] else "changed since; `appliancectl image verify` tells",
        "Used by": " ".join(store.users(image.digest)) or "no appliance",
    }
    for label, text in facts.items():
        print(f"{label:>9}: {text}")
    print(f"\n{manifest}", end="")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    store = _store()
    images = [find_image(store, arguments.image)] if arguments.image else store.images()
    results = {str(image.digest): (image.manifest.title, _verify_one(store, image)) for image in images}
    if not arguments.image:
        results.update({str(damage.digest): ("-", damage.error) for damage in store.damaged()})
    if arguments.style.json:
        records = [
            {"digest": digest, "sound": error is None, "reason": error.message if error else ""}
            for digest, (_, error) in results.items()
        ]
        print_json(records, arguments.style)
    else:
        rows = [
            [title, f"{digest[:19]}", "damaged" if error else "sound"]
            for digest, (title, error) in results.items()
        ]
        paints = {"damaged": "bad", "sound": "good"}
        print_table(("IMAGE", "DIGEST", "RESULT"), rows, arguments.style, paints=paints, what="image")
    errors = [error for _, error in results.values() if error]
    for error in errors:
        print(f"appliancectl: {error}", file=sys.stderr)
    return errors[0].problem.exit_status if errors else 0


def _verify_one(store: ImageStore, image: Image) -> ApplianceError | None:
    try:
        store.verify(image.digest)
    except ApplianceError as error:
        return error
    return None


def _remove(arguments: argparse.Namespace) -> int:
    store = _store()
    # A damaged image has no name any more, but it must be possible to get rid of it.
    digest = Digest.parse(arguments.image)
    if digest is None:
        digest = find_image(store, arguments.image).digest
    store.remove(digest)
    if arguments.style.json:
        print_json({"digest": str(digest)}, arguments.style)
    else:
        print(f"Removed {digest}.")
    return 0
