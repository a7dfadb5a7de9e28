"""What the API answers about builds: DRF serializers, so that the schema says the same."""
