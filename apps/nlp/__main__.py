"""`python -m apps.nlp`: train, evaluate and use a model that classifies, compares or writes text."""

from apps.nlp.app import APP
from pipelines.cli import main

if __name__ == "__main__":
    main(APP)
