"""Reads the catalog, `pipelines/catalog.yml`: every mistake at once, each with its line."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from bot.catalog.entries import NAME, RESERVED, ImageEntry, platform_image
from bot.catalog.lines import Lines
from bot.core.images import Mode, PlatformImage
from bot.core.windows import LONGEST_SEARCH
from bot.errors import ConfigError


class Catalog(Mapping[str, PlatformImage]):
    """The platform images by name, in the order of the file."""

    def __init__(self, images: Iterable[PlatformImage]) -> None:
        self._images = {image.name: image for image in images}

    def __getitem__(self, name: str) -> PlatformImage:
        return self._images[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._images)

    def __len__(self) -> int:
        return len(self._images)


def load(path: Path, now: datetime | None = None) -> Catalog:
    """Read the file. Raises ConfigError with one sentence per mistake, each with file and line.

    From `now` on (the present without it) every maintenance window has to open some time.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read: {error}"]) from None
    return parse(text, str(path), now or datetime.now(UTC))


def parse(text: str, source: str, now: datetime) -> Catalog:
    """Read the text of a catalog. Raises ConfigError."""
    try:
        lines = Lines(yaml.compose(text, Loader=yaml.SafeLoader))
        data = yaml.safe_load(text)
    except RecursionError:
        raise ConfigError([f"{source}: something contains itself, or is nested too deeply"]) from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a value that looks like a date and is none
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ConfigError([f"{source}{line}: not YAML: {problem}"]) from None
    return _Reader(source, lines, now).read(data)


class _Reader:
    def __init__(self, source: str, lines: Lines, now: datetime) -> None:
        self._source = source
        self._lines = lines
        self._now = now
        self._problems: dict[tuple[int, str], None] = {}

    def read(self, data: object) -> Catalog:
        for path, line in self._lines.duplicates:
            self._problem(path, "is written twice", line)
        defaults, entries = self._sections(data)
        images = [image for name, entry in entries.items() if (image := self._image(str(name), entry, defaults))]
        self._across(images)
        if self._problems:
            raise ConfigError([f"{self._source}:{line}: {text}" for line, text in sorted(self._problems)])
        return Catalog(images)

    def _problem(self, path: tuple[str | int, ...], text: str, line: int | None = None) -> None:
        where = ".".join(map(str, path)) or "the file"
        self._problems[line or self._lines.of(path), f"{where} {text}"] = None

    def _sections(self, data: object) -> tuple[dict[str, Any], dict[str, Any]]:
        if not isinstance(data, dict):
            self._problem((), "has to be a mapping with `images`")
            return {}, {}
        for key in data.keys() - {"defaults", "images"}:
            self._problem((str(key),), "is not known here; known are defaults and images")
        sections = []
        for key in ("defaults", "images"):
            section = data.get(key) or {}
            if not isinstance(section, dict):
                self._problem((key,), "has to be a mapping")
                section = {}
            sections.append(section)
        if not sections[1]:
            self._problem(("images",), "has to name at least one image")
        return sections[0], sections[1]

    def _image(self, name: str, entry: object, defaults: dict[str, Any]) -> PlatformImage | None:
        path = ("images", name)
        if not NAME.fullmatch(name):
            self._problem(path, "is not a name of lower-case letters, digits, dots and dashes")
        if name in RESERVED:
            self._problem(path, "is a word of the chat commands; call the image otherwise")
        if not isinstance(entry, dict):
            self._problem(path, "has to be a mapping")
            return None
        try:
            return platform_image(name, ImageEntry.model_validate(_merge(defaults, entry)))
        except ValidationError as error:
            for mistake in error.errors(include_url=False):
                self._mistake(path, tuple(mistake["loc"]), mistake["type"], mistake["msg"])
            return None

    def _mistake(self, path: tuple[str | int, ...], at: tuple[str | int, ...], kind: str, message: str) -> None:
        """A mistake in the defaults is reported once, where it stands, and not for every image."""
        where = (*path, *at) if self._lines.has((*path, *at)) else ("defaults", *at)
        if not self._lines.has(where):
            where = (*path, *at)
        texts = {
            "missing": "is missing",
            "extra_forbidden": "is not known here",
            "string_type": "is not text: write it in quotes",
        }
        self._problem(where, texts.get(kind) or f"is wrong: {message.removeprefix('Value error, ')}")

    def _across(self, images: list[PlatformImage]) -> None:
        """What a single image cannot tell: lines used twice, parents that do not exist or go in a circle."""
        by_name = {image.name: image for image in images}
        lines: dict[tuple[str, str, str, str], str] = {}
        for image in images:
            other = lines.setdefault((image.registry_id, image.region, image.repository, image.tag), image.name)
            if other != image.name:
                self._problem(("images", image.name, "tag"), f"is the same line in ECR as that of {other}")
            if image.parent and image.parent not in by_name:
                self._problem(("images", image.name, "base"), f"names {image.parent}, which is not in this catalog")
            elif image.parent and _circular(image, by_name):
                self._problem(("images", image.name, "base"), "leads back to the image itself")
            self._rules(image)
            self._opening(image)

    def _rules(self, image: PlatformImage) -> None:
        rules, path = image.approval, ("images", image.name, "approval")
        if not self._lines.has(path):
            path = ("defaults", "approval", "approvers")
        if image.mode is not Mode.NOTIFY and not rules.channels and len(rules.approvers) < rules.required:
            self._problem(path, f"can never be met: {rules.required} needed, {len(rules.approvers)} named as approvers")

    def _opening(self, image: PlatformImage) -> None:
        path: tuple[str, ...] = ("images", image.name, "windows")
        if not self._lines.has(path):
            path = ("defaults", "windows")
        if image.windows.next_open(self._now) is None:
            self._problem(path, f"never opens in the next {LONGEST_SEARCH.days} days")


def _circular(image: PlatformImage, by_name: Mapping[str, PlatformImage]) -> bool:
    seen = {image.name}
    parent = image.parent
    while parent and parent in by_name:
        if parent in seen:
            return True
        seen.add(parent)
        parent = by_name[parent].parent
    return False


def _merge(defaults: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings are merged key by key, everything else is replaced."""
    merged = dict(defaults)
    for key, value in entry.items():
        below = defaults.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged
