"""Node projects: package managers, frameworks' outputs, plans."""
