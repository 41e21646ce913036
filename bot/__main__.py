"""`python -m bot`, the same as `shipshape`."""

from bot.cli import app


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
