"""Published sites: publishing, headers and redirects from the site's own files, and serving."""
