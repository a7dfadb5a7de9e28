import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


def without_index(model: str, name: str, to: str, related_name: str) -> migrations.AlterField:
    field = models.ForeignKey(
        db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name=related_name, to=to
    )
    return migrations.AlterField(model, name, field)


class Migration(migrations.Migration):
    """The tables that are written most lose indexes that serve nothing: wider ones begin with the same column."""

    dependencies = [("builds", "0003_pairs_of_filters")]

    operations = [
        without_index("build", "project", "projects.project", "builds"),
        without_index("build", "owner", settings.AUTH_USER_MODEL, "builds"),
        without_index("logchunk", "build", "builds.build", "log_chunks"),
    ]
