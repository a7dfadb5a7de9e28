"""The stages from a prompt to an app's files: intent, plan, manifests, code, tests."""
