"""The speech app: recordings to text."""
