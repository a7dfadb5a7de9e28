import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    """The queue can be paused, processes say that they are there, and staff may be let do things."""

    dependencies = [
        ("builds", "0008_webhooks"),
        ("projects", "0009_quarantine"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Heartbeat",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("service", models.CharField(choices=[("reaper", "Reaper"), ("sender", "Sender")], max_length=10)),
                ("host", models.CharField(max_length=100)),
                ("seen_at", models.DateTimeField()),
            ],
        ),
        migrations.AddConstraint(
            model_name="heartbeat",
            constraint=models.UniqueConstraint(fields=("service", "host"), name="heartbeat_of_service_and_host_once"),
        ),
        migrations.CreateModel(
            name="QueuePause",
            fields=[
                ("id", models.PositiveSmallIntegerField(default=1, editable=False, primary_key=True, serialize=False)),
                ("reason", models.CharField(blank=True, max_length=500)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
            ],
            options={
                "permissions": [("operate_queue", "Can pause and resume the queue")],
            },
        ),
        migrations.AddField(
            model_name="queuepause",
            name="by",
            field=models.ForeignKey(
                null=True, on_delete=django.db.models.deletion.SET_NULL, related_name="+", to=settings.AUTH_USER_MODEL
            ),
        ),
        migrations.AddConstraint(
            model_name="queuepause",
            constraint=models.CheckConstraint(condition=models.Q(("id", 1)), name="queue_pause_once"),
        ),
        migrations.AddField(
            model_name="workerhost",
            name="engine",
            field=models.JSONField(blank=True, null=True),
        ),
        migrations.AlterModelOptions(
            name="build",
            options={
                "ordering": ["-created_at"],
                "permissions": [
                    ("operate_build", "Can retry, cancel, hand back, quarantine, publish and prune builds")
                ],
            },
        ),
        migrations.AlterModelOptions(
            name="delivery",
            options={
                "ordering": ["-created_at"],
                "permissions": [("operate_delivery", "Can send deliveries again, and switch their endpoints off")],
                "verbose_name_plural": "deliveries",
            },
        ),
    ]
