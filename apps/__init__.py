"""Application templates, one package each."""
