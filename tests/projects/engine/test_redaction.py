import json

import pytest

from projects.engine.model.exchanges import Redaction

pytestmark = pytest.mark.once("postgresql")

KEYS = [
    "sk-proj-" + "aB3" * 12,
    "ghp_" + "a1B2" * 9,
    "github_pat_" + "a1B2" * 9,
    "AKIA" + "ABCDEFGH12345678",
    "AIza" + "a1B2c3D4" * 4 + "abc",
    "xoxb-" + "123456789012-abcdef",
    "npm_" + "a1B2" * 9,
    "eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJSMeK",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\nMIIE cut off",
]


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key[:8])
def test_texts_that_look_like_keys_are_redacted(key: str) -> None:
    assert Redaction()(f"before {key} after").startswith("before [secret]")
    assert key not in Redaction()(f"before {key} after")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Authorization: Bearer abcdefghijklmnop123", "Authorization: Bearer [secret]"),
        ("postgres://chef:hunter22@db/x", "postgres://chef:[secret]@db/x"),
        ("API_KEY = 'abcdef0123456789'", "API_KEY = '[secret]'"),
        ('{"password": "correct-horse-battery"}', '{"password": "[secret]"}'),
    ],
)
def test_values_in_places_of_secrets_are_redacted(text: str, kept: str) -> None:
    assert Redaction()(text) == kept


@pytest.mark.parametrize(
    "text",
    [
        "const token = getToken()",
        "const password = 'short'",
        "task-list-with-many-long-words-in-it",
        "https://example.org/a:b@c",
        '{"api_key": "read from the environment"}',
    ],
)
def test_code_is_not_redacted(text: str) -> None:
    assert Redaction()(text) == text


def test_known_secrets_are_redacted_in_every_encoding() -> None:
    secret = 'pa"ss\nword/ä'
    redact = Redaction([("A", secret), ("B", "hunter2"), ("LONGER", "hunter2-and-more"), ("SHORT", "ab")])

    assert redact(f"x {secret} y {json.dumps(secret)} z pa%22ss%0Aword%2F%C3%A4") == (
        'x [secret A] y "[secret A]" z [secret A]'
    )
    assert redact("hunter2-and-more hunter2 ab") == "[secret LONGER] [secret B] ab"
