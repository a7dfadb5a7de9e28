"""Server-rendered pages for people. Each works without JavaScript, which only adds live updates. See `urls.py`."""
