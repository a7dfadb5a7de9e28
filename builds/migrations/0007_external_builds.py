import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    """Builds that a builder outside of this system takes, with turns of their own."""

    dependencies = [
        ("builds", "0006_releases"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField("build", "is_external", models.BooleanField(db_default=False, default=False)),
        migrations.CreateModel(
            name="OutsideTurn",
            fields=[
                (
                    "owner",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        serialize=False,
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                ("claimed_at", models.DateTimeField()),
            ],
            options={"abstract": False},
        ),
        migrations.RemoveIndex("build", "build_claim_order"),
        migrations.AddIndex(
            "build",
            models.Index(
                fields=["is_external", "-priority", "created_at"],
                name="build_claim_order",
                condition=models.Q(status="queued"),
            ),
        ),
        migrations.RemoveIndex("build", "build_finished"),
        migrations.AddIndex(
            "build",
            models.Index(
                fields=["-finished_at"],
                name="build_finished",
                condition=models.Q(status="completed", is_external=False),
            ),
        ),
        migrations.RemoveIndex("build", "build_running_by_owner"),
        migrations.AddIndex(
            "build",
            models.Index(
                fields=["owner", "is_external"],
                name="build_running_by_owner",
                condition=models.Q(status="running"),
            ),
        ),
    ]
