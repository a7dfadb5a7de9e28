"""Helpers of the pages' tests: send a folder as a browser does, and submit the second step."""

from typing import Any

from django.test import Client

NODE = {
    "package.json": '{"scripts": {"build": "mkdir dist && cp page.html dist/index.html"}}',
    "page.html": "<h1>Hello</h1>",
}


def folder(client: Client, files: dict[str, Any], *, at: str = "/new", **fields: str) -> Any:
    """POST a form as a browser does: each file is named by its path."""
    boundary, lines = "a-boundary", []
    for name, value in {"way": "upload", **fields}.items():
        lines.append(f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode())
    for path, text in files.items():
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="folder"; filename="{path}"\r\n'
        body = text if isinstance(text, bytes) else text.encode()
        lines.append(f"{head}Content-Type: application/octet-stream\r\n\r\n".encode() + body + b"\r\n")
    lines.append(f"--{boundary}--\r\n".encode())
    return client.post(at, b"".join(lines), content_type=f"multipart/form-data; boundary={boundary}")


def choices_of(answer: Any) -> dict[str, str]:
    """The fields that the second step's form would send unchanged."""
    form = answer.context["form"]
    return {field.html_name: field.value() or "" for field in form}
