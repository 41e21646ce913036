"""People who act, and how they vote."""

from dataclasses import dataclass
from datetime import datetime

from bot.core.images import ApprovalRules


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody who acts. `id` is the Entra object id where Teams tells it; `mri` is what a mention needs."""

    id: str
    name: str
    mri: str = ""
    principal_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """One approval, given for the digest of its rebuild."""

    person: Person
    at: datetime
    comment: str = ""


def is_same(one: Person, other: Person) -> bool:
    """Whether two acts are of one person. Teams' id tells when one activity came without the object id."""
    return one.id == other.id or bool(one.mri and one.mri == other.mri)


def is_named(rules: ApprovalRules, person: Person) -> bool:
    """Whether the catalog names this person as an approver, by object id or principal name.

    Whoever is not named may still be a member of one of `rules.channels`: ask `Permissions`.
    """
    return bool({person.id.lower(), person.principal_name.lower()} & rules.approvers)
