"""Integer and half precision of an exported model, and how much each of its layers loses by it."""
