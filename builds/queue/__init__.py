"""Which build runs next, when it may start, and pausing the queue."""
