"""The named data sets: each a function of the columns of its splits, downloaded once and verified.

Columns are those of `apps.nlp.data.Examples`.
"""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

from apps.nlp import sample
from pipelines.downloads import DATA_VARIABLE, fetch, provided
from pipelines.errors import UserError

Columns = dict[str, Sequence]

SST2_URL = "https://raw.githubusercontent.com/clairett/pytorch-sentiment-classification/master/data/SST2/"
SST2_SHA256 = {
    "train.tsv": "ec192f833a64da08f475488a77b0d0b47db47acd0f458bd18433fc793b569920",
    "dev.tsv": "eddea6b39e601dd4e7a672b53cc40fdf6019fa80522f351206c24340ca5d9359",
    "test.tsv": "831169c7e2e429d6026e1bdbb542f33b636e3e596caad9602ebc953c205928b7",
}
SST2_PHRASES_URL = "https://raw.githubusercontent.com/eyalbd2/Reproducing-AutoPrompt/HEAD/glue_data/SST-2/"
SST2_PHRASES = {  # the name there, and the digest
    "train.tsv": ("train_full.tsv", "48eac26399f8456935f81dd9e3a745c1430adb6c62e233ccfe22db4a0d15d1d1"),
    "dev.tsv": ("dev.tsv", "54a9c12c77e402fc14d6a66a506f24d999f596b0176eb777c972cccc2f9cc4b0"),
    "test-labeled.tsv": ("test-labeled.tsv", "c0efc56ade6e0598d0f8daca1976e232aee0bcabca8e599341cad290d9d10b3c"),
}
AG_NEWS_URL = "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/ag_news_csv/"
AG_NEWS_SHA256 = {
    "train.csv": "76a0a2d2f92b286371fe4d4044640910a04a803fdd2538e0f3f29a5c6f6b672e",
    "test.csv": "521465c2428ed7f02f8d6db6ffdd4b5447c1c701962353eb2c40d548c3c85699",
}
AG_NEWS_PART = "ag_news/train_subset.csv"  # 10,000 rows of the 120,000, where it is provided
AG_NEWS_PART_SHA256 = "d20fb3ee085c597e9d39f2b23f1dc0477e8a4dd7cab823e03f90ccb66fc8f208"
AG_NEWS_CLASSES = ("World", "Sports", "Business", "Sci/Tech")  # by number, from 1 on
STSB_URL = "https://raw.githubusercontent.com/zhangzhenhu/Semantic-Texual-Similarity-Toolkits/HEAD/data/stsbenchmark/"
STSB_SHA256 = {
    "train": "0f71910b59aa1ad973c5897f0791f3b0965a92b8f82b1a95f3eea9f4162fda82",
    "dev": "5d7e944d8b02734b07bfdb5df67db3420c64bed153fcaa1ba47ad03480cf4234",
    "test": "affe45928a66ee5a708531233c95b7dacbbdc57f974f002a3d32ea0180cf816a",
}
SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
WIKITEXT_URL = "https://raw.githubusercontent.com/pytorch/examples/main/word_language_model/data/wikitext-2/"
WIKITEXT_SHA256 = {
    "valid.txt": "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
    "test.txt": "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
}
WIKITEXT_TOKENS = 2_088_628  # of the training text, an end of line counted as one (Merity et al. 2017)


def _sample_reviews() -> dict[str, Columns]:
    found = {split: zip(*rows, strict=True) for split, rows in sample.reviews().items()}
    return {split: dict(zip(("texts", "labels"), columns, strict=True)) for split, columns in found.items()}


def _sample_pairs() -> dict[str, Columns]:
    found = {split: zip(*rows, strict=True) for split, rows in sample.pairs().items()}
    return {split: dict(zip(("texts", "others", "scores"), columns, strict=True)) for split, columns in found.items()}


def _sample_stories() -> dict[str, Columns]:
    """One document, of a story a line."""
    return {split: {"texts": ("\n".join(found) + "\n",)} for split, found in sample.stories().items()}


def _sst2() -> dict[str, Columns]:
    """Sentences of film reviews, those with a clear opinion (Socher et al. 2013): 6,920, 872 and 1,821."""
    names = {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}
    return {
        split: _opinions(fetch(f"sst2/{name}", SST2_URL + name, SST2_SHA256[name])) for split, name in names.items()
    }


def _sst2_phrases() -> dict[str, Columns]:
    """67,349 phrases of the same training sentences, as GLUE (Wang et al. 2019) has them; 872 and 1,821 sentences."""
    names = {"train": "train.tsv", "validation": "dev.tsv", "test": "test-labeled.tsv"}
    found = {}
    for split, name in names.items():
        there, sha256 = SST2_PHRASES[name]
        found[split] = _opinions(fetch(f"sst2-glue/{name}", SST2_PHRASES_URL + there, sha256), header=True)
    return found


