from typing import Any

from django.db import migrations

_LZ4 = """
DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_settings WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals)) THEN
        ALTER TABLE projects_sourcefile ALTER COLUMN content SET COMPRESSION lz4;
    END IF;
END $$
"""


def _only_on_postgresql(statement: str) -> Any:
    def run(apps: Any, schema_editor: Any) -> None:
        if schema_editor.connection.vendor == "postgresql":
            schema_editor.execute(statement)

    return run


class Migration(migrations.Migration):
    """PostgreSQL's own compression takes longer than all else about storing a large project; lz4 takes little time.

    A server that was built without it goes on as before, and so do the rows that are there.
    """

    dependencies = [("projects", "0004_projects_in_the_order_of_their_list")]

    operations = [
        migrations.RunPython(
            _only_on_postgresql(_LZ4),
            _only_on_postgresql("ALTER TABLE projects_sourcefile ALTER COLUMN content SET COMPRESSION default"),
        )
    ]
