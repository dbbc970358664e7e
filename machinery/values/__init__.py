"""Pure values and their spellings. Nothing in this room does I/O."""
