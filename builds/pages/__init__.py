"""Pages for people, server-rendered: each works without JavaScript, which only makes it live. See `urls.py`."""
