"""Files uploaded through a page, for a new or an existing project, kept until the user has chosen how to build them.

They are kept on the server, because a browser cannot send a chosen folder again by itself, and not as a revision,
because the user may still leave. One packed row; deleted when not built within two hours, and only the latest few of
each owner are kept.
"""

import io
from collections.abc import Mapping, Sequence
from datetime import timedelta

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from projects.files.archives import pack, unpack
from projects.files.limits import check_files
from projects.files.paths import NewFile
from projects.models import Project, Upload

KEPT = timedelta(hours=2)
KEPT_OF_OWNER = 5


@transaction.atomic
def keep_upload(
    *, by: User, project: Project | None, name: str, files: Sequence[NewFile], left_out: Mapping[str, int]
) -> Upload:
    """`left_out`: how many files were ignored, by folder. Raises InvalidUploadError."""
    check_files(files)
    upload = Upload.objects.create(
        owner=by,
        project=project,
        name=name,
        packed=b"".join(pack(files)),
        file_count=len(files),
        total_bytes=sum(len(file.content) for file in files),
        left_out=dict(left_out),
    )
    kept = Upload.objects.filter(owner=by).order_by("-created_at", "-id").values_list("pk", flat=True)[:KEPT_OF_OWNER]
    Upload.objects.filter(owner=by).exclude(pk__in=list(kept)).delete()
    return upload


def files_of(upload: Upload) -> list[NewFile]:
    return unpack(io.BytesIO(bytes(upload.packed)))


def forget_old_uploads() -> int:
    """Delete uploads that were not built in time. Returns how many."""
    return Upload.objects.filter(created_at__lte=timezone.now() - KEPT).delete()[0]
