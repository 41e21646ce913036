"""Reads the catalog, `pipelines/catalog.yml`: every mistake at once, each with its line."""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from bot.core.findings import Severity
from bot.core.images import ApprovalRules, ImagePlatform, ImageReference, Mode, PipelineReference, PlatformImage
from bot.core.timetable import Crontab
from bot.core.windows import LONGEST_SEARCH, Windows, parse_span, zone
from bot.errors import ConfigError

NAME = re.compile(r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")
RESERVED = {"all", "failures"}  # words of the chat commands that stand where images do
PARENT = "platform:"
CHANNEL = r"^19:[^\s;/]+@thread\.(tacv2|skype)$"
UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_duration(text: object) -> timedelta:
    """`90m`, `12h`, `7d` or `2w`. Raises ValueError."""
    match = re.fullmatch(r"([1-9]\d{0,3})([mhdw])", str(text).strip())
    if not match:
        raise ValueError(f"{str(text)[:40]!r} is not a duration such as 12h or 7d")
    return timedelta(**{UNITS[match[2]]: int(match[1])})


def _deadline(wait: timedelta) -> timedelta:
    if not timedelta(minutes=5) <= wait <= timedelta(days=90):
        raise ValueError("a request waits for five minutes at least and for 90 days at most")
    return wait


def _base(text: str) -> str:
    if text.startswith(PARENT):
        if not NAME.fullmatch(text.removeprefix(PARENT)):
            raise ValueError(f"{text!r} does not name an image of this catalog")
        return text
    reference = ImageReference.parse(text)
    if reference.digest:
        raise ValueError(f"{text!r} names a digest; a base is a tag that moves")
    return text


def _tag(text: str) -> str:
    ImageReference.parse(f"registry.invalid/name:{text}")
    if len(text) > 100:
        raise ValueError("a tag of more than 100 characters leaves no room for the version")
    return text


def _repository(text: str) -> str:
    ImageReference.parse(f"registry.invalid/{text}:tag")
    return text


def _platform(text: str) -> str:
    ImagePlatform.parse(text)
    return text


def _span(value: object) -> object:
    """YAML makes a date of what is not in quotes."""
    text = value.isoformat() if type(value) is date else value
    if isinstance(text, str):
        parse_span(text)
    return text


def _crontab(text: str | None) -> str | None:
    if text is not None:
        Crontab.parse(text)
    return text


def _zone(text: str) -> str:
    zone(text)
    return text


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    WithJsonSchema({"type": "string", "pattern": "^[1-9][0-9]{0,3}[mhdw]$", "examples": ["12h", "7d"]}),
]
Tag = Annotated[str, AfterValidator(_tag)]
Platform = Annotated[str, AfterValidator(_platform)]
Text = Annotated[str, Field(min_length=1)]
Span = Annotated[str, BeforeValidator(_span)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class PipelineEntry(_Strict):
    """Which pipeline of Azure DevOps builds the image."""

    project: Text
    id: Annotated[int, Field(gt=0)]


class ApprovalEntry(_Strict):
    """Who decides about a rebuild."""

    approvers: Annotated[list[Text], Field(description="Entra object ids or user principal names")] = []
    channels: Annotated[
        list[Annotated[str, Field(pattern=CHANNEL)]],
        Field(description="Teams channels, 19:...@thread.tacv2; the members of their teams may approve as well"),
    ] = []
    required: Annotated[int, Field(ge=1, le=20, description="how many different people have to approve")] = 1
    self_approve: Annotated[bool, Field(description="whether the person who asked may approve")] = True
    expires: Annotated[
        Duration,
        AfterValidator(_deadline),
        Field(description="how long a request waits, 5m to 90d", json_schema_extra={"default": "7d"}),
    ] = timedelta(days=7)
    remind: Annotated[
        Duration | Literal["never"],
        Field(description="when to remind of a request that waits, or never", json_schema_extra={"default": "1d"}),
    ] = timedelta(days=1)

    @model_validator(mode="after")
    def _remind_in_time(self) -> Self:
        if "remind" in self.model_fields_set and self.remind != "never" and self.remind >= self.expires:
            raise ValueError("`remind` has to be shorter than `expires`")
        return self


class WindowsEntry(_Strict):
    """When a rebuild may start; deny wins over allow."""

    timezone: Annotated[str, AfterValidator(_zone), Field(description="whose clocks count")] = "UTC"
    allow: Annotated[
        list[Span],
        Field(description="the only times it may start; empty is any time", examples=[["mon-thu 08:00-17:00"]]),
    ] = []
    deny: Annotated[
        list[Span],
        Field(description="times it may not start", examples=[["fri 12:00-24:00", "2026-12-18..2027-01-06"]]),
    ] = []


class ImageEntry(_Strict):
    """One platform image, with the defaults filled in."""

    base: Annotated[
        str, AfterValidator(_base), Field(description="a tag at a registry, or platform:NAME for one of these images")
    ]
    repository: Annotated[str, AfterValidator(_repository), Field(description="the ECR repository")]
    tag: Annotated[Tag, Field(description="the line: versions are TAG-1.0.0, TAG-1.1.0, ...")]
    extra_tags: Annotated[list[Tag], Field(description="tags that always point to the newest version")] = []
    registry_id: Annotated[str, Field(pattern=r"^\d{12}$", description="the AWS account")]
    region: Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$", description="the AWS region")]
    pipeline: PipelineEntry
    platforms: Annotated[list[Platform], Field(min_length=1)] = ["linux/amd64"]
    mode: Annotated[
        Mode,
        Field(strict=False, description="ask: approve first; auto: queue at once; notify: only tell"),
    ] = Mode.ASK
    approval: ApprovalEntry = Field(default_factory=ApprovalEntry)
    windows: WindowsEntry = Field(default_factory=WindowsEntry)
    schedule: Annotated[
        str | None,
        AfterValidator(_crontab),
        Field(description="a crontab of its own, besides the check of all images", examples=["0 6 * * *"]),
    ] = None
    watch: Annotated[bool, Field(description="look hourly whether a security release arrived")] = False
    hold_back: Annotated[
        Literal["critical", "high", "medium", "low", "never"],
        Field(description="warn instead of announcing an update that brings a new vulnerability as bad as this"),
    ] = "never"


def schema() -> dict[str, Any]:
    """The JSON schema of the file, for editors. Everything an image needs may stand in `defaults` instead."""
    image = ImageEntry.model_json_schema(ref_template="#/$defs/{model}")
    definitions = image.pop("$defs")
    for definition in ("PipelineEntry", "ApprovalEntry"):
        definitions[definition].pop("required", None)
    image.pop("required")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Shipshape catalog",
        "type": "object",
        "additionalProperties": False,
        "required": ["images"],
        "properties": {
            "defaults": {"$ref": "#/$defs/ImageEntry"},
            "images": {
                "type": "object",
                "minProperties": 1,
                "propertyNames": {"pattern": NAME.pattern, "not": {"enum": sorted(RESERVED)}},
                "additionalProperties": {"$ref": "#/$defs/ImageEntry"},
            },
        },
        "$defs": {**definitions, "ImageEntry": image},
    }


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
        lines = _Lines(yaml.compose(text, Loader=yaml.SafeLoader))
        data = yaml.safe_load(text)
    except RecursionError:
        raise ConfigError([f"{source}: something contains itself, or is nested too deeply"]) from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a value that looks like a date and is none
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ConfigError([f"{source}{line}: not YAML: {problem}"]) from None
    return _Reader(source, lines, now).read(data)


