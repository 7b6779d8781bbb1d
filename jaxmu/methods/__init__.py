"""The unlearning methods, one per file."""
