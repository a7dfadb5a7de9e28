"""Telling others of builds: endpoints, messages, where they may go, the outbox, and the process that sends."""
