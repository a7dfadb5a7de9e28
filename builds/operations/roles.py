"""The three staff roles, as groups: view, operate, administer.

A migration creates them. Their permissions are set again whenever the database is migrated, so that they include those
of new models; for other combinations, make your own groups.
"""

from typing import Any

from django.contrib.auth.models import Group, Permission

_APPS = ("projects", "builds", "auth", "admin")
_OPERATE = ("operate_build", "operate_queue", "operate_generation", "operate_delivery")
# Record pages are read-only for every group: nobody edits history. Sessions and content types are excluded.


def set_roles(**_: Any) -> None:
    """For post_migrate, after the permissions exist. Creates missing roles."""
    known = list(Permission.objects.filter(content_type__app_label__in=_APPS))
    seeing = [each for each in known if each.codename.startswith("view_")]
    acting = [each for each in known if each.codename in _OPERATE]
    for name, permissions in (("viewer", seeing), ("operator", seeing + acting), ("administrator", known)):
        Group.objects.get_or_create(name=name)[0].permissions.set(permissions)
