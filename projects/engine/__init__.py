"""The AI engine: it turns a prompt into the files of a project. What becomes of them is not its business."""
