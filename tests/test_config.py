"""Settings: where they come from, which wins, and what is said of mistakes."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bot.config import Settings, read
from bot.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
SECRET = "hunter2-and-more"
SECRETS = ("BOT_APP_PASSWORD", "AZURE_DEVOPS_TOKEN", "HOOK_SECRET", "DATABASE_URL")

Given = Callable[..., Settings]
Problems = Callable[..., list[str]]


@pytest.fixture
def given(tmp_path: Path) -> Given:
    """Settings from these variables, which get their prefix here, above those in the text of a `.env`."""

    def given(env_file: str = "", **variables: str) -> Settings:
        file = tmp_path / ".env"
        file.write_text(env_file, "utf-8")
        return read({f"SHIPSHAPE_{key}": value for key, value in variables.items()}, env_file=file)

    return given


@pytest.fixture
def problems(given: Given) -> Problems:
    """The problems that serving with these variables has."""

    def problems(env_file: str = "", **variables: str) -> list[str]:
        with pytest.raises(ConfigError) as refused:
            given(env_file, **variables).require_serving()
        assert str(refused.value) == "\n".join(refused.value.problems)
        return refused.value.problems

    return problems


def test_defaults_are_those_of_the_design(given: Given) -> None:
    """Without any variable the documented defaults hold."""
    settings = given()
    assert (settings.catalog, settings.host, settings.port) == (Path("pipelines/catalog.yml"), "127.0.0.1", 3978)
    assert settings.database_url.get_secret_value() == "sqlite+aiosqlite:///shipshape.db"
    assert (settings.schedule, settings.timezone) == ("0 6 * * 1", "UTC")
    assert (settings.poll_interval, settings.verify_timeout, settings.log_level) == (10, 300, "INFO")
    assert settings.bot_login_url == "https://login.microsoftonline.com"
    assert not settings.allow_anonymous
    assert settings.registry_mirrors == {}


def test_environment_wins_over_the_file(given: Given) -> None:
    """A variable of the process is taken before the same one in `.env`; what only `.env` has counts too."""
    settings = given("SHIPSHAPE_PORT=4001\nSHIPSHAPE_HOST='::1'\n# a comment\nOTHER=1\n", PORT="4002")
    assert (settings.port, settings.host) == (4002, "::1")


def test_process_and_its_folder_are_read(tmp_path: Path) -> None:
    """The program takes its own environment and the `.env` of the folder it is started in."""
    (tmp_path / ".env").write_text("SHIPSHAPE_PORT=no-number\nSHIPSHAPE_LOG_LEVEL=LOUD\n")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SHIPSHAPE_")}
    program = subprocess.run(
        [sys.executable, "-m", "bot", "serve"],
        env=environment | {"SHIPSHAPE_LOG_LEVEL": "INFO", "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert program.returncode == 1
    assert [line.split(": ")[1] for line in program.stderr.splitlines()] == ["SHIPSHAPE_PORT"]


def test_empty_variable_means_its_default(given: Given) -> None:
    """A variable without a value, as compose files like to pass them on, is one that is not set."""
    settings = given(PORT="", ALLOW_ANONYMOUS="", BOT_APP_PASSWORD="", BOT_APP_PASSWORD_FILE="")
    assert (settings.port, settings.allow_anonymous) == (3978, False)


def test_values_are_read_as_what_they_are(given: Given) -> None:
    """Numbers, truth values, lists and JSON; URLs lose a slash at their end."""
    settings = given(
        POLL_INTERVAL="0.5",
        ALLOW_ANONYMOUS="true",
        ALLOWED_TENANTS="one, two three",
        ALLOWED_SERVICE_HOSTS="bot.contoso.com",
        REGISTRY_MIRRORS='{"mcr.microsoft.com": "https://cache.contoso.com/mcr/"}',
        AZURE_DEVOPS_URL="https://dev.azure.com/contoso/",
    )
    assert (settings.poll_interval, settings.allow_anonymous) == (0.5, True)
    assert settings.tenants == {"one", "two", "three"}
    assert settings.allowed_service_hosts == ("bot.contoso.com",)
    assert settings.registry_mirrors == {"mcr.microsoft.com": "https://cache.contoso.com/mcr"}
    assert settings.azure_devops_url == "https://dev.azure.com/contoso"


def test_own_tenant_is_allowed_by_default(given: Given) -> None:
    """Without a list of tenants only the bot's own may talk to it."""
    assert given(BOT_TENANT_ID="contoso-tenant").tenants == {"contoso-tenant"}


