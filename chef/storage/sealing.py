"""Encrypts texts stored in the database ("sealing"). Knows keys, but not what the texts are.

The first of `settings.SECRETS_KEYS` encrypts and all of them decrypt. To replace a key, put the new one first, run
`manage.py reseal_environment`, then remove the old one.
"""

import base64
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

# Each purpose has a label and so its own derived keys: these are independent of other uses of SECRET_KEY, and a text
# sealed for one purpose cannot be used for another.
ENVIRONMENT = b"chef: environment variables at rest"
WEBHOOKS = b"chef: webhooks' secrets at rest"
ANSWERS = b"chef: kept answers at rest"


class UnsealError(Exception):
    """The text was sealed with a key this installation does not have, or it was altered."""


def seal(text: str, purpose: bytes = ENVIRONMENT) -> str:
    return _keys(tuple(settings.SECRETS_KEYS), purpose).encrypt(text.encode()).decode()


def unseal(sealed: str, purpose: bytes = ENVIRONMENT) -> str:
    """The original text. Raises UnsealError."""
    try:
        return _keys(tuple(settings.SECRETS_KEYS), purpose).decrypt(sealed).decode()
    except InvalidToken:
        raise UnsealError("no key of this installation decrypts it") from None


def reseal(sealed: str, purpose: bytes = ENVIRONMENT) -> str:
    """The same text, sealed with the first key. Raises UnsealError."""
    return seal(unseal(sealed, purpose), purpose)


@lru_cache(maxsize=8)
def _keys(materials: tuple[str, ...], purpose: bytes) -> MultiFernet:
    return MultiFernet([Fernet(base64.urlsafe_b64encode(_derived(material, purpose))) for material in materials])


def _derived(material: str, purpose: bytes) -> bytes:
    # Keys are long random texts, so no slow hash is needed against guessing.
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose).derive(material.encode())
