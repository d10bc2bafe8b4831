"""What README.md and docs/ say, held against the code."""
