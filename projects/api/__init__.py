"""API: projects and revisions, and the fields and parsers that the whole API shares."""
