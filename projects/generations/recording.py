"""Records a generation's progress: its drafts, each exchange with the model, and tokens used."""

from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from functools import partial
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from chef.jobs.leases import Lease
from chef.jobs.pubsub import publish_change
from projects.engine.errors import EngineError
from projects.engine.model.budget import Prices, Usage
from projects.engine.model.exchanges import Exchange as ModelExchange
from projects.engine.request import Request
from projects.engine.stages.state import State
from projects.generations.actions import tokens_left_today
from projects.models import DraftFile, Exchange, Generation, GenerationEvent, TokensUsed


class DraftRecorder:
    """Records state and files as they are produced, each file once, so that another attempt can continue from them."""

    def __init__(self, lease: Lease[Generation]) -> None:
        self._lease, self._generation = lease, lease.job
        self._stage = ""
        self._kept: set[str] = set()

    def state(self, request: Request) -> State | None:
        """The state that an earlier attempt recorded."""
        if self._generation.state is None:
            return None
        files = dict(self._generation.drafts.values_list("path", "content"))
        self._kept = set(files)
        self._stage = self._generation.stage
        return State.model_validate({**self._generation.state, "request": request, "files": files})

    def keep(self, state: State) -> None:
        new = {path: text for path, text in state.files.items() if path not in self._kept}
        events = [self._event("stage", stage=state.stage)] if state.stage != self._stage else []
        sizes = {path: len(text.encode()) for path, text in new.items()}
        events += [self._event("file", path=path, size=size) for path, size in sizes.items()]
        document = state.model_dump(mode="json", exclude={"files", "request"})
        with self._lease.writing(stage=state.stage, state=document):
            DraftFile.objects.bulk_create(
                DraftFile(generation=self._generation, path=path, content=text, size=sizes[path])
                for path, text in new.items()
            )
            GenerationEvent.objects.bulk_create(events)
            if events:
                transaction.on_commit(partial(publish_change, self._generation.pk))
        self._kept.update(new)
        self._stage = state.stage

    def _event(self, kind: str, **data: Any) -> GenerationEvent:
        return GenerationEvent(generation=self._generation, kind=kind, data=data)


@dataclass
class UsageRecorder:
    """Records every exchange and its tokens: estimated while it is in progress, then as reported."""

    lease: Lease[Generation]
    _opened: dict[Any, tuple[ModelExchange, date]] = field(default_factory=dict)

    def open(self, sent: ModelExchange) -> None:
        """Call before a request is sent. Raises LeaseLostError, and EngineError if the daily tokens are used up."""
        generation = self.lease.job
        if tokens_left_today(generation.owner_id) == 0:
            raise EngineError("day_spent")
        usage, now = _usage(sent), timezone.now()
        with self.lease.writing(**_increments(usage)):
            Exchange.objects.create(
                id=sent.id,
                generation=generation,
                stage=sent.stage,
                subject=sent.subject[:1000],
                attempt=sent.attempt,
                model=sent.model[:100],
                messages=[{"role": each.role, "content": _storable(each.content)} for each in sent.messages],
                input_tokens=sent.input_tokens,
                is_estimated=True,
                cost=_prices().cost(usage),
                created_at=now,
            )
            self._count(usage.total, now.date())
        self._opened[sent.id] = sent, now.date()

    def close(self, ended: ModelExchange) -> None:
        """Call when it has ended. Used tokens count in any case: this is written even if the lease is lost."""
        opened, day = self._opened.pop(ended.id)
        usage, before = _usage(ended), _usage(opened)
        with transaction.atomic():
            Generation.objects.filter(pk=self.lease.job.pk).update(**_increments(usage, before))
            Exchange.objects.filter(pk=ended.id).update(
                answer=_storable(ended.answer),
                input_tokens=ended.input_tokens,
                output_tokens=ended.output_tokens,
                is_estimated=ended.estimated,
                cost=_prices().cost(usage),
                seconds=ended.seconds,
                error=ended.error,
                detail=_storable(ended.detail)[:1000],
            )
            self._count(usage.total - before.total, day)

    def _count(self, tokens: int, day: date) -> None:
        TokensUsed.objects.get_or_create(owner_id=self.lease.job.owner_id, day=day)
        TokensUsed.objects.filter(owner=self.lease.job.owner_id, day=day).update(tokens=F("tokens") + tokens)


def _usage(exchange: ModelExchange) -> Usage:
    return Usage(input=exchange.input_tokens, output=exchange.output_tokens, estimated=exchange.estimated)


def _prices() -> Prices:
    return Prices(Decimal(str(settings.AI_PRICE_INPUT)), Decimal(str(settings.AI_PRICE_OUTPUT)))


def _increments(usage: Usage, before: Usage | None = None) -> dict[str, Any]:
    """Columns of a generation, increased by a usage, minus what was counted for it before."""
    before = before or Usage()
    return {
        "input_tokens": F("input_tokens") + (usage.input - before.input),
        "output_tokens": F("output_tokens") + (usage.output - before.output),
        "cost": F("cost") + (_prices().cost(usage) - _prices().cost(before)),
    }


def _storable(text: str) -> str:
    """The text as every database accepts it: without NULs and lone surrogates."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
