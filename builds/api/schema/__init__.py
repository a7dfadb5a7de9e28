"""The API's description: OpenAPI, its pages, and every error code."""
