from django.db import migrations, models


class Migration(migrations.Migration):
    """The admin's lists go along an index, whatever they are filtered by, and find the deliveries of a build."""

    dependencies = [
        ("builds", "0010_pruned_builds"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="build",
            index=models.Index(
                fields=["-created_at", "-id", "status", "runtime", "verdict_class", "priority", "is_external"],
                name="build_newest",
            ),
        ),
        migrations.AddIndex(
            model_name="build",
            index=models.Index(
                condition=models.Q(("verdict_class__gt", "")),
                fields=["verdict_class", "-created_at", "-id", "status", "runtime"],
                name="build_newest_by_verdict",
            ),
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(fields=["-created_at", "-id", "status", "name"], name="delivery_newest"),
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(
                condition=models.Q(("job_id__isnull", False)), fields=["job_id"], name="delivery_by_build"
            ),
        ),
    ]
