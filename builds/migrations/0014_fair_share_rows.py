from django.db import migrations


class Migration(migrations.Migration):
    """Better names for two models. Their tables keep the old ones, for workers of the old code that still run."""

    dependencies = [
        ("builds", "0013_who_did_what"),
    ]

    # With the table's name fixed first, renaming a model changes nothing in the database but its content type.
    operations = [
        migrations.AlterModelTable("OwnerTurn", "builds_ownerturn"),
        migrations.RenameModel("OwnerTurn", "FairShare"),
        migrations.AlterModelTable("OutsideTurn", "builds_outsideturn"),
        migrations.RenameModel("OutsideTurn", "ExternalFairShare"),
    ]
