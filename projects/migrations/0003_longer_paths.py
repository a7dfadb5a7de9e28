from django.db import migrations, models


class Migration(migrations.Migration):
    """A path may be as long as the setting MAX_PATH_BYTES can ask for."""

    dependencies = [("projects", "0002_environment_and_idempotency")]

    operations = [migrations.AlterField("sourcefile", "path", models.CharField(max_length=1000))]
