"""Imports point inward. The table in CONTRIBUTING.md says why; these tests read the imports and hold it."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What each part of the bot may import of the bot, itself aside. Parts are folders, and files that are in none.
MAY_IMPORT = {
    "": set(),  # bot/__init__.py
    "__main__": {"cli"},
    "app": {"catalog", "clients", "config", "core", "errors", "loops", "schedule", "store", "teams", "web"},
    "audit": {"core", "errors"},
    "catalog": {"core", "errors"},
    "chat": {"errors"},
    "cli": {
        "app",
        "audit",
        "catalog",
        "chat",
        "config",
        "core",
        "demo",
        "doctor",
        "errors",
        "hook_setup",
        "logs",
        "teams",
    },
    "clients": {"core", "errors"},
    "config": {"core", "errors"},
    "core": {"errors"},
    "demo": {"catalog", "clients", "config", "core", "errors"},
    "doctor": {"app", "catalog", "clients", "config", "core", "errors", "hook_setup", "store"},
    "errors": set(),
    "hook_setup": {"catalog", "clients", "config", "core", "errors", "web"},
    "logs": set(),
    "loops": {"core", "teams"},
    "schedule": {"core", "errors"},
    "store": {"core", "errors"},
    "teams": {"core", "errors"},
    "web": {"core", "errors", "teams"},
}
# Libraries that one place alone may know, so that replacing one is a change of that place.
AT_HOME = {
    "botbuilder": {"bot/teams/"},
    "botframework": {"bot/teams/"},
    "microsoft_teams": {"bot/teams/cards/"},
    "boto3": {"bot/clients/ecr.py", "bot/clients/ecr_events.py"},
    "azure.devops": {"bot/clients/azure_"},  # all of one client: pipelines, hooks
    "apscheduler": {"bot/schedule.py"},
    "sqlalchemy": {"bot/store/"},
    "alembic": {"bot/store/"},
    "moto": {"bot/demo/"},
    "structlog": {"bot/logs.py"},
    "typer": {"bot/cli.py"},
}
MODULES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "bot").rglob("*.py"))


def imports(module: str) -> Iterator[str]:
    """The dotted names that a file imports, anywhere in it: `from a.b import c` is `a.b.c`."""
    for node in ast.walk(ast.parse((ROOT / module).read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part(dotted: str) -> str:
    """`bot.teams.cards.card` belongs to `teams`, `bot.app.open_app` to `app`; `bot.__version__` to none."""
    name = dotted.removeprefix("bot").lstrip(".").partition(".")[0]
    return name if name in MAY_IMPORT else ""


def part_of(module: str) -> str:
    return part(module.removesuffix(".py").replace("/", "."))


def is_or_below(dotted: str, package: str) -> bool:
    return dotted == package or dotted.startswith(f"{package}.")


def test_every_part_has_a_rule() -> None:
    """A folder or file that is new in bot/ needs a line in the table."""
    names = {path.stem for path in (ROOT / "bot").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}

    assert (names - {"__init__"}) | {""} == set(MAY_IMPORT)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_inward(module: str) -> None:
    """A module imports its own part, and those the table allows."""
    allowed = MAY_IMPORT[part_of(module)] | {part_of(module), ""}

    assert {name for name in imports(module) if is_or_below(name, "bot") and part(name) not in allowed} == set()


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("bot/core/")])
def test_the_rules_need_no_library(module: str) -> None:
    """What decides is free of frameworks: the standard library, and nothing that talks to somebody."""
    libraries = {name.partition(".")[0] for name in imports(module)} - {"bot"}

    assert libraries <= sys.stdlib_module_names - {"http", "os", "socket", "sqlite3", "subprocess", "urllib"}


@pytest.mark.parametrize("library", AT_HOME)
def test_a_library_stays_at_home(library: str) -> None:
    """Only the named places import a library that may have to be replaced one day, and they do."""
    users = {module for module in MODULES if any(is_or_below(name, library) for name in imports(module))}
    homes = AT_HOME[library]

    assert {module for module in users if not module.startswith(tuple(homes))} == set()
    assert {home for home in homes if not any(module.startswith(home) for module in users)} == set()


def test_only_the_composition_root_names_classes_behind_ports() -> None:
    """Clients and store are put together in one place; besides it only doctor, which examines them, knows them."""
    classes = {
        "bot.clients.oci.OciRegistry",
        "bot.clients.ecr.EcrRepositories",
        "bot.clients.ecr_events.EcrEvents",
        "bot.clients.azure_pipelines.AzurePipelines",
        "bot.store.store.SqlStore",
    }
    users = {module for module in MODULES if classes & set(imports(module))}

    assert users <= {"bot/app.py", "bot/doctor.py"}