@pytest.mark.parametrize("key", SECRETS)
def test_secret_from_a_file(given: Given, tmp_path: Path, key: str) -> None:
    """Every secret may stand in a file; the line break that editors add is not part of it, other spaces are."""
    file = tmp_path / "secret"
    file.write_bytes(f" {SECRET} \r\n".encode())
    settings = given(**{f"{key}_FILE": str(file)})
    assert getattr(settings, key.lower()).get_secret_value() == f" {SECRET} "


def test_secret_twice_is_a_mistake(problems: Problems, tmp_path: Path) -> None:
    """With both the variable and the file nobody could tell which counts."""
    (tmp_path / "secret").write_text("other")
    told = problems(HOOK_SECRET=SECRET, HOOK_SECRET_FILE=str(tmp_path / "secret"))
    assert told == ["SHIPSHAPE_HOOK_SECRET_FILE: is set, and so is the variable without _FILE; one of them has to go"]


@pytest.mark.parametrize("content", [None, b"\xff\xfe"], ids=["missing", "not text"])
def test_secret_file_that_cannot_be_read(problems: Problems, tmp_path: Path, content: bytes | None) -> None:
    """The variable and the reason are told; not its value, since some put the secret itself there."""
    file = tmp_path / SECRET
    if content:
        file.write_bytes(content)
    (told,) = problems(BOT_APP_PASSWORD_FILE=str(file))
    assert told.startswith("SHIPSHAPE_BOT_APP_PASSWORD_FILE: the file cannot be read: ")
    assert SECRET not in told


def test_only_secrets_come_from_files(problems: Problems) -> None:
    """`_FILE` at any other setting is a variable that does not exist."""
    assert problems(PORT_FILE="/run/port") == ["SHIPSHAPE_PORT_FILE: is not a setting"]


def test_file_that_is_not_text(tmp_path: Path) -> None:
    """A `.env` in another encoding is one sentence."""
    file = tmp_path / ".env"
    file.write_bytes(b"SHIPSHAPE_HOOK_SECRET=\xff\xfe\n")
    with pytest.raises(ConfigError) as refused:
        read({}, env_file=file)
    assert refused.value.problems == [f"{file}: cannot be read: UnicodeDecodeError"]


def test_all_mistakes_are_told_at_once(problems: Problems) -> None:
    """Each wrong setting is one line with its key, in `.env` and in the environment alike."""
    assert problems(
        "SHIPSHAPE_LOG_LEVEL=LOUD\n",
        PORT="70000",
        POLL_INTERVAL="0",
        VERIFY_TIMEOUT="inf",
        TIMEZONE="Europe",
        BOT_APP_TYPE="MultiTenant",
        REGISTRY_MIRRORS='{"mcr.microsoft.com": "http://cache.contoso.com"}',
        SHEDULE="0 6 * * 1",
    ) == [
        "SHIPSHAPE_BOT_APP_TYPE: Input should be 'SingleTenant' or 'UserAssignedMSI'",
        "SHIPSHAPE_LOG_LEVEL: Input should be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'",
        "SHIPSHAPE_POLL_INTERVAL: Input should be greater than 0",
        "SHIPSHAPE_PORT: Input should be less than or equal to 65535",
        "SHIPSHAPE_REGISTRY_MIRRORS: the mirror of mcr.microsoft.com has to start with https://"
        " (plain http only on loopback)",
        "SHIPSHAPE_SHEDULE: is not a setting",
        "SHIPSHAPE_TIMEZONE: is not a time zone such as UTC or Europe/Madrid",
        "SHIPSHAPE_VERIFY_TIMEOUT: Input should be less than or equal to 86400",
    ]


