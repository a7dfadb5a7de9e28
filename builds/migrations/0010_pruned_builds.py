from django.db import migrations, models


class Migration(migrations.Migration):
    """What a build has left can be removed, and its record tells when."""

    dependencies = [
        ("builds", "0009_pause_and_heartbeats"),
    ]

    operations = [
        migrations.AddField(
            model_name="build",
            name="pruned_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
    ]
