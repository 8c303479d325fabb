"""From a trained model to a SavedModel that takes raw inputs, checked before anyone sees it.

servable.py   what a task exports, written as a SavedModel with requests to warm up on
check.py      what TensorFlow Serving would make of a SavedModel, found out in a process without this project
versions.py   saved_models/<name>/<version>/, published whole or not at all

`python -m pipelines.export check DIR` checks any SavedModel.
"""
