"""Webhooks: endpoints, messages, the guard on destinations, the outbox, and the sender process."""