class _Lines:
    """Finds the line of a path such as ("images", "dotnet-sdk-6", "base"), or of its nearest parent."""

    def __init__(self, root: yaml.Node | None) -> None:
        self._lines: dict[tuple[str | int, ...], int] = {}
        self.duplicates: list[tuple[tuple[str | int, ...], int]] = []
        if root:
            self._walk(root, ())

    def _walk(self, node: yaml.Node, path: tuple[str | int, ...]) -> None:
        self._lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                child = (*path, str(key.value))
                if child in self._lines:
                    self.duplicates.append((child, key.start_mark.line + 1))
                self._lines[child] = key.start_mark.line + 1
                self._walk(value, child)
        elif isinstance(node, yaml.SequenceNode):
            for position, value in enumerate(node.value):
                self._walk(value, (*path, position))

    def of(self, path: tuple[str | int, ...]) -> int:
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)

    def has(self, path: tuple[str | int, ...]) -> bool:
        return path in self._lines


class _Reader:
    def __init__(self, source: str, lines: _Lines, now: datetime) -> None:
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
            return _platform_image(name, ImageEntry.model_validate(_merge(defaults, entry)))
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


def _platform_image(name: str, entry: ImageEntry) -> PlatformImage:
    parent = entry.base.removeprefix(PARENT) if entry.base.startswith(PARENT) else None
    return PlatformImage(
        name=name,
        base=None if parent else ImageReference.parse(entry.base),
        parent=parent,
        registry_id=entry.registry_id,
        region=entry.region,
        repository=entry.repository,
        tag=entry.tag,
        extra_tags=tuple(entry.extra_tags),
        pipeline=PipelineReference(project=entry.pipeline.project, id=entry.pipeline.id),
        platforms=tuple(ImagePlatform.parse(platform) for platform in entry.platforms),
        mode=entry.mode,
        approval=ApprovalRules(
            approvers=frozenset(approver.lower() for approver in entry.approval.approvers),
            channels=tuple(dict.fromkeys(entry.approval.channels)),
            required=entry.approval.required,
            self_approve=entry.approval.self_approve,
            expires=entry.approval.expires,
            remind=None if entry.approval.remind == "never" else entry.approval.remind,
        ),
        windows=Windows.parse(entry.windows.timezone, entry.windows.allow, entry.windows.deny),
        schedule=Crontab.parse(entry.schedule) if entry.schedule else None,
        watch=entry.watch,
        hold_back=None if entry.hold_back == "never" else Severity(entry.hold_back),
    )
