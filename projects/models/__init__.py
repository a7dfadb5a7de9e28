"""Models of projects, generations and API tokens. Knows nothing of how projects are built."""

from projects.models.access import ApiToken, IdempotencyKey
from projects.models.generations import DraftFile, Exchange, Generation, GenerationEvent, TokensUsed
from projects.models.projects import EnvironmentVariable, Project, Quarantine, Revision, SourceFile, Upload

__all__ = [
    "ApiToken",
    "DraftFile",
    "EnvironmentVariable",
    "Exchange",
    "Generation",
    "GenerationEvent",
    "IdempotencyKey",
    "Project",
    "Quarantine",
    "Revision",
    "SourceFile",
    "TokensUsed",
    "Upload",
]
