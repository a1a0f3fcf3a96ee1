"""What is written: files, whole or not at all; the look of pictures; pages that are one file."""
