"""Texts as HTML pages, each token on its colour: words stay words, which can be searched, copied and read aloud."""

import html
from collections.abc import Sequence

import numpy as np

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 1.1rem/1.9 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; color: #111 }}
h1 {{ font-size: 1.1rem }} p {{ white-space: pre-wrap }} small {{ color: #555 }}
span {{ border-radius: .2em; padding: .1em 0 }}
</style>
<h1>{title}</h1>
<p>{text}</p>
<small>{legend}</small>
</html>
"""
MOST_BITS = 8.0  # at and above which a token is as red as can be: it was given 1 chance in 256
BLUE, RED = (33, 102, 172), (178, 24, 43)


def contribution_page(tokens: Sequence[str], contributions: np.ndarray, title: str) -> str:
    """A text on the colours of what its tokens add to an answer: blue for it, red against it.

    Args:
        tokens: T pieces of the text.
        contributions: (T,) in units of logits.
        title: line above the text.
    """
    most = float(np.max(np.abs(contributions), initial=0.0)) or 1.0
    legend = f"blue is for it, red against it; the darkest adds {most:.2f} to the logit; point at a word for its share"
    return _page(tokens, contributions / most, [f"{value:+.3f}" for value in contributions], title, legend)


def surprise_page(tokens: Sequence[str], bits: np.ndarray, title: str) -> str:
    """A text on the colours of its tokens' surprise: the redder, the less likely a token was.

    Args:
        tokens: T pieces of the text.
        bits: (T,) the negative binary logarithm of each token's probability.
        title: line above the text.
    """
    legend = f"the redder, the less likely; the darkest had 1 chance in {2**MOST_BITS:.0f} or less"
    return _page(tokens, -np.clip(bits / MOST_BITS, 0, 1), [f"{value:.2f} bits" for value in bits], title, legend)


def _page(tokens: Sequence[str], shares: np.ndarray, notes: Sequence[str], title: str, legend: str) -> str:
    """Tokens on colours for shares from -1, red, to 1, blue."""
    spans = []
    for token, share, note in zip(tokens, shares, notes, strict=True):
        red, green, blue = BLUE if share > 0 else RED
        text = html.escape(token.replace("\u2581", " "))
        # No more than half covered, so that black letters can be read on it.
        colour = f"rgb({red} {green} {blue} / {abs(share) / 2:.3f})"
        spans.append(f'<span style="background: {colour}" title="{html.escape(note)}">{text}</span>')
    return PAGE.format(title=html.escape(title), text="".join(spans), legend=html.escape(legend))
