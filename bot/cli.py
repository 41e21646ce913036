"""The command line. Imports of what a command needs stand in the command, so that each starts at once."""

import asyncio
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from bot.errors import BotError, CommandError, ConfigError

if TYPE_CHECKING:
    from bot.catalog.catalog import Catalog
    from bot.config import Settings
    from bot.core.checks import Verdict
    from bot.core.images import PlatformImage
    from bot.core.support import Support

app = typer.Typer(
    help="Keeps platform images on fresh base images, from a Teams chat.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
hooks = typer.Typer(help="Events of Azure DevOps: who tells the bot when a run changes.", no_args_is_help=True)
app.add_typer(hooks, name="hooks")
EXIT_ERROR, EXIT_STALE, EXIT_UNKNOWN = 1, 10, 20
T = TypeVar("T")
HookUrl = Annotated[str, typer.Option("--url", help="the bot's own address, https://…/api/hooks/azure-devops")]
Image = Annotated[str, typer.Argument(help="a name from the catalog", show_default=False)]


@app.command()
def serve() -> None:
    """Run the bot until it is told to stop."""
    settings = _settings()
    _or_exit(settings.require_serving)
    from bot import logs

    logs.configure(settings.log_level)
    from bot.app import open_app

    async def run() -> None:
        stopped = _stop_signal()
        async with open_app(settings):
            await stopped.wait()

    _run(run)


@app.command()
def demo(
    fresh: Annotated[bool, typer.Option("--fresh", help="forget what happened in earlier demos")] = False,
    directory: Annotated[Path, typer.Option(help="where the local world is kept")] = Path(".demo"),
    ports_from: Annotated[
        int, typer.Option(min=1, max=65532, help="the chat page's port; its peers take the three after it")
    ] = 56150,
) -> None:
    """Run the bot in a local world that needs no account: registry, ECR, Azure DevOps and chat."""
    from bot.demo.demo import run_demo

    async def run() -> None:
        await run_demo(directory, fresh=fresh, ports_from=ports_from, stopped=_stop_signal())

    _run(run)


@app.command()
def chat(
    as_json: Annotated[bool, typer.Option("--json", help="print every activity as one JSON line")] = False,
    user: Annotated[str, typer.Option("--as", help="the principal name to speak as")] = "alex.wilber@contoso.com",
    url: Annotated[str, typer.Option(help="the bot; default: from the settings", show_default=False)] = "",
    wait: Annotated[float, typer.Option(help="seconds to go on listening after the last line")] = 0,
) -> None:
    """Talk to a running bot: each line is a message, `!N` presses button N of the last card, `!N text` fills it in."""
    from bot.chat import talk
    from bot.config import read

    bot_url = url
    if not bot_url:
        settings = _or_exit(read)
        bot_url = f"http://{settings.host}:{settings.port}"
    _run(lambda: talk(bot_url, user, as_json=as_json, wait_s=wait))


@app.command()
def check(
    images: Annotated[list[str] | None, typer.Argument(help="names from the catalog; all without one")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="also tell what a running bot would do")] = False,
) -> None:
    """Compare images with their bases now, and only look.

    Exits with 0 when all are fresh, 10 when one is stale or not built yet, 20 when one is unknown, 1 on an error.
    """
    from bot.core.checks import Status

    settings = _settings()
    catalog = _catalog(settings)
    chosen = [_image(catalog, name) for name in images or catalog]
    verdicts, requests = _run(lambda: _look(settings, catalog, chosen, explained=not as_json))
    rows = [_row(verdict, catalog[verdict.name], dry_run) for verdict in verdicts]
    now = datetime.now(UTC)
    report = {
        "checked_at": now.isoformat(timespec="seconds"),
        "images": rows,
        "requests": {"registry": requests.registry, "ecr": requests.ecr},
    }
    lines = (_line(row, verdict.support, now.date()) for row, verdict in zip(rows, verdicts, strict=True))
    print(json.dumps(report) if as_json else "\n".join(lines))
    found = {verdict.status for verdict in verdicts}
    if Status.UNKNOWN in found:
        raise typer.Exit(EXIT_UNKNOWN)
    if found & {Status.STALE, Status.UNBUILT}:
        raise typer.Exit(EXIT_STALE)


@app.command()
def audit(
    since: Annotated[str, typer.Option(help="the first day, 2026-01-01, or how long ago, 30d")] = "",
    until: Annotated[str, typer.Option(help="the last day, or how long ago")] = "",
    image: Annotated[str, typer.Option(help="of this image only", show_default=False)] = "",
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object per line; the default")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="print CSV")] = False,
) -> None:
    """Print who did what: every row of the audit, from the database, also while the bot runs."""
    from bot.audit import moment, write_csv, write_json

    if as_json and as_csv:
        _fail(CommandError("--json or --csv, not both"))
    now = datetime.now(UTC)
    first = _or_exit(lambda: moment("--since", since, now)) if since else None
    end = _or_exit(lambda: moment("--until", until, now, end=True)) if until else None
    if first and end and first >= end:
        _fail(CommandError(f"--since {since} is not before --until {until}"))
    settings = _settings()

    async def export() -> None:
        from bot.app import open_audit

        async with open_audit(settings) as rows:
            await (write_csv if as_csv else write_json)(rows.audit_between(first, end, image or None), sys.stdout)
        sys.stdout.flush()

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", newline="")  # whatever the terminal's own
    _run(export)


