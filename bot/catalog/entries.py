"""What may stand in the catalog, and its JSON schema."""

import re
from datetime import date, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from bot.core.durations import parse_duration
from bot.core.findings import Severity
from bot.core.images import ApprovalRules, ImagePlatform, ImageReference, Mode, PipelineReference, PlatformImage
from bot.core.timetable import Crontab
from bot.core.windows import Windows, parse_span, zone

NAME = re.compile(r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")
RESERVED = {"all", "failures"}  # words of the chat commands that stand where images do
PARENT = "platform:"
CHANNEL = r"^19:[^\s;/]+@thread\.(tacv2|skype)$"


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


def platform_image(name: str, entry: ImageEntry) -> PlatformImage:
    """The image that an entry describes."""
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
        approval=_approval_rules(entry.approval),
        windows=Windows.parse(entry.windows.timezone, entry.windows.allow, entry.windows.deny),
        schedule=Crontab.parse(entry.schedule) if entry.schedule else None,
        watch=entry.watch,
        hold_back=None if entry.hold_back == "never" else Severity(entry.hold_back),
    )


def _approval_rules(entry: ApprovalEntry) -> ApprovalRules:
    return ApprovalRules(
        approvers=frozenset(approver.lower() for approver in entry.approvers),
        channels=tuple(dict.fromkeys(entry.channels)),
        required=entry.required,
        self_approve=entry.self_approve,
        expires=entry.expires,
        remind=None if entry.remind == "never" else entry.remind,
    )
