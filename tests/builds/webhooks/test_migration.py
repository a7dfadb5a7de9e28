"""Upgrading to webhooks sends no old events, and the migration is reversible."""

from collections.abc import Callable

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from builds.models import Build, BuildEvent, WebhookEndpoint
from builds.webhooks.outbox import tell_events

WEBHOOKS = ("builds", "0008_webhooks")


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_existing_events_count_as_delivered(
    queue_build: Callable[..., Build], make_endpoint: Callable[..., WebhookEndpoint]
) -> None:
    queue_build()
    executor = MigrationExecutor(connection)
    latest = executor.loader.graph.leaf_nodes()
    before = [node.key for node in executor.loader.graph.node_map[WEBHOOKS].parents if node.key[0] == "builds"]

    executor.migrate(before)
    MigrationExecutor(connection).migrate(latest)

    assert BuildEvent.objects.get().is_told
    make_endpoint()
    assert tell_events() == 0
    queue_build()
    assert tell_events() == 1
