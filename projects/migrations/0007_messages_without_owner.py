import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    """The answer to a signed message, which has no owner, is kept as that to a request with a key."""

    dependencies = [("projects", "0006_generations"), migrations.swappable_dependency(settings.AUTH_USER_MODEL)]

    operations = [
        migrations.AlterField(
            "idempotencykey",
            "owner",
            models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="idempotency_keys",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddConstraint(
            "idempotencykey",
            models.UniqueConstraint(condition=models.Q(owner=None), fields=("key",), name="idempotency_message_once"),
        ),
    ]
