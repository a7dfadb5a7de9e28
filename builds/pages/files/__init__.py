"""Pages of source files: a tree, one file, and the changes between revisions."""
