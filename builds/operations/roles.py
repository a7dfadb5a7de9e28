"""The three roles of staff, as groups: who sees, who acts, who may do everything.

A migration makes them. What each may do is set anew whenever the database is migrated, so that they hold the
permissions of models that are new; other mixtures are groups of one's own.
"""

from typing import Any

from django.contrib.auth.models import Group, Permission

_APPS = ("projects", "builds", "auth", "admin")
_OPERATE = ("operate_build", "operate_queue", "operate_generation", "operate_delivery")
# Nobody edits history, whatever a group says: pages of records are read-only. Sessions and types are nobody's.


def set_roles(**_: Any) -> None:
    """For post_migrate, after the permissions have been made. A role that is missing is made again."""
    known = list(Permission.objects.filter(content_type__app_label__in=_APPS))
    seeing = [each for each in known if each.codename.startswith("view_")]
    acting = [each for each in known if each.codename in _OPERATE]
    for name, permissions in (("viewer", seeing), ("operator", seeing + acting), ("administrator", known)):
        Group.objects.get_or_create(name=name)[0].permissions.set(permissions)
