"""The renamed fair-share models: no rows are lost, and workers of the old code continue."""

from collections.abc import Callable

import pytest
from django.contrib.auth.models import Permission, User
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.db import connection

from builds.models import Build, ExternalFairShare, FairShare
from builds.queue.claims import claim

OLD_NAMES = ("builds", "0013_who_did_what")
# The way workers of the old code read and write it.
SERVED = "UPDATE builds_ownerturn SET claimed_at = '2020-01-01 00:00:00' WHERE owner_id = %s"


@pytest.mark.django_db(transaction=True)
def test_renamed_models_keep_rows_and_permissions(queue_build: Callable[..., Build], owner: User, other: User) -> None:
    for user in (owner, other):
        queue_build(by=user)
        assert claim("w")
    before = Permission.objects.filter(content_type__app_label="builds").count()

    call_command("migrate", *OLD_NAMES, verbosity=0)
    assert Permission.objects.filter(codename__in=["view_ownerturn", "view_outsideturn"]).count() == 2
    with connection.cursor() as cursor:
        cursor.execute(SERVED, [owner.pk])
    call_command("migrate", verbosity=0)

    assert [share.owner for share in FairShare.objects.order_by("claimed_at")] == [owner, other]
    assert not ExternalFairShare.objects.exists()
    assert Permission.objects.filter(content_type__app_label="builds").count() == before
    models = Permission.objects.filter(codename__in=["view_fairshare", "view_externalfairshare"])
    assert set(models.values_list("content_type__model", flat=True)) == {"fairshare", "externalfairshare"}
    assert not ContentType.objects.filter(model__in=["ownerturn", "outsideturn"]).exists()
