"""What is asked, level by level. A case is never renamed or removed: its id is how people refer to it."""
