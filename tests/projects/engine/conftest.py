"""A scripted model and an asker for it, with short time-outs."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from projects.engine.model.asking import Asker
from projects.engine.model.client import Endpoint, ModelClient, Patience
from projects.engine.model.exchanges import Exchange
from tests.scripted_model import KEY, ScriptedModel

PATIENCE = Patience(connect=2, between=2, whole=10, tries=3, first_wait=0.02, longest_wait=2)


@pytest.fixture
def exchanges() -> list[Exchange]:
    """Exchanges that the asker of `make_asker` has reported."""
    return []


@pytest.fixture
def make_client(model: ScriptedModel) -> Iterator[Callable[..., ModelClient]]:
    opened: list[ModelClient] = []

    def make(*, patience: Patience = PATIENCE, **endpoint: Any) -> ModelClient:
        client = ModelClient(Endpoint(**{"base_url": model.url, "api_key": KEY, **endpoint}), patience)
        opened.append(client.__enter__())
        return client

    yield make
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture
def make_asker(make_client: Callable[..., ModelClient], exchanges: list[Exchange]) -> Callable[..., Asker]:
    """Makes an Asker; `patience` and `endpoint` configure its client."""

    def make(*, patience: Patience = PATIENCE, endpoint: dict[str, Any] | None = None, **options: Any) -> Asker:
        client = make_client(patience=patience, **(endpoint or {}))
        return Asker(client, **{"on_exchange": exchanges.append, **options})

    return make
