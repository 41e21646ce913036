"""Settings: environment variables with the prefix SHIPSHAPE_, also from `.env`; every secret also as `…_FILE`.

Read once at the start. Mistakes name the key and the problem, never the value of a secret.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Json,
    SecretStr,
    ValidationError,
    field_validator,
)

from bot.core.hosts import is_loopback
from bot.core.timetable import Crontab
from bot.core.windows import zone
from bot.errors import ConfigError

PREFIX = "SHIPSHAPE_"
# https://github.com/dotnet/core/blob/main/release-notes/releases-index.json
RELEASE_METADATA = "https://builds.dotnet.microsoft.com/dotnet/release-metadata"
DAY_S = 86_400
BOTFRAMEWORK_OPENID = "https://login.botframework.com/v1/.well-known/openidconfiguration"
BOTFRAMEWORK_ISSUER = "https://api.botframework.com"
# https://learn.microsoft.com/microsoftteams/platform/bots/build-conversational-capability (service URLs of Teams)
TEAMS_HOSTS = ("smba.trafficmanager.net", "smba.infra.gcc.teams.microsoft.com", "smba.infra.gov.teams.microsoft.us")


def _words(value: object) -> object:
    return [word for word in value.replace(",", " ").split() if word] if isinstance(value, str) else value


def _off(value: object) -> object:
    return "" if value == "off" else value


UrlOrOff = Annotated[str, BeforeValidator(_off)]  # an empty variable is one that is not set
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]


class Settings(BaseModel):
    """All settings, in the order of the README."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    catalog: Path = Path("pipelines/catalog.yml")
    database_url: SecretStr = SecretStr("sqlite+aiosqlite:///shipshape.db")
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 3978
    schedule: str = "0 6 * * 1"
    timezone: str = "UTC"
    bot_app_id: str = ""
    bot_app_password: SecretStr = SecretStr("")
    bot_app_type: Literal["SingleTenant", "UserAssignedMSI"] = "SingleTenant"
    bot_tenant_id: str = ""
    bot_openid_metadata_url: str = BOTFRAMEWORK_OPENID
    bot_token_issuer: str = BOTFRAMEWORK_ISSUER
    bot_login_url: str = "https://login.microsoftonline.com"
    allow_anonymous: bool = False
    allowed_tenants: Words = ()
    allowed_service_hosts: Words = TEAMS_HOSTS
    azure_devops_url: str = ""
    azure_devops_token: SecretStr = SecretStr("")
    hook_secret: SecretStr = SecretStr("")
    registry_mirrors: Json[dict[str, str]] = Field(default_factory=dict, repr=False)  # a URL may hold a password
    ecr_events_queue_url: str = ""
    release_metadata_url: UrlOrOff = RELEASE_METADATA
    poll_interval: Annotated[float, Field(gt=0, le=DAY_S)] = 10
    verify_timeout: Annotated[float, Field(gt=0, le=DAY_S)] = 300
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @property
    def tenants(self) -> frozenset[str]:
        """Tenants that may talk to the bot; empty when anybody may, which only an anonymous bot allows."""
        return frozenset(self.allowed_tenants or ((self.bot_tenant_id,) if self.bot_tenant_id else ()))

    @field_validator("schedule")
    @classmethod
    def _crontab(cls, value: str) -> str:
        return Crontab.parse(value).text

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            zone(value)
        except ValueError:
            raise ValueError("is not a time zone such as UTC or Europe/Madrid") from None
        return value

    @field_validator(
        "bot_login_url", "bot_openid_metadata_url", "azure_devops_url", "ecr_events_queue_url", "release_metadata_url"
    )
    @classmethod
    def _https(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
            raise ValueError("has to start with https:// (plain http only on loopback)")
        if value and not parts.hostname:
            raise ValueError("names no host")
        if "@" in parts.netloc:
            raise ValueError("must not hold a user or a password")
        return value.rstrip("/")

    @field_validator("registry_mirrors")
    @classmethod
    def _mirror_urls(cls, value: dict[str, str]) -> dict[str, str]:
        for host, url in value.items():
            parts = urlsplit(url)
            if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
                raise ValueError(f"the mirror of {host} has to start with https:// (plain http only on loopback)")
        return {host: url.rstrip("/") for host, url in value.items()}

    def require_serving(self) -> None:
        """What `serve` needs beyond what `check` needs. Raises ConfigError."""
        problems = self._who_may_talk()
        if not self.azure_devops_url:
            problems.append(f"{PREFIX}AZURE_DEVOPS_URL: is missing, for example https://dev.azure.com/contoso")
        if problems:
            raise ConfigError(problems)

    def _who_may_talk(self) -> list[str]:
        if self.allow_anonymous:
            refused = f"{PREFIX}ALLOW_ANONYMOUS: is refused unless HOST is a loopback address"
            return [] if is_loopback(self.host) else [refused]
        needed = {"BOT_APP_ID": self.bot_app_id, "BOT_TENANT_ID": self.bot_tenant_id}
        if self.bot_app_type == "SingleTenant":
            needed["BOT_APP_PASSWORD"] = self.bot_app_password.get_secret_value()
        return [
            f"{PREFIX}{key}: is missing, a {self.bot_app_type} bot needs it"
            for key, value in needed.items()
            if not value
        ]


SECRETS = frozenset(name for name, field in Settings.model_fields.items() if field.annotation is SecretStr)


def read(environment: Mapping[str, str] | None = None, *, env_file: Path | None = Path(".env")) -> Settings:
    """Settings from the given variables (default: the process's own, above those of `.env`).

    Raises ConfigError with one sentence per mistake.
    """
    variables: dict[str, str] = {}
    if env_file and env_file.is_file():
        variables |= _from_file(env_file)
    variables |= os.environ if environment is None else environment
    given = {key.removeprefix(PREFIX): value for key, value in variables.items() if key.startswith(PREFIX)}
    values, problems = _collect(given)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        problems += [_sentence(mistake["loc"], mistake["msg"]) for mistake in error.errors()]
    if problems:
        raise ConfigError(sorted(problems))
    return settings


def _from_file(env_file: Path) -> dict[str, str]:
    try:
        return {key: value or "" for key, value in dotenv_values(env_file).items()}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{env_file}: cannot be read: {error.__class__.__name__}"]) from None


def _collect(given: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Fields by name; a secret may come from the file that KEY_FILE names, without the final line break."""
    values: dict[str, Any] = {}
    problems = []
    for key, value in given.items():
        name = key.lower()
        secret = name.removesuffix("_file")
        if name in Settings.model_fields:
            if value != "":
                values[name] = value
        elif secret == name or secret not in SECRETS:
            problems.append(f"{PREFIX}{key}: is not a setting")
        elif value != "" and given.get(key.removesuffix("_FILE")):
            problems.append(f"{PREFIX}{key}: is set, and so is the variable without _FILE; one of them has to go")
        elif value != "":
            try:
                values[secret] = Path(value).read_text("utf-8").rstrip("\r\n")
            except (OSError, ValueError) as error:  # without the value: some put the secret itself there
                problems.append(f"{PREFIX}{key}: the file cannot be read: {error.__class__.__name__}")
    return values, problems


def _sentence(location: tuple[int | str, ...], message: str) -> str:
    return f"{PREFIX}{str(location[0]).upper()}: {message.removeprefix('Value error, ')}"
