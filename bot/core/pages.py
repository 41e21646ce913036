"""Pages of the web that are kept, so that they are there after a restart and are not fetched for nothing."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page as it was when it was last asked for. `etag` is empty when the server gave none."""

    url: str
    etag: str
    fetched_at: datetime
    body: bytes
