"""Approve and Reject, wherever a rebuild waits."""

from microsoft_teams.cards.core import Action

from bot.core.rebuilds import Rebuild
from bot.teams.cards.card import button, form, line, text_input


def approve(rebuild: Rebuild) -> Action:
    return button("Approve", "approve", style="positive", target=rebuild.id)


def reject(rebuild: Rebuild) -> Action:
    """An inline form: a rejection needs a reason, for those who ask why."""
    reason = text_input("reason", rebuild.id, label="Reason", required="A rejection needs a reason.")
    confirm = button(f"Reject {rebuild.image}", "reject", style="destructive", target=rebuild.id)
    return form("Reject…", [reason], confirm)


def cancel(rebuild: Rebuild) -> Action:
    """An inline form, so that nothing is destroyed by one press."""
    told = "The run is stopped in Azure DevOps." if rebuild.run_id else "Nothing has been queued yet."
    confirm = button(f"Cancel {rebuild.image}", "cancel", style="destructive", target=rebuild.id)
    return form("Cancel…", [line(told)], confirm)
