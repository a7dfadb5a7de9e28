"""Changes to files that are there: edits from a prompt, and repairs of failed builds."""