def _opinions(file: Path, header: bool = False) -> Columns:
    """Lines of a text, a tab, and 0 or 1."""
    rows = [line.rsplit("\t", 1) for line in _lines(file)[header:]]
    return {
        "texts": tuple(text.strip() for text, _ in rows),
        "labels": tuple((sample.NEGATIVE, sample.POSITIVE)[int(label)] for _, label in rows),
    }


def _ag_news() -> dict[str, Columns]:
    """Titles and first sentences of news of four topics (Zhang et al. 2015); 7,600 to test."""
    if provided(AG_NEWS_PART) and not provided("ag_news/train.csv"):
        train = fetch(AG_NEWS_PART, AG_NEWS_URL + "train.csv", AG_NEWS_PART_SHA256)
    else:
        train = fetch("ag_news/train.csv", AG_NEWS_URL + "train.csv", AG_NEWS_SHA256["train.csv"])
    test = fetch("ag_news/test.csv", AG_NEWS_URL + "test.csv", AG_NEWS_SHA256["test.csv"])
    return {"train": _news(train), "test": _news(test)}


def _news(file: Path) -> Columns:
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    return {
        "texts": tuple(f"{title.strip()} {description.strip()}" for _, title, description in rows),
        "labels": tuple(AG_NEWS_CLASSES[int(number) - 1] for number, *_ in rows),
    }


def _stsb() -> dict[str, Columns]:
    """Pairs of captions, headlines and posts with scores from 0 to 5 (Cer et al. 2017): 5,749, 1,500 and 1,379."""
    names = {"train": "train", "validation": "dev", "test": "test"}
    found = {}
    for split, name in names.items():
        file = fetch(f"stsb/sts-{name}.csv", f"{STSB_URL}sts-{name}.csv", STSB_SHA256[name])
        # Tabs, whatever its name says, no quoting, and after the pair its licence on some rows.
        rows = [line.split("\t")[4:7] for line in _lines(file)]
        found[split] = {
            "texts": tuple(first.strip() for _, first, _ in rows),
            "others": tuple(second.strip() for _, _, second in rows),
            "scores": tuple(float(score) for score, _, _ in rows),
        }
    return found


def _shakespeare() -> dict[str, Columns]:
    """Plays, 1.1 million characters (Karpathy 2015): 90 % to train on, the rest validates. There is no test."""
    file = fetch("tinyshakespeare/input.txt", SHAKESPEARE_URL, SHAKESPEARE_SHA256)
    text = file.read_bytes().decode()
    end = int(0.9 * len(text))
    return {"train": {"texts": (text[:end],)}, "validation": {"texts": (text[end:],)}}


def _wikitext() -> dict[str, Columns]:
    """Good articles of Wikipedia, cut into tokens (Merity et al. 2017); the training text has to be provided."""
    path = provided("wikitext-2/train.txt")
    if not path:
        raise UserError(
            f"--dataset wikitext2: its training text is not there; put {WIKITEXT_URL}train.txt at wikitext-2/train.txt "
            f"under a directory named by {DATA_VARIABLE}, or give text of your own with --train"
        )
    train = path.read_bytes().decode("utf-8", "replace")
    if (tokens := len(train.replace("\n", " <eos> ").split())) != WIKITEXT_TOKENS:
        raise UserError(
            f"{path}: not the expected file ({tokens} tokens, expected {WIKITEXT_TOKENS}); "
            f"replace it with {WIKITEXT_URL}train.txt"
        )
    found = {"train": {"texts": (train,)}}
    for split, name in {"validation": "valid.txt", "test": "test.txt"}.items():
        file = fetch(f"wikitext-2/{name}", WIKITEXT_URL + name, WIKITEXT_SHA256[name])
        found[split] = {"texts": (file.read_bytes().decode(),)}
    return found


def _lines(file: Path) -> list[str]:
    return [line.removesuffix("\r") for line in file.read_bytes().decode().split("\n") if line.strip()]


SETS: dict[tuple[str, str], Callable[[], dict[str, Columns]]] = {  # by task and name
    ("classify", "sample"): _sample_reviews,
    ("classify", "sst2"): _sst2,
    ("classify", "sst2_phrases"): _sst2_phrases,
    ("classify", "ag_news"): _ag_news,
    ("similarity", "sample"): _sample_pairs,
    ("similarity", "stsb"): _stsb,
    ("generate", "sample"): _sample_stories,
    ("generate", "tinyshakespeare"): _shakespeare,
    ("generate", "wikitext2"): _wikitext,
}
BREAKS = {"tinyshakespeare": "\n\n"}  # what stands between the passages of a document, where it is not a newline
