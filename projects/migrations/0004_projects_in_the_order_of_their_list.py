from django.db import migrations, models


class Migration(migrations.Migration):
    """The index of an owner's projects has the list's whole order, that of rows of one instant too."""

    dependencies = [("projects", "0003_longer_paths")]

    operations = [
        migrations.RemoveIndex("project", "project_by_owner"),
        migrations.AddIndex("project", models.Index(fields=["owner", "-created_at", "-id"], name="project_by_owner")),
    ]
