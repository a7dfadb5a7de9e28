from django.db import migrations, models


class Migration(migrations.Migration):
    """The admin's list of everyone's generations goes along an index, whatever it is filtered by."""

    dependencies = [
        ("projects", "0009_quarantine"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="generation",
            index=models.Index(fields=["-created_at", "-id", "status", "kind"], name="generation_of_all"),
        ),
    ]
