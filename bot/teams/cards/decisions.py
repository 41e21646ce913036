"""The buttons that decide, and their inline forms."""

from collections.abc import Sequence

from microsoft_teams.cards.core import Action, Choice, ChoiceSetInput, TextInput

from bot.core.rebuilds import Rebuild
from bot.teams.cards.card import button, form, line, text_input

PAUSES = (("1 day", "1d"), ("3 days", "3d"), ("1 week", "1w"), ("30 days", "30d"))


def approve(rebuild: Rebuild) -> Action:
    return button("Approve", "approve", style="positive", target=rebuild.id, **_in_azure(rebuild))


def comment(rebuild: Rebuild) -> TextInput:
    """What Approve sends along; for behind *Why?*."""
    return text_input("comment", rebuild.id, label=f"Comment for the approval of {rebuild.image}")


def reject(rebuild: Rebuild) -> Action:
    """An inline form: a rejection needs a reason, for those who ask why."""
    reason = text_input("reason", rebuild.id, label="Reason", required="A rejection needs a reason.")
    confirm = button(f"Reject {rebuild.image}", "reject", style="destructive", target=rebuild.id, **_in_azure(rebuild))
    return form("Reject…", [reason], confirm)


def _in_azure(rebuild: Rebuild) -> dict[str, str]:
    """Names what Azure waits for, so that the button of an earlier question never answers this one."""
    return {"approval": rebuild.waiting_approval.id} if rebuild.waiting_approval else {}


def approve_all(title: str, **scope: str) -> Action:
    """One press for everything that waits within the scope: `check` or `after`, with the id of its subject."""
    return button(title, "approve", style="positive", target="all", **scope)


def reject_all(title: str, **scope: str) -> Action:
    """An inline form with one reason for all."""
    reason = text_input("reason", "all", label="Reason", required="A rejection needs a reason.")
    confirm = button(title, "reject", style="destructive", target="all", **scope)
    return form("Reject all…", [reason], confirm)


def cancel(rebuild: Rebuild) -> Action:
    """An inline form, so that nothing is destroyed by one press."""
    told = "The run is stopped in Azure DevOps." if rebuild.run_id else "Nothing has been queued yet."
    told = "No tag has been moved yet." if rebuild.is_rollback else told
    confirm = button(f"Cancel {rebuild.image}", "cancel", style="destructive", target=rebuild.id)
    return form("Cancel…", [line(told)], confirm)


def snooze(image: str) -> Action:
    """An inline form: for how long, and why if somebody likes to say."""
    pause = ChoiceSetInput(
        id=f"pause.{image}",
        label="Ask again in",
        value="3d",
        choices=[Choice(title=title, value=value) for title, value in PAUSES],
    )
    reason = text_input("comment", image, label="Reason, if there is one")
    return form("Snooze…", [pause, reason], button(f"Snooze {image}", "snooze", target=image))


def hold(image: str) -> Action:
    """An inline form: whoever finds the hold wants to know why."""
    reason = text_input("reason", image, label="Reason", required="A hold needs a reason.")
    return form("Hold…", [reason], button(f"Hold {image}", "hold", target=image))


def release(image: str) -> Action:
    return button("Release", "release", target=image)


def roll_back(image: str, versions: Sequence[str], *, instead_of: str = "") -> Action | None:
    """An inline form with a choice of versions, None without any; the reason is what the hold afterwards tells.

    `instead_of` is the version tag in use on this card: when another one is by then, nothing happens.
    """
    if not versions:
        return None
    told = line("Its tags move back in ECR, without a build, and it stays on hold until somebody releases it.")
    version = ChoiceSetInput(
        id=f"version.{image}",
        label="Version",
        value=versions[0],
        choices=[Choice(title=version, value=version) for version in versions],
    )
    reason = text_input("reason", image, label="Reason", required="A rollback needs a reason.")
    confirm = button(f"Roll back {image}", "rollback", target=image, instead_of=instead_of)
    return form("Roll back…", [told, version, reason], confirm)


def start_now(rebuild: Rebuild) -> Action:
    """An inline form: it overrides a rule of the catalog, and those who ask why find the reason."""
    told = line("Its maintenance window is closed. The run is queued all the same.")
    reason = text_input("reason", rebuild.id, label="Reason")
    return form("Start now…", [told, reason], button(f"Start {rebuild.image} now", "now", target=rebuild.id))
