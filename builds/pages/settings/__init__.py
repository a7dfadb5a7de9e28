"""Settings pages: a project's settings and webhooks, and a user's tokens."""
