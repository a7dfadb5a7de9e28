from django.db import migrations, models


class Migration(migrations.Migration):
    """A list with two filters costs no more than with one, however few builds match both."""

    dependencies = [("builds", "0002_lists_and_turns")]

    operations = [
        migrations.AddIndex(
            "build",
            models.Index(fields=["owner", "status", "runtime", "-created_at", "-id"], name="build_by_status_runtime"),
        ),
        migrations.AddIndex(
            "build",
            models.Index(
                fields=["owner", "verdict_class", "status", "-created_at", "-id"],
                name="build_by_verdict_status",
                condition=models.Q(verdict_class__gt=""),
            ),
        ),
        migrations.AddIndex(
            "build",
            models.Index(
                fields=["owner", "verdict_class", "runtime", "-created_at", "-id"],
                name="build_by_verdict_runtime",
                condition=models.Q(verdict_class__gt=""),
            ),
        ),
        migrations.RemoveIndex("build", "build_by_project"),
        migrations.AddIndex(
            "build",
            models.Index(
                fields=["project", "-created_at", "-id", "status", "runtime", "verdict_class"], name="build_by_project"
            ),
        ),
    ]
