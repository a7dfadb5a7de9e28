"""The API's part about projects and revisions, and the fields and parsers that all of the API shares."""
