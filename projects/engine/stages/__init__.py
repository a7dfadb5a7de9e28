"""The stages from a prompt to an app's files: intent, plan, code, tests, and last the manifests."""
