from typing import Any

from django.db import migrations

RENAMED = (("owner turn", "fair share"), ("outside turn", "external fair share"))
ACTIONS = ("add", "change", "delete", "view")


def rename(apps: Any, pairs: list[tuple[str, str]]) -> None:
    permissions = apps.get_model("auth", "Permission").objects.filter(content_type__app_label="builds")
    for before, after in pairs:
        for action in ACTIONS:
            old, new = (f"{action}_{name.replace(' ', '')}" for name in (before, after))
            permissions.filter(codename=old).update(codename=new, name=f"Can {action} {after}")


def forwards(apps: Any, schema_editor: Any) -> None:
    rename(apps, list(RENAMED))


def backwards(apps: Any, schema_editor: Any) -> None:
    rename(apps, [(after, before) for before, after in RENAMED])


class Migration(migrations.Migration):
    """Permissions keep their groups: Django renames a model's content type, but makes new permissions beside the old."""

    dependencies = [
        ("builds", "0014_fair_share_rows"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]

    operations = [
        migrations.RunPython(forwards, backwards),
    ]
