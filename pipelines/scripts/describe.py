"""Prints what the catalog says about one image, as one line of JSON. Usage: python describe.py IMAGE

Keys: registry, repository, tag, extra_tags, platforms, base, and lines (the tags of all images in the same repository).
"""

import json
import os
import sys
from pathlib import Path

from bot.catalog.catalog import load
from bot.errors import ConfigError


def describe(catalog_path: Path, name: str) -> dict[str, object]:
    """Raises ConfigError when the catalog is wrong, KeyError when it does not name the image."""
    catalog = load(catalog_path)
    image = catalog[name]
    base = image.base or catalog[image.parent or ""].reference(catalog[image.parent or ""].tag)
    here = (image.registry, image.repository)
    return {
        "registry": image.registry,
        "repository": image.repository,
        "tag": image.tag,
        "extra_tags": image.extra_tags,
        "platforms": [str(platform) for platform in image.platforms],
        "base": str(base),
        "lines": [other.tag for other in catalog.values() if (other.registry, other.repository) == here],
    }


def main(name: str) -> int:
    path = Path(os.environ.get("SHIPSHAPE_CATALOG") or "pipelines/catalog.yml")
    try:
        sys.stdout.write(json.dumps(describe(path, name)) + "\n")
    except KeyError:
        sys.stderr.write(f"{path} has no image {name}\n")
        return 1
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
