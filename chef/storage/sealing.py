"""Text that is stored so that the database alone does not tell it. Knows keys, and nothing of what is sealed.

The first of `settings.SECRETS_KEYS` seals and every one of them unseals, so that a key can be replaced: put the new
one first, run `manage.py reseal_environment`, then take the old one away.
"""

import base64
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

# Each purpose has a label, and with it keys of its own: what SECRET_KEY signs elsewhere says nothing about these, and
# what was sealed for one purpose cannot be passed off as something of another.
ENVIRONMENT = b"chef: environment variables at rest"
WEBHOOKS = b"chef: webhooks' secrets at rest"
ANSWERS = b"chef: kept answers at rest"


class UnsealError(Exception):
    """The text was sealed with a key that this installation does not have, or it is not what was sealed."""


def seal(text: str, purpose: bytes = ENVIRONMENT) -> str:
    return _keys(tuple(settings.SECRETS_KEYS), purpose).encrypt(text.encode()).decode()


def unseal(sealed: str, purpose: bytes = ENVIRONMENT) -> str:
    """The text that was sealed. Raises UnsealError."""
    try:
        return _keys(tuple(settings.SECRETS_KEYS), purpose).decrypt(sealed).decode()
    except InvalidToken:
        raise UnsealError("no key of this installation opens it") from None


def reseal(sealed: str, purpose: bytes = ENVIRONMENT) -> str:
    """The same text under the first key. Raises UnsealError."""
    return seal(unseal(sealed, purpose), purpose)


@lru_cache(maxsize=8)
def _keys(materials: tuple[str, ...], purpose: bytes) -> MultiFernet:
    return MultiFernet([Fernet(base64.urlsafe_b64encode(_derived(material, purpose))) for material in materials])


def _derived(material: str, purpose: bytes) -> bytes:
    # Keys are long random texts, so that nothing slow is needed against guessing.
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose).derive(material.encode())
