"""Published sites: their names, what their files say of headers and redirects, and how they are served."""
