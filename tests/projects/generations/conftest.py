from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from pytest_django import Settings

from projects.actions import add_revision, create_project
from projects.files.paths import NewFile
from projects.generations.actions import GenerationOptions, request_generation
from projects.models import Generation, Project
from tests.projects.generations.runs import HTML
from tests.scripted_model import KEY, ScriptedModel


@pytest.fixture(autouse=True)
def by_model(settings: Settings, model: ScriptedModel) -> None:
    settings.AI_PROVIDER, settings.AI_BASE_URL, settings.AI_API_KEY = "openai", model.url, KEY
    settings.AI_SILENCE_SECONDS, settings.AI_ANSWER_SECONDS, settings.AI_TRIES = 2, 10, 2
    settings.AI_PRICE_INPUT, settings.AI_PRICE_OUTPUT = 2.5, 10


@pytest.fixture
def ask(owner: User) -> Callable[..., Generation]:
    def request(prompt: str = "A todo list", **options: Any) -> Generation:
        return request_generation(by=owner, prompt=prompt, strategy={}, options=GenerationOptions(**options))

    return request


@pytest.fixture
def project(owner: User) -> Project:
    project = create_project(by=owner, name="todo")
    files = [NewFile("index.html", HTML.encode()), NewFile("run.sh", b"#!/bin/sh\n", executable=True)]
    add_revision(project, files=files, dependencies={}, strategy={"runtime": "static"})
    return project
