"""The README is what somebody at another company has: it names everything there is, and nothing that is not."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import click
import pytest
import typer
from pydantic import SecretStr

from bot import cli
from bot.catalog.entries import schema
from bot.config import SECRETS, Settings
from bot.core.rebuilds import ENDED, TRANSITIONS
from bot.teams.commands.table import COMMANDS
from tests.conftest import Bot

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")


def commands(group: Any, *before: str) -> Iterator[tuple[str, click.Command]]:
    """Every command by what is typed, those of a group below its name."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *before, name)
        else:
            yield " ".join((*before, name)), command


COMMAND_LINE = dict(commands(typer.main.get_command(cli.app)))


def section(title: str) -> str:
    """What stands below a heading, up to the next one of its level."""
    return re.split(r"^## ", README.partition(f"\n## {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def rows(title: str) -> Iterator[list[str]]:
    """The cells of the rows of a section's first table, without those of its head."""
    table = section(title).partition("\n|")[2].partition("\n\n")[0].splitlines()
    for row in table[2:]:
        yield [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", row.strip().strip("|"))]


def code(cell: str) -> str:
    return cell.strip("`")


def default_of(name: str) -> str:
    """A default as somebody would write it into the environment; nothing for an empty one."""
    default: Any = Settings.model_fields[name].get_default(call_default_factory=True)
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    if isinstance(default, bool):
        return str(default).lower()
    return ",".join(default) if isinstance(default, tuple) else str(default)


def test_every_setting_is_explained() -> None:
    """The table has each setting with its default and a meaning, in the order of the code, and no other."""
    table = [(code(key), code(default), bool(meaning)) for key, default, meaning in rows("Settings")]

    assert table == [(name.upper(), default_of(name), True) for name in Settings.model_fields]


def test_secrets_are_marked() -> None:
    """Exactly the settings that may come from a file are marked as secret."""
    marked = {code(key).lower() for key, _, meaning in rows("Settings") if "*secret*" in meaning}

    assert marked == SECRETS


def test_every_command_is_explained() -> None:
    """The table has each command as the bot's own help spells it, and no other."""
    table = [code(usage) for usage, _ in rows("Chat commands")]

    assert table == [command.usage for command in COMMANDS.values() if not command.hidden]


def test_every_command_of_the_command_line_is_explained() -> None:
    """The table has each command, with each of its options."""
    table = {code(name): text for name, text in rows("Command line")}
    options = {
        (name, option)
        for name, command in COMMAND_LINE.items()
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
        if option.startswith("--")
    }

    assert set(table) == set(COMMAND_LINE)
    assert {(name, option) for name, option in options if f"`{option}`" not in table[name]} == set()


def test_exit_codes_are_explained() -> None:
    """The exit codes of `check` are the ones of the code."""
    stated = re.search(r"Exit codes of `check`: 0 .+ · (\d+) .*stale.* · (\d+) .*unknown · (\d+) error", README)

    assert stated
    assert tuple(map(int, stated.groups())) == (cli.EXIT_STALE, cli.EXIT_UNKNOWN, cli.EXIT_ERROR)


def test_every_key_of_the_catalog_is_explained() -> None:
    """The table has the keys of the catalog's schema, those of `approval` one by one, and no other."""
    definitions = schema()["$defs"]
    approval = {f"approval.{key}" for key in definitions["ApprovalEntry"]["properties"]}

    assert {code(key) for key, _, _ in rows("Catalog")} == {*definitions["ImageEntry"]["properties"], *approval} - {
        "approval"
    }


def test_the_diagram_is_the_code() -> None:
    """The states and arrows of the diagram are those that a rebuild can take, and every ended state is an end."""
    diagram = section("How a rebuild runs").partition("```mermaid\n")[2].partition("```")[0]
    arrows = set(re.findall(r"^ +(\S+) --> ([^\s:]+)", diagram, re.MULTILINE))
    steps = {(before.value, after.value) for before, afters in TRANSITIONS.items() for after in afters}

    assert {arrow for arrow in arrows if "[*]" not in arrow} == steps
    assert {before for before, after in arrows if after == "[*]"} == {state.value for state in ENDED}


async def test_every_metric_is_explained(bot: Bot) -> None:
    """The table has each metric of a running bot, and no other."""
    async with aiohttp.ClientSession() as session, session.get(f"{bot.app.url}/metrics") as response:
        told = set(re.findall(r"^# TYPE (\S+) ", await response.text(), re.MULTILINE))

    assert set(re.findall(r"^\| `(shipshape_\w+)`", section("HTTP"), re.MULTILINE)) == {
        name for name in told if not name.endswith("_created")
    }


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Every link to a file or heading of the project is one that exists."""
    text = (ROOT / page).read_text("utf-8")
    titles = re.findall(r"^#+ (.+)", text, re.MULTILINE)
    anchors = {"#" + re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    targets = {target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target}

    assert {target for target in targets - anchors if target.startswith("#") or not (ROOT / target).exists()} == set()


def test_make_targets_are_explained() -> None:
    """Every target that the Makefile's head promises exists, and the README's two stand first."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    promised = re.findall(r"^#   make (\w+) ", makefile, re.MULTILINE)
    rules = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))

    assert promised[:2] == re.findall(r"^    make (\w+)", README, re.MULTILINE)[:2] == ["demo", "test"]
    assert set(promised) <= rules


def test_pictures_stay_small() -> None:
    """Screenshots are there and are no burden to clone."""
    pictures = re.findall(r"!\[.+\]\((.+)\)", README)

    assert pictures
    assert all((ROOT / picture).stat().st_size < 300_000 for picture in pictures)
