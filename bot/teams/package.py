"""Builds the Teams app package from `manifest/`.

https://learn.microsoft.com/microsoftteams/platform/concepts/build-and-test/apps-package
"""

import re
import zipfile
from pathlib import Path

from bot.errors import ConfigError

SOURCE = Path("manifest")
FILES = ("color.png", "outline.png")
PLACEHOLDER = "${BOT_APP_ID}"


def build(app_id: str, out: Path) -> Path:
    """Write `shipshape.zip` into the folder and return its path. Raises ConfigError."""
    if not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", app_id.lower()):
        raise ConfigError(["SHIPSHAPE_BOT_APP_ID: has to be the id of your bot's app registration"])
    try:
        manifest = (SOURCE / "manifest.json").read_text("utf-8").replace(PLACEHOLDER, app_id)
        out.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(out / "shipshape.zip", "w", zipfile.ZIP_DEFLATED) as package:
            package.writestr("manifest.json", manifest)
            for name in FILES:
                package.write(SOURCE / name, name)
    except OSError as error:
        raise ConfigError([f"the package cannot be built: {error}"]) from None
    return out / "shipshape.zip"
