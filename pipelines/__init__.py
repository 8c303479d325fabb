"""The machinery that every app shares: one module for each stage that a datum passes."""
