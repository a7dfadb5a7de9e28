from typing import Any

from django.db import migrations

ROLES = ("viewer", "operator", "administrator")


def make(apps: Any, schema_editor: Any) -> None:
    groups = apps.get_model("auth", "Group").objects
    for name in ROLES:
        groups.get_or_create(name=name)


def remove(apps: Any, schema_editor: Any) -> None:
    apps.get_model("auth", "Group").objects.filter(name__in=ROLES).delete()


class Migration(migrations.Migration):
    """The roles of staff are groups. What each may do is set after every migrate, with the permissions: builds.operations.roles."""

    dependencies = [
        ("builds", "0011_lists_of_everyone_s"),
        ("auth", "0012_alter_user_first_name_max_length"),
    ]

    operations = [
        migrations.RunPython(make, remove),
    ]
