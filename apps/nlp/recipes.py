"""Settings that go with a task and a data set, or with a pretrained encoder. They were chosen on validation splits."""

from collections.abc import Mapping

FEW_ROWS = {
    "batch_size": 32,
    "early_stopping": {"metric": "accuracy"},
    "model": {"layers": 1, "dropout": 0.5, "word_dropout": 0.3},
    "optimizer": {"schedule": "cosine", "warmup_steps": 100, "average_decay": 0.99},
}
SAMPLE = {"schedule": "cosine", "warmup_steps": 100, "average_decay": 0.99, "learning_rate": 3e-3}

RECIPES = {
    "classify": {
        "sample": {
            "epochs": 8,
            "batch_size": 32,
            "jit": "off",  # compiling would take longer than it saves
            "early_stopping": {"metric": "accuracy"},
            "model": {"encoder": "rnn", "layers": 1},
            "optimizer": SAMPLE,
        },
        "sst2": FEW_ROWS | {"epochs": 4, "model": FEW_ROWS["model"] | {"encoder": "cnn"}},
        "sst2_phrases": FEW_ROWS
        | {
            "epochs": 2,
            "validate_every": 700,
            "model": FEW_ROWS["model"] | {"encoder": "rnn", "layers": 2, "width": 256, "word_dropout": 0.2},
            "optimizer": FEW_ROWS["optimizer"] | {"learning_rate": 1e-3},
        },
        # Names are most of what tells news apart, and capitals tell names.
        "ag_news": FEW_ROWS | {"epochs": 4, "fold_case": False, "model": FEW_ROWS["model"] | {"encoder": "rnn"}},
    },
    "similarity": {
        "sample": {
            "epochs": 12,
            "batch_size": 32,
            "jit": "off",
            "early_stopping": {"metric": "pearson"},
            "model": {"encoder": "rnn", "layers": 1},
            "optimizer": SAMPLE,
        },
        "stsb": FEW_ROWS
        | {
            "epochs": 12,
            "early_stopping": {"metric": "pearson"},
            "model": {"encoder": "rnn", "layers": 1, "dropout": 0.3, "word_dropout": 0.2},
            "optimizer": FEW_ROWS["optimizer"] | {"learning_rate": 5e-4},
        },
    },
    "generate": {
        "sample": {
            "epochs": 4,
            "batch_size": 32,
            "units": "characters",
            "max_length": 64,
            "model": {"dropout": 0.0},
            "optimizer": SAMPLE,
        },
        "tinyshakespeare": {
            "max_steps": 2000,
            "batch_size": 12,
            "units": "characters",
            "max_length": 64,
            "model": {"dropout": 0.0},
            "optimizer": {
                "learning_rate": 3e-3,
                "schedule": "cosine",
                "warmup_steps": 100,
                "beta_2": 0.99,
                "weight_decay": 0.1,
                "average_decay": 0.0,
            },
        },
    },
}

# With a pretrained encoder, whatever the data. It learns at a tenth of this rate (`optimizer.pretrained_rate`).
PRETRAINED = {
    task: FEW_ROWS
    | {
        "epochs": 3,
        "early_stopping": {"metric": metric},
        "model": {"dropout": dropout, "word_dropout": word_dropout},
        "optimizer": FEW_ROWS["optimizer"] | {"learning_rate": 5e-4},
    }
    for task, metric, dropout, word_dropout in (("classify", "accuracy", 0.2, 0.1), ("similarity", "pearson", 0.1, 0.0))
}


def recipe(task: str, dataset: str, pretrained: bool) -> Mapping:
    """The settings of a task on a public data set; on files of one's own, `dataset` is empty."""
    found = RECIPES.get(task, {}).get(dataset, {})
    return found | PRETRAINED.get(task, {}) if pretrained else found
