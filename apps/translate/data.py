"""Where sentence pairs come from: the embedded sample, public data sets, or the user's files."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from apps.translate.config import TranslateConfig
from pipelines.downloads import fetch
from pipelines.errors import UserError
from pipelines.files import write_atomically
from pipelines.runs import Run
from pipelines.text.parallel import Inspection, ParallelText, inspect, read_pairs

MULTI30K_URL = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw/"
# Elliott et al. 2016 (en, de), 2017 (fr and the 2017 tests). Split by the names that reports use.
MULTI30K_SPLITS = {
    "train": "train",
    "validation": "val",
    "test_2016_flickr": "test_2016_flickr",
    "test_2017_flickr": "test_2017_flickr",
    "test_2017_mscoco": "test_2017_mscoco",
}
MULTI30K_SHA256 = {
    "test_2016_flickr.de.gz": "9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8",
    "test_2016_flickr.en.gz": "611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9",
    "test_2016_flickr.fr.gz": "6d326e188d259fb1d04ac19eae3af956559b3a0b93d7635e56c90987c40c8b90",
    "test_2017_flickr.de.gz": "a2c89666db00c495cd8513b9d708d5a3acc205d7de312ef2bf5fb7ebc1540aee",
    "test_2017_flickr.en.gz": "76a444ee25172e72695cddb13ae4a3bda59430617be88e0bb46b60504f054074",
    "test_2017_flickr.fr.gz": "3ba671ceb2299f3304ffafefea7a833d08632fbaf0ba18546f8a2ec2391af496",
    "test_2017_mscoco.de.gz": "799e4854c25d601cb6cb6be29eabe5667734c61ace2f495e03e429031a0bc338",
    "test_2017_mscoco.en.gz": "aab300bfb4427697987e02cd0aacd44bfe8aa50456231b6474c08038bbed2b58",
    "test_2017_mscoco.fr.gz": "754f3072ba9f124569ba5258b32730fc1d214bbf8e0c6dfb2b74401676220db0",
    "train.de.gz": "726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6",
    "train.en.gz": "d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f",
    "train.fr.gz": "622e75069e9f4c577425c4f277116ce66e63a2401c0a2312d90073cb12379a3c",
    "val.de.gz": "f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a",
    "val.en.gz": "14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28",
    "val.fr.gz": "ca3106f1a72390591d25f6c45cb4cd39dec4cd3f123e099748a3ce5256c160e9",
}
DATASETS = ("sample", "multi30k")


def splits(config: TranslateConfig, run: Run) -> dict[str, ParallelText]:
    """The files of every split of the configured data, fetched or written where needed.

    Returns:
        Splits by name: `train`, `validation`, and tests, the main one first. For the user's own
        files, splits that were not given are missing.

    Raises:
        UserError: An unknown data set or language pair, or a missing file.
    """
    if config.train:
        return {name: ParallelText.from_arguments(paths) for name, paths in config.own_files().items()}
    if config.dataset == "sample":
        return _sample(run)
    if config.dataset == "multi30k":
        return _multi30k(config.language_pair)
    raise config.unknown_dataset(DATASETS)


def _sample(run: Run) -> dict[str, ParallelText]:
    """The sample grammar's sentences, as TSV files among the run's assets: a pattern for the user's own."""
    directory = run.assets / "data"
    files = {name: directory / f"{name}.tsv" for name in ("train", "validation", "test")}
    if not all(file.exists() for file in files.values()):
        from apps.translate import sample

        for name, pairs in sample.splits().items():
            write_atomically(files[name], "".join(f"{source}\t{target}\n" for source, target in pairs))
    return {name: ParallelText(file) for name, file in files.items()}


def _multi30k(language_pair: str) -> dict[str, ParallelText]:
    languages = tuple(language_pair.split("-"))
    if len(languages) != 2 or len(set(languages)) != 2 or not set(languages) <= {"en", "de", "fr"}:
        raise UserError(f"--language-pair {language_pair}: multi30k has en, de and fr; write two of them as en-de")

    def file(split, language):
        name = f"{split}.{language}.gz"
        return fetch(f"multi30k/{name}", MULTI30K_URL + name, MULTI30K_SHA256[name])

    return {
        name: ParallelText(*(file(split, language) for language in languages))
        for name, split in MULTI30K_SPLITS.items()
    }


def hold_out(text: ParallelText, inspection: Inspection, most: int = 500) -> tuple[Inspection, list[tuple[str, str]]]:
    """Takes evenly spaced pairs out of the training text, for users who give no validation file.

    Returns:
        The inspection without those pairs, and the pairs: one in fifty, `most` at most, one at least.
    """
    if inspection.good < 2:
        raise UserError(f"{text}: one pair is too little to train on and to validate with; give more, or --validation")
    count = max(1, min(most, inspection.good // 50))
    chosen = set(np.linspace(0, inspection.good - 1, count).astype(int).tolist())
    good_rows = _good_rows(inspection)
    rows, pairs = [], []
    for index, (row, pair) in enumerate(zip(good_rows, read_pairs(text, inspection), strict=True)):
        if index in chosen:
            rows.append(row)
            pairs.append(pair)
    left_out = np.union1d(inspection.bad_rows, np.array(rows, np.int64))
    return dataclasses.replace(inspection, good=inspection.good - len(pairs), bad_rows=left_out), pairs


def _good_rows(inspection: Inspection) -> Iterator[int]:
    bad = set(inspection.bad_rows.tolist())
    return (row for row in range(1, inspection.rows + 1) if row not in bad)


def read_split(text: ParallelText, on_bad_example: str) -> list[tuple[str, str]]:
    """All pairs of a split that is small enough to hold. Says what it skipped."""
    inspection = inspect(text, on_bad_example=on_bad_example, sample_size=0)
    if inspection.bad_rows.size:
        print(inspection.summary())
    return list(read_pairs(text, inspection))
