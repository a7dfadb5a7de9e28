"""The AI engine: turns a prompt into the files of a project. It does not know what happens to them next."""
