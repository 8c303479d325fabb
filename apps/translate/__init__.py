"""Text to text: machine translation."""
