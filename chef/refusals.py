"""Refusals of actions: one base class, so that API, pages and admin each need one handler.

An action that raises one has changed nothing. Knows neither HTTP frameworks nor models: `chef.web.errors` turns it
into an API response, `builds.pages.refusals` into a message on a page, `projects.admin.operations` into one of the
admin.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """One error.

    `code` is stable; `detail` says what to do. `attr` is the path to the invalid part of the request, outermost name
    first, such as `("env", "PORT")`; empty for the request as a whole. `is_of_user`: the last name was chosen by the
    user, such as a file's path, so `detail` alone does not say which one is meant.
    """

    code: str
    detail: str
    attr: tuple[str, ...] = ()
    is_of_user: bool = False

    def __str__(self) -> str:
        return f"{self.attr[-1]}: {self.detail}" if self.is_of_user else self.detail


class RefusalError(Exception):
    """An action was refused, and nothing was changed. The text is for people: it says why, and what to do.

    `code` is stable, and one of `builds.api.schema.error_codes`. `status` is the HTTP status of the API's response;
    with 400, it names the fields in `reasons`. `retry_after`: seconds after which it may succeed, if waiting helps.
    """

    code = "conflict"
    status = 409
    retry_after: int | None = None

    def __init__(
        self, detail: str, *, code: str = "", retry_after: int | None = None, reasons: Sequence[Reason] = ()
    ) -> None:
        super().__init__(detail)
        self.code = code or self.code
        self.retry_after = self.retry_after if retry_after is None else retry_after
        self.reasons = tuple(reasons) or (Reason(self.code, detail),)

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of the HTTP response."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
