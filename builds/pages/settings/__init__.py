"""Pages of settings: a project's, its webhooks, and a user's tokens."""
