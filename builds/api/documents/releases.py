"""API documents about releases and previews."""

from typing import Any

from rest_framework import serializers

from builds.models import Preview, Release, Site
from builds.site_names import address, preview_label, release_label
from projects.api.documents import Document


class ReleaseLinks(Document):
    self = serializers.URLField()
    build = serializers.URLField()
    page = serializers.URLField()

    def to_representation(self, release: Release) -> dict[str, str]:
        return {
            "self": self.address("project-release", release.project_id, release.number),
            "build": self.address("build-detail", release.build_id),
            "page": self.address("build-page", release.build_id),
        }


class ReleaseDocument(Document):
    """A published build. `context["site"]` is the project's site, which says what is live."""

    project_id = serializers.UUIDField()
    job_id = serializers.UUIDField(source="build_id")
    release_id = serializers.UUIDField(source="pk")
    number = serializers.IntegerField(min_value=1)
    url = serializers.SerializerMethodField(help_text="The URL of the live release.")
    permanent_url = serializers.SerializerMethodField(help_text="The permanent URL of this release.")
    live = serializers.SerializerMethodField()
    single_page = serializers.BooleanField(help_text="Whether paths without a file are answered with index.html.")
    created_at = serializers.DateTimeField()
    links = ReleaseLinks(source="*")

    def get_url(self, release: Release) -> str:
        return self._site.address

    def get_permanent_url(self, release: Release) -> str:
        return address(release_label(self._site.name_id, release.number))

    def get_live(self, release: Release) -> bool:
        return self._site.live_id == release.pk

    @property
    def _site(self) -> Site:
        site: Site = self.context["site"]
        return site


class PublishedDocument(ReleaseDocument):
    """A new release, and warnings about its `_headers` and `_redirects`: `context["warnings"]`."""

    warnings = serializers.SerializerMethodField()

    def get_warnings(self, release: Release) -> list[str]:
        return list(self.context["warnings"])


class PreviewDocument(Document):
    """A build's output under an unguessable name."""

    project_id = serializers.UUIDField(source="build.project_id")
    job_id = serializers.UUIDField(source="build_id")
    url = serializers.SerializerMethodField()
    expires_at = serializers.DateTimeField()

    def get_url(self, preview: Preview) -> Any:
        return address(preview_label(preview.token))
