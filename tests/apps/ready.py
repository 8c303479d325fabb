"""What a process that runs commands has imported: everything that takes long (see `command_line`)."""

from pipelines.cli import import_tensorflow

import_tensorflow()

import tensorflow_text  # noqa: E402, F401

import pipelines.commands  # noqa: E402, F401
