"""Published builds: immutable releases, their host names, and which one is live."""

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from builds.models.builds import Artifact, Build
from builds.site_names import address, release_label
from projects.models import Project


class SiteName(models.Model):
    """A name below SITES_DOMAIN. It stays with its first owner, even when nothing is served there any more.

    Browsers keep service workers, storage and caches per host, so another owner's site must never get the same one.
    """

    slug = models.CharField(max_length=40, primary_key=True)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    project = models.ForeignKey(Project, on_delete=models.SET_NULL, null=True, related_name="site_names")
    created_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return self.slug


class Published(models.Model):
    """A build's output as a site: a folder of its artifacts, and how it is served."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    # The artifacts below this folder are the site; empty: all of them.
    root = models.CharField(max_length=1024, blank=True)
    single_page = models.BooleanField()  # unknown paths are client-side routes
    rules = models.JSONField(default=dict)  # from _headers and _redirects: see builds.sites.rules
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        abstract = True


class Release(Published):
    """One published build of a project, numbered and immutable. Site says which one is live."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="releases", db_index=False)
    number = models.PositiveIntegerField()
    build = models.ForeignKey(Build, on_delete=models.RESTRICT, related_name="releases")

    class Meta:
        ordering = ["-number"]
        constraints = [
            models.UniqueConstraint(fields=["project", "number"], name="release_number_once"),
            models.CheckConstraint(condition=Q(number__gte=1), name="release_number_from_one"),
        ]

    def __str__(self) -> str:
        return f"{self.project.name} release {self.number}"

    # Both use the project's site: use select_related for several releases.

    @property
    def is_live(self) -> bool:
        return self.project.site.live_id == self.pk

    @property
    def address(self) -> str:
        """Its permanent URL, whether live or not."""
        return address(release_label(self.project.site.name_id, self.number))


class Preview(Published):
    """A build's output under an unguessable name, for a limited time."""

    build = models.ForeignKey(Build, on_delete=models.CASCADE, related_name="previews")
    token = models.CharField(max_length=40, unique=True)
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"preview of {self.build_id}"


class Site(models.Model):
    """A project's site. The live release is one column of one row, so that switching is atomic."""

    project = models.OneToOneField(Project, on_delete=models.CASCADE, primary_key=True, related_name="site")
    name = models.OneToOneField(SiteName, on_delete=models.PROTECT, related_name="site")  # the name used in links
    live = models.ForeignKey(Release, on_delete=models.SET_NULL, null=True, related_name="+")
    changed_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return self.name_id

    @property
    def address(self) -> str:
        """The URL of the live release."""
        return address(self.name_id)


class EncodedArtifact(models.Model):
    """An artifact's compressed bytes, made once."""

    class Encoding(models.TextChoices):
        BROTLI = "br"
        GZIP = "gzip"

    artifact = models.ForeignKey(Artifact, on_delete=models.CASCADE, related_name="encoded", db_index=False)
    encoding = models.CharField(max_length=4, choices=Encoding)
    size = models.PositiveBigIntegerField()
    storage_key = models.CharField(max_length=200)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["artifact", "encoding"], name="encoding_once_per_artifact")]

    def __str__(self) -> str:
        return f"{self.artifact_id} as {self.encoding}"
