"""API documents about the installation: runtimes, limits, health."""

from rest_framework import serializers

from projects.api.documents import Document, StoredDocument


class RuntimeDocument(Document):
    name = serializers.CharField()
    versions = serializers.ListField(child=serializers.CharField())
    default_version = serializers.CharField()


class LimitsDocument(StoredDocument):
    """The limits of this installation: sizes in bytes, times in milliseconds."""

    files = serializers.IntegerField()
    file_bytes = serializers.IntegerField()
    project_bytes = serializers.IntegerField()
    path_bytes = serializers.IntegerField()
    path_depth = serializers.IntegerField()
    timeout = serializers.IntegerField()
    memory = serializers.IntegerField()
    cpus = serializers.FloatField()
    processes = serializers.IntegerField()
    log_bytes = serializers.IntegerField()
    artifacts = serializers.IntegerField()
    artifact_bytes = serializers.IntegerField()
    queued_per_owner = serializers.IntegerField()


class RuntimeList(Document):
    runtimes = RuntimeDocument(many=True)
    limits = LimitsDocument()


class WorkersHealth(StoredDocument):
    alive = serializers.IntegerField()
    busy = serializers.IntegerField()


class QueueHealth(StoredDocument):
    depth = serializers.IntegerField()
    oldest_seconds = serializers.IntegerField()
    paused = serializers.BooleanField(help_text="The queue is paused: no build starts; running ones continue.")


class DeliveriesHealth(StoredDocument):
    """Waiting webhook messages: how many (10,000 at most), and how long the oldest is overdue."""

    pending = serializers.IntegerField()
    oldest_seconds = serializers.IntegerField()


class HealthChecks(StoredDocument):
    """`ok`, or what is wrong."""

    database = serializers.CharField()
    redis = serializers.CharField()
    docker = serializers.CharField()
    storage = serializers.CharField()
    workers = WorkersHealth()
    queue = QueueHealth()
    deliveries = DeliveriesHealth()


class HealthDocument(StoredDocument):
    status = serializers.ChoiceField(choices=["ok", "degraded", "down"])
    checks = HealthChecks()


class LiveDocument(StoredDocument):
    status = serializers.ChoiceField(choices=["ok"])
