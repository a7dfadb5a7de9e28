"""Durable jobs: status, leases, wake-ups, worker pool, publish/subscribe. Builds and generations share it."""