@app.command()
def next_tag(
    image: Image,
    new_base: Annotated[
        bool | None,
        typer.Option(help="count a new base (minor) or not (patch); default: compare now", show_default=False),
    ] = None,
) -> None:
    """Print the version tag that the next build of an image gets."""
    settings = _settings()
    catalog = _catalog(settings)
    print(_run(lambda: _next_tag(settings, catalog, _image(catalog, image), new_base)))


@app.command()
def catalog_schema() -> None:
    """Print the JSON schema of the catalog, for editors."""
    from bot.catalog.entries import schema

    print(json.dumps(schema(), indent=2))


@app.command()
def doctor() -> None:
    """Check settings, catalog and every peer, one line each."""
    from bot.doctor import examine

    healthy = _run(lambda: examine(print))
    if not healthy:
        raise typer.Exit(EXIT_ERROR)


@app.command()
def manifest(out: Annotated[Path, typer.Option(help="the folder to write to")]) -> None:
    """Build the Teams app package, ready to upload, from the settings."""
    from bot.teams.package import build

    settings = _settings()
    print(_or_exit(lambda: build(settings.bot_app_id, out)))


@hooks.command("install")
def install_hooks(url: HookUrl) -> None:
    """Have each project of the catalog tell the bot of its runs; mends what is there already."""
    from bot.hook_setup import install

    settings = _settings()
    print("\n".join(_run(lambda: install(settings, url))))


@hooks.command("status")
def show_hooks(url: HookUrl) -> None:
    """Show the subscriptions to this address. Exits with 1 when one is missing or not enabled."""
    from bot.hook_setup import status

    settings = _settings()
    lines, healthy = _run(lambda: status(settings, url))
    print("\n".join(lines))
    if not healthy:
        raise typer.Exit(EXIT_ERROR)


@hooks.command("remove")
def remove_hooks(url: HookUrl) -> None:
    """Remove the subscriptions to this address, and no others."""
    from bot.hook_setup import remove

    settings = _settings()
    print("\n".join(_run(lambda: remove(settings, url))))


async def _look(settings: "Settings", catalog: "Catalog", images: "list[PlatformImage]", *, explained: bool) -> Any:
    from bot.app import open_check

    async with open_check(settings, catalog) as (checker, meaning):
        verdicts, requests = await checker.check(images)
        return await meaning.explain(verdicts) if explained else verdicts, requests


async def _next_tag(settings: "Settings", catalog: "Catalog", image: "PlatformImage", new_base: bool | None) -> str:
    from bot.app import open_checker
    from bot.core.checks import Status
    from bot.core.images import next_version

    async with open_checker(settings, catalog) as checker:
        published = await checker.newest(image)
        if new_base is None and published:
            verdict = await checker.against(image, await checker.current(image), published)
            new_base = verdict.status is not Status.FRESH
        version = next_version(published.version if published else None, new_base=bool(new_base))
        return image.version_tag(version)


def _row(verdict: "Verdict", image: "PlatformImage", dry_run: bool) -> dict[str, Any]:
    keys = ("name", "status", "reason", "base", "recorded_digest", "current_digest", "evidence", "version_tag")
    values = asdict(verdict)
    row = {key: values[key] for key in keys}
    if dry_run:
        acts = verdict.status in ("stale", "unbuilt")
        row["would"] = {"ask": "ask", "auto": "queue", "notify": "tell"}[image.mode] if acts else "nothing"
    return row


def _line(row: dict[str, Any], support: "Support | None", today: date) -> str:
    digests = " → ".join((row[key] or "?")[7:19] or "?" for key in ("recorded_digest", "current_digest"))
    over = f"; out of support since {support.ends}" if support and support.is_over(today) else ""
    would = f"  would: {row['would']}" if "would" in row else ""
    return (
        f"{row['name']:24} {row['status']:8} {row['version_tag'] or '-':28} {digests:28} {row['reason']}{over}{would}"
    )


def _settings() -> "Settings":
    from bot.config import read

    return _or_exit(read)


def _catalog(settings: "Settings") -> "Catalog":
    from bot.catalog.catalog import load

    return _or_exit(lambda: load(settings.catalog))


def _image(catalog: "Catalog", name: str) -> "PlatformImage":
    from bot.teams.parsing import image_name

    return _or_exit(lambda: catalog[image_name(name, catalog, "check")])


def _or_exit(work: "Callable[[], T]") -> "T":
    try:
        return work()
    except BotError as error:
        _fail(error)


def _run(work: "Callable[[], Coroutine[Any, Any, T]]") -> "T":
    try:
        return asyncio.run(work())
    except BotError as error:
        _fail(error)
    except BrokenPipeError:  # whoever read our output, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit from None
    except OSError as error:
        print(f"shipshape: {error}", file=sys.stderr)
        raise typer.Exit(EXIT_ERROR) from None


def _fail(error: BotError) -> NoReturn:
    for line in error.problems if isinstance(error, ConfigError) else [str(error)]:
        print(f"shipshape: {line}", file=sys.stderr)
    raise typer.Exit(EXIT_ERROR) from None


def _stop_signal() -> asyncio.Event:
    """Set by Ctrl-C or SIGTERM; a second one ends the process at once."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop(number: int) -> None:
        stopped.set()
        loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    return stopped
