"""What `shipshape demo` needs, says and leaves behind. No browser is needed for that."""

import asyncio
import os
import socket
from contextlib import closing
from pathlib import Path

from tests.e2e.demo import SHIPSHAPE, free_place, is_free, started


async def test_without_node_there_is_the_terminal_chat(tmp_path: Path) -> None:
    """A machine without Node.js gets the command of the terminal chat, and that command is answered."""
    place = free_place(tmp_path / "demo")
    async with started(place, environment={"PATH": str(tmp_path)}) as demo:
        await demo.until_said("Ctrl-C ends the demo")
        assert "needs Node.js" in demo.text
        assert place.page not in demo.text
        command = next(line.split() for line in demo.lines if line.startswith("  terminal"))[1:]
        chat = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await asyncio.wait_for(chat.communicate(b"list\n"), 10)
        assert "6 images" in said.decode()


async def test_a_taken_port_is_named(tmp_path: Path) -> None:
    """With a port in use nothing starts and nothing is forgotten; the message names the port and what to do."""
    place = free_place(tmp_path / "demo")
    state = place.directory / "world" / "runs.json"
    state.parent.mkdir(parents=True)
    state.write_text("[]")
    with closing(socket.create_server(("127.0.0.1", place.ports[3]))):
        async with started(place, "--fresh") as demo:
            await demo.until_said("--ports-from")
            assert await asyncio.wait_for(demo.process.wait(), 10) == 1
    assert f"port {place.ports[3]} for ECR" in demo.text
    assert "Traceback" not in demo.text
    assert state.exists()


async def test_fresh_forgets_what_demos_made_and_nothing_else(tmp_path: Path) -> None:
    """`--fresh` starts anew; other files in the folder stay."""
    place = free_place(tmp_path)
    mine = tmp_path / "notes.txt"
    for file in (mine, tmp_path / "bases-moved", tmp_path / "world" / "left-over"):
        file.parent.mkdir(exist_ok=True)
        file.write_text("before")
    async with started(place, "--fresh") as demo:
        await demo.until_said("Ctrl-C ends the demo")
        assert "Going on where" not in demo.text
    assert mine.read_text() == "before"
    assert not (tmp_path / "bases-moved").exists()
    assert not (tmp_path / "world" / "left-over").exists()


async def test_ctrl_c_while_it_starts(tmp_path: Path) -> None:
    """Stopped before everything is up, the demo ends in good order and leaves no process."""
    place = free_place(tmp_path)
    async with started(place) as demo:
        await demo.until_said("Starting")
        assert await demo.stop() == 0
    assert "Traceback" not in demo.text
    assert all(map(is_free, place.ports))


async def test_settings_of_a_real_bot_stay_out(tmp_path: Path) -> None:
    """What the caller has for a real bot, as variables or in `.env`, does not reach the demo."""
    place = free_place(tmp_path / "demo")
    (tmp_path / ".env").write_text("SHIPSHAPE_ALLOWED_TENANTS=contoso-tenant\n")
    foreign = {"SHIPSHAPE_DATABASE_URL": "sqlite+aiosqlite:////nowhere/real.db", "AWS_PROFILE": "production"}
    async with started(place, environment=foreign, directory=tmp_path) as demo:
        await demo.until_said("Ctrl-C ends the demo")
        chat = await asyncio.create_subprocess_exec(
            *(str(SHIPSHAPE), "chat", "--url", place.bot),
            env=dict(os.environ),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await asyncio.wait_for(chat.communicate(b"list\n"), 10)
        assert "6 images" in said.decode()
