"""`env` and `secrets` as they come in over the wire, with all that is wrong told at once. A value is never echoed."""

from collections.abc import Mapping
from typing import Any

from rest_framework import serializers

from chef.web.errors import field_errors
from projects.api.described import Described
from projects.environment import (
    MAX_NAME_CHARS,
    MAX_VALUE_BYTES,
    MAX_VARIABLES,
    MIN_SECRET_CHARS,
    NAME_PATTERN,
    EnvironmentFault,
    InvalidEnvironmentError,
    Secret,
    environment_faults,
)

_SECRET = {"type": "string", "minLength": MIN_SECRET_CHARS, "maxLength": MAX_VALUE_BYTES}


class _ByName(Described, serializers.DictField):
    """An object from variables' names to something; null removes a variable where that is allowed."""

    where = ""
    forms: tuple[dict[str, Any], ...] = ()  # what a value may be, in the words of JSON Schema

    def __init__(self, *, allow_removal: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._allow_removal = allow_removal

    def schema(self) -> dict[str, Any]:
        forms = [*self.forms, {"type": "null"}] if self._allow_removal else list(self.forms)
        return {
            "type": "object",
            "propertyNames": {"pattern": f"^{NAME_PATTERN}$", "maxLength": MAX_NAME_CHARS},
            "maxProperties": MAX_VARIABLES,
            "additionalProperties": forms[0] if len(forms) == 1 else {"oneOf": forms},
        }

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, Mapping):
            raise serializers.ValidationError('Send an object such as {"NAME": "value"}.', code="shape")
        values: dict[str, Any] = {}
        faults: list[EnvironmentFault] = []
        for name, value in data.items():
            try:
                values[str(name)] = None if value is None and self._allow_removal else self.read(value)
            except ValueError as fault:
                faults.append(EnvironmentFault(self.where, str(name), str(fault)))
        faults += self.faults_of(values)
        if faults:
            raise serializers.ValidationError(field_errors(InvalidEnvironmentError(faults)))
        return values

    def read(self, value: Any) -> Any:
        """What a value of the request stands for. Raises ValueError with what to send instead."""
        raise NotImplementedError

    def faults_of(self, values: dict[str, Any]) -> list[EnvironmentFault]:
        raise NotImplementedError


class EnvField(_ByName):
    """`{"NAME": "value"}`."""

    where = "env"
    forms = ({"type": "string", "maxLength": MAX_VALUE_BYTES},)

    def read(self, value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError('A value is text: put it into quotes, such as "3000" or "true".')
        return value

    def faults_of(self, values: dict[str, Any]) -> list[EnvironmentFault]:
        return environment_faults(values, {})


class SecretsField(_ByName):
    """`{"NAME": "value"}`, or `{"NAME": {"value": "…", "installation": true}}` for the installation phase too."""

    where = "secrets"
    forms = (
        _SECRET,
        {
            "type": "object",
            "properties": {"value": _SECRET, "installation": {"type": "boolean", "default": False}},
            "required": ["value"],
            "additionalProperties": False,
        },
    )

    def read(self, value: Any) -> Secret:
        shape = 'A secret is text, or {"value": "…", "installation": true} where the installation needs it too.'
        if isinstance(value, str):
            return Secret(value)
        if not isinstance(value, Mapping) or not isinstance(value.get("value"), str):
            raise ValueError(shape)
        installation = value.get("installation", False)
        if value.keys() - {"value", "installation"} or not isinstance(installation, bool):
            raise ValueError(shape)
        return Secret(value["value"], installation)

    def faults_of(self, values: dict[str, Any]) -> list[EnvironmentFault]:
        return environment_faults({}, values)
