import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    """Files that came through a page may be those of a project that there is."""

    dependencies = [
        ("projects", "0010_newest_generations"),
    ]

    operations = [
        migrations.AddField(
            model_name="upload",
            name="project",
            field=models.ForeignKey(
                null=True, on_delete=django.db.models.deletion.CASCADE, related_name="uploads", to="projects.project"
            ),
        ),
    ]
