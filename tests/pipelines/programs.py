"""Programs of this machine, started for the tests and ended with them."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

START_S = 20.0
# With the commands of the environment that runs the tests, shipshape among them.
SEARCH_PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"


class Unavailable(Exception):
    """This machine cannot run the program; the message says why."""


def program(name: str) -> str:
    """The path of an installed program. Raises Unavailable."""
    found = shutil.which(name, path=SEARCH_PATH)
    if not found:
        raise Unavailable(f"{name} is not installed")
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], log: Path, *, stop_s: float = 20.0) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(stop_s)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_until(condition: Callable[[], bool], *, within_s: float = 10) -> None:
    """Raises AssertionError after the deadline."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def wait_until_up(process: subprocess.Popen[bytes], is_up: Callable[[], bool], log: Path) -> None:
    """Raises Unavailable with the end of the log."""
    deadline = time.monotonic() + START_S
    while not is_up():
        if process.poll() is not None or time.monotonic() > deadline:
            raise Unavailable(f"it did not start: {log.read_text(errors='replace')[-300:]}")
        time.sleep(0.02)
