"""Audit rows for what happens to rebuilds."""

from bot.core.ports import Clock
from bot.core.rebuilds import AuditEntry, Rebuild


def system_entry(old: Rebuild | None, new: Rebuild, action: str, clock: Clock) -> AuditEntry:
    """The row for a change that the bot itself made."""
    old_digest, new_digest = new.digests
    return AuditEntry(
        at=clock.now(),
        actor=None,
        action=action,
        image=new.image,
        rebuild_id=new.id,
        old_state=old.state if old else "",
        new_state=new.state,
        old_digest=old_digest or "",
        new_digest=new_digest or "",
        comment=new.ended_reason or new.reason,
    )
