"""The forms of a project, validated by the same rules as API requests. Never reads the database."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from django import forms
from django.conf import settings
from rest_framework.exceptions import ValidationError

from builds.api.requests import available_strategy
from builds.models import EventName
from builds.runtimes.catalogue import RUNTIMES
from builds.site_names import MAX_SLUG
from builds.webhooks.guard import MAX_URL_CHARS
from projects.api.serializers import MAX_COMMAND_CHARS, StrategySerializer
from projects.engine.request import WRITTEN_RUNTIMES
from projects.environment import MAX_NAME_CHARS, EnvironmentFault, Secret, environment_faults, name_fault
from projects.models import ApiToken
from projects.tokens import MAX_NAME_CHARS as MAX_TOKEN_NAME

_FIELD_OF = {"version": "runtime", "installCommand": "install_command", "buildCommand": "build_command"}
_FIELD_OF |= {"rootDir": "root_dir"}


def runtime_choices(among: Collection[str] = tuple(RUNTIMES)) -> list[tuple[str, str]]:
    """(value, label) of each version of these runtimes, newest first."""
    return [
        (f"{runtime.name}/{version}", runtime.label(version))
        for runtime in RUNTIMES.values()
        if runtime.name in among
        for version in reversed(runtime.versions)
    ]


class Mono(forms.Textarea):
    """A text area in a monospaced font."""

    def __init__(self, rows: int) -> None:
        super().__init__(attrs={"class": "mono", "rows": rows, "spellcheck": "false", "autocapitalize": "off"})


class MonoLine(forms.TextInput):
    def __init__(self) -> None:
        super().__init__(attrs={"class": "mono", "spellcheck": "false", "autocapitalize": "off"})


class NameForm(forms.Form):
    name = forms.CharField(max_length=100, label="Name")


class PromptForm(forms.Form):
    prompt = forms.CharField(
        label="What shall it be?",
        max_length=settings.MAX_PROMPT_CHARS,
        widget=forms.Textarea(attrs={"rows": 6, "placeholder": "A todo app with React that remembers what is done"}),
        help_text="Say what it is for, who uses it, and what it has to do.",
    )
    name = forms.CharField(
        label="Name", max_length=100, required=False, help_text="By default, the beginning of the prompt."
    )
    runtime = forms.ChoiceField(label="Runtime", required=False)
    tests = forms.BooleanField(label="Write tests too", required=False, initial=True)
    auto_fix = forms.BooleanField(label="Repair it when its build fails", required=False, initial=True)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = [("", "Whatever fits"), *runtime_choices(WRITTEN_RUNTIMES)]
        self.fields["runtime"].choices = choices  # type: ignore[attr-defined]

    def strategy(self) -> dict[str, Any]:
        return _pair(self.cleaned_data["runtime"])


class EditForm(forms.Form):
    prompt = forms.CharField(
        label="What shall change?",
        max_length=settings.MAX_PROMPT_CHARS,
        widget=forms.Textarea(attrs={"rows": 3, "placeholder": "Sort the list by date, newest first"}),
    )


class StrategyForm(forms.Form):
    """How to build a project. `plan` is the detected or last used strategy; None if there is none.

    Fields left as in the plan are not part of the strategy request: each build detects them again.
    """

    runtime = forms.ChoiceField(
        label="Runtime",
        required=False,
        help_text="Choose another one, and the commands that you leave as they are become those of that one.",
    )
    root_dir = forms.CharField(
        label="Root folder",
        required=False,
        max_length=240,
        widget=MonoLine,
        help_text="Where in the project the app is. Empty: at the top.",
    )
    install_command = forms.CharField(
        label="Install command",
        required=False,
        max_length=MAX_COMMAND_CHARS,
        widget=MonoLine,
        help_text="May reach the package registries. Empty: nothing is installed.",
    )
    build_command = forms.CharField(
        label="Build command",
        required=False,
        max_length=MAX_COMMAND_CHARS,
        widget=MonoLine,
        help_text="Runs without a network. Empty: nothing is run.",
    )
    outputs = forms.CharField(
        label="Output folders",
        required=False,
        widget=Mono(rows=2),
        help_text="One on each line, seen from the root folder; . is that folder itself.",
    )

    def __init__(self, *args: Any, plan: Mapping[str, Any] | None, before: Mapping[str, Any] | None = None, **kw: Any):
        self.shown = _shown(plan)
        self._before = dict(before or {})
        kw.setdefault("initial", {**self.shown, "outputs": "\n".join(self.shown["outputs"])})
        super().__init__(*args, **kw)
        unknown = [] if plan else [("", "Detect it")]
        self.fields["runtime"].choices = [*unknown, *runtime_choices()]  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        if not self.errors:
            try:
                self._check()
            except ValidationError as refused:
                for name, faults in dict(refused.detail).items():  # type: ignore[arg-type]
                    self.add_error(_FIELD_OF.get(name, name), [str(fault) for fault in _flat(faults)])
        return data

    def _check(self) -> None:
        serializer = StrategySerializer(data=self.strategy())
        serializer.is_valid(raise_exception=True)
        available_strategy(dict(serializer.validated_data))

    def strategy(self) -> dict[str, Any]:
        """The strategy request, in API names: fields that differ from the plan, or were requested before."""
        data = self.cleaned_data
        wanted = {
            "rootDir": data["root_dir"].strip(),
            "installCommand": data["install_command"],
            "buildCommand": data["build_command"],
            "outputs": [line.strip() for line in data["outputs"].splitlines() if line.strip()],
        }
        shown = {_API[name]: value for name, value in self.shown.items() if name in _API}
        kept = {name: value for name, value in self._before.items() if name not in {*wanted, "runtime", "version"}}
        changed = {
            name: value
            for name, value in wanted.items()
            if (value != shown[name] or self._before.get(name) == value) and (value or name != "outputs")
        }
        pair = data["runtime"]
        was_requested = self._before.get("runtime") and pair == self.shown["runtime"]
        return kept | changed | (_pair(pair) if pair != self.shown["runtime"] or was_requested else {})


_API = {name: api for api, name in _FIELD_OF.items() if name != "runtime"} | {"outputs": "outputs"}


def _shown(plan: Mapping[str, Any] | None) -> dict[str, Any]:
    """A plan as the form's initial values."""
    if not plan:
        return {"runtime": "", "root_dir": "", "install_command": "", "build_command": "", "outputs": []}
    return {
        "runtime": f"{plan['runtime']}/{plan['version']}",
        "root_dir": plan.get("rootDir") or "",
        "install_command": plan.get("installCommand") or "",
        "build_command": plan.get("buildCommand") or "",
        "outputs": list(plan.get("outputs") or []),
    }


