from django.db import migrations


class Migration(migrations.Migration):
    """What was done to one thing is found in the admin's log by an index, which Django has not made."""

    dependencies = [
        ("builds", "0012_roles"),
        ("admin", "0003_logentry_add_action_flag_choices"),
    ]

    operations = [
        migrations.RunSQL(
            "CREATE INDEX admin_log_by_object ON django_admin_log (object_id)",
            "DROP INDEX admin_log_by_object",
        ),
    ]
