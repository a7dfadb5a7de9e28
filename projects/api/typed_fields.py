"""Fields that accept exactly the JSON type in the schema: DRF would accept "5", 5 and 5.0 alike."""

from typing import Any

from django.conf import settings
from rest_framework import serializers

from projects.api.described import Described


class Text(Described, serializers.CharField):
    """Unchanged text without NUL, which databases reject; with a visible character unless `allow_blank`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, **kwargs)

    def schema(self) -> dict[str, Any]:
        pattern = "^[^\\u0000]*$" if self.allow_blank else "^[^\\u0000]*[^\\s\\u0000][^\\u0000]*$"
        return {"type": "string", "maxLength": self.max_length, "pattern": pattern}

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            raise serializers.ValidationError("Send text, in quotes.", code="invalid")
        if not self.allow_blank and not data.strip():
            self.fail("blank")
        return super().to_internal_value(data)


class PromptField(Text):
    """The text of a prompt."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=settings.MAX_PROMPT_CHARS, **kwargs)


class Flag(serializers.BooleanField):
    """true or false."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            raise serializers.ValidationError("Send true or false, without quotes.", code="invalid")
        return data


class Choice(serializers.ChoiceField):
    """One of several texts."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str):
            self.fail("invalid_choice", input=repr(data)[:60])
        return super().to_internal_value(data)


class Whole(serializers.IntegerField):
    """A whole number; 5.0 counts as one, as in JSON Schema."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, int | float) or data != int(data):
            raise serializers.ValidationError("Send a whole number, without quotes.", code="invalid")
        return int(data)


class Real(serializers.FloatField):
    """A number."""

    def to_internal_value(self, data: Any) -> float:
        if isinstance(data, bool) or not isinstance(data, int | float):
            raise serializers.ValidationError("Send a number, without quotes.", code="invalid")
        return float(data)