def _pair(chosen: str) -> dict[str, str]:
    runtime, _, version = chosen.partition("/")
    return {"runtime": runtime, "version": version} if chosen else {}


def _flat(faults: Any) -> Iterable[Any]:
    if isinstance(faults, Mapping):
        faults = list(faults.values())
    if not isinstance(faults, list):
        return [faults]
    return [leaf for fault in faults for leaf in _flat(fault)]


class ChoicesForm(StrategyForm):
    """The second step of a new project."""

    name = forms.CharField(label="Name", max_length=100)
    env = forms.CharField(
        label="Variables",
        required=False,
        widget=Mono(rows=3),
        help_text="NAME=value, one on each line. Both installation and build see them.",
    )
    secrets = forms.CharField(
        label="Secrets",
        required=False,
        widget=Mono(rows=3),
        help_text="NAME=value, one on each line. Only the build sees them; they are masked in logs and never shown.",
    )
    field_order = ("name", "runtime", "root_dir", "install_command", "build_command", "outputs", "env", "secrets")

    def clean(self) -> dict[str, Any]:
        data = super().clean()
        env = self._lines("env")
        secrets = self._lines("secrets")
        faults = environment_faults(env, {name: Secret(value) for name, value in secrets.items()})
        for fault in faults:
            self._add_fault(fault)
        return {**data, "env": env, "secrets": secrets}

    def _lines(self, field: str) -> dict[str, str]:
        values: dict[str, str] = {}
        for number, line in enumerate((self.cleaned_data.get(field) or "").splitlines(), 1):
            name, sign, value = line.partition("=")
            if sign:
                values[name.strip()] = value
            elif line.strip():
                self.add_error(field, f"Line {number} has no =: write NAME=value.")
        return values

    def _add_fault(self, fault: EnvironmentFault) -> None:
        self.add_error(fault.where, f"{fault.name}: {fault.detail}" if fault.name else fault.detail)


class VariableForm(forms.Form):
    name = forms.CharField(label="Name", max_length=MAX_NAME_CHARS, widget=MonoLine)
    value = forms.CharField(label="Value", required=False, strip=False, widget=Mono(rows=1))
    is_secret = forms.BooleanField(
        label="It is a secret: masked in logs, and never shown again", required=False, initial=True
    )
    installation = forms.BooleanField(
        label="Installation needs it too (a plain variable is there anyway)", required=False
    )

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        if "name" not in data:
            return data
        name_detail = name_fault(data["name"])
        for fault in environment_faults(*self._changes(data)):
            self.add_error("name" if fault.detail == name_detail else "value", fault.detail)
        return data

    def changes(self) -> tuple[dict[str, str], dict[str, Secret]]:
        """(plain variables, secrets) to set; one of the two is empty."""
        return self._changes(self.cleaned_data)

    @staticmethod
    def _changes(data: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, Secret]]:
        value = data.get("value", "").replace("\r\n", "\n")
        if data.get("is_secret"):
            return {}, {data["name"]: Secret(value, installation=bool(data.get("installation")))}
        return {data["name"]: value}, {}


class WebhookForm(forms.Form):
    url = forms.CharField(
        label="Address", max_length=MAX_URL_CHARS, widget=forms.URLInput, help_text="An https:// address."
    )
    events = forms.MultipleChoiceField(
        label="Events",
        choices=[(event.value, event.value) for event in EventName],
        widget=forms.CheckboxSelectMultiple,
        error_messages={"required": "Choose at least one event."},
    )


class PublishForm(forms.Form):
    slug = forms.CharField(
        label="Name in the address",
        max_length=MAX_SLUG,
        required=False,
        widget=MonoLine,
        help_text="Letters a-z, digits and single hyphens. Empty: as before, or after the project.",
    )


class TokenForm(forms.Form):
    name = forms.CharField(label="Name", max_length=MAX_TOKEN_NAME, help_text="What it is for, such as the CI's.")
    scope = forms.ChoiceField(
        label="May",
        choices=[
            (ApiToken.Scope.READ.value, "read"),
            (ApiToken.Scope.WRITE.value, "read and write"),
            (ApiToken.Scope.PUBLISH.value, "read, write and publish"),
        ],
        initial=ApiToken.Scope.WRITE.value,
    )
    days = forms.TypedChoiceField(
        label="Good for",
        coerce=int,
        choices=[(7, "a week"), (30, "30 days"), (90, "90 days"), (365, "a year"), (0, "ever, until it is revoked")],
        initial=90,
    )
