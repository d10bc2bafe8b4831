"""The package with one fault planted in it, to show that the crucible can fail."""