@pytest.mark.parametrize(
    "key", ["AZURE_DEVOPS_URL", "BOT_LOGIN_URL", "BOT_OPENID_METADATA_URL", "ECR_EVENTS_QUEUE_URL"]
)
def test_https_is_asked_for(given: Given, problems: Problems, key: str) -> None:
    """What carries a token or says whom to trust has to be https; plain http is fine on this machine only."""
    http = f"SHIPSHAPE_{key}: has to start with https:// (plain http only on loopback)"
    for url in ("http://contoso.com/x", "http://127.0.0.1.contoso.com", "ftp://contoso.com", "contoso.com/x"):
        assert problems(**{key: url}) == [http]
    assert problems(**{key: "https://"}) == [f"SHIPSHAPE_{key}: names no host"]
    for url in ("https://contoso.com/x", "http://127.0.0.1:8080/x", "http://localhost/x", "http://[::1]:80/x"):
        assert getattr(given(**{key: url}), key.lower()) == url


def test_password_does_not_belong_into_a_url(problems: Problems) -> None:
    """A token written into the address would end in logs; it is refused without repeating it."""
    (told,) = problems(AZURE_DEVOPS_URL=f"https://bot:{SECRET}@dev.azure.com/contoso")
    assert told == "SHIPSHAPE_AZURE_DEVOPS_URL: must not hold a user or a password"


AZURE = {"AZURE_DEVOPS_URL": "https://dev.azure.com/contoso"}


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "::", "bot.contoso.com", "127.0.0.1.contoso.com"])
def test_anonymous_only_on_this_machine(problems: Problems, host: str) -> None:
    """Without credentials the bot listens on a loopback address or not at all."""
    told = problems(ALLOW_ANONYMOUS="true", HOST=host, **AZURE)
    assert told == ["SHIPSHAPE_ALLOW_ANONYMOUS: is refused unless HOST is a loopback address"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_anonymous_on_loopback(given: Given, host: str) -> None:
    """On a loopback address the bot may be asked by anybody on this machine."""
    given(ALLOW_ANONYMOUS="true", HOST=host, **AZURE).require_serving()


def test_serving_needs_credentials(given: Given, problems: Problems) -> None:
    """A start without credentials is refused with what is missing, by kind of bot."""
    assert problems() == [
        "SHIPSHAPE_BOT_APP_ID: is missing, a SingleTenant bot needs it",
        "SHIPSHAPE_BOT_TENANT_ID: is missing, a SingleTenant bot needs it",
        "SHIPSHAPE_BOT_APP_PASSWORD: is missing, a SingleTenant bot needs it",
        "SHIPSHAPE_AZURE_DEVOPS_URL: is missing, for example https://dev.azure.com/contoso",
    ]
    assert problems(BOT_APP_TYPE="UserAssignedMSI", BOT_APP_ID="app", **AZURE) == [
        "SHIPSHAPE_BOT_TENANT_ID: is missing, a UserAssignedMSI bot needs it"
    ]
    given(BOT_APP_TYPE="UserAssignedMSI", BOT_APP_ID="app", BOT_TENANT_ID="tenant", **AZURE).require_serving()
    given(BOT_APP_PASSWORD=SECRET, BOT_APP_ID="app", BOT_TENANT_ID="tenant", **AZURE).require_serving()


def test_no_secret_is_ever_shown(given: Given, problems: Problems) -> None:
    """Neither the settings as text nor a mistake in or beside a secret shows it."""
    secrets = dict.fromkeys(SECRETS, SECRET)
    mirrors = f'{{"mcr.microsoft.com": "https://bot:{SECRET}@cache.contoso.com"}}'
    settings = given(**secrets, REGISTRY_MIRRORS=mirrors)
    assert settings.registry_mirrors["mcr.microsoft.com"].startswith(f"https://bot:{SECRET}@")
    told = problems(**secrets, REGISTRY_MIRRORS=mirrors[:-1], PORT=SECRET, LOG_LEVEL=SECRET, TIMEZONE=SECRET)
    assert SECRET not in "\n".join([repr(settings), str(settings), *told])
    assert len(told) == 4
