"""Pages of source files: the tree, one file, and the diff between revisions."""
