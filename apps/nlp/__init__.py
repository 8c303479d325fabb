"""Text classified, compared and written."""
