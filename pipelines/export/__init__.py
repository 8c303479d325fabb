"""From a trained model to a SavedModel that takes raw inputs, checked before anyone sees it.

servable.py   what a task exports, written as a SavedModel with requests to warm up on
check.py      whether TensorFlow Serving will run a SavedModel, as session.py finds out
session.py    the process, without this project, in which that is tried
versions.py   saved_models/<name>/<version>/, published whole or not at all

`python -m pipelines.export check DIR` checks any SavedModel.
"""
