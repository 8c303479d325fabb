"""Pages of texts whose tokens are coloured: nothing of the text is lost, nor taken for HTML."""

import html
import re

import numpy as np

from apps.nlp.pages import contribution_page, surprise_page

TOKENS = ["\u2581<b>", "\u2581fine", "\u2581&", "\u2581dull"]
SPAN = re.compile(r'<span style="background: rgb\((\d+) \d+ (\d+) / ([\d.]+)\)" title="([^"]*)">([^<]*)</span>')


def test_every_token_is_there_on_the_colour_of_its_share():
    page = contribution_page(TOKENS, np.array([0.0, 2.0, 0.5, -1.0]), "good <90%>")
    spans = SPAN.findall(page)
    assert [html.unescape(text) for *_, text in spans] == [" <b>", " fine", " &", " dull"]
    assert [note for *_, note, _ in spans] == ["+0.000", "+2.000", "+0.500", "-1.000"]
    assert [float(cover) for _, _, cover, *_ in spans] == [0.0, 0.5, 0.125, 0.25]
    blue, red = spans[1][:2], spans[3][:2]
    assert int(blue[0]) < int(blue[1]) and int(red[0]) > int(red[1])
    assert "<title>good &lt;90%&gt;</title>" in page and "<b>" not in page
    assert "the darkest adds 2.00 to the logit" in page


def test_the_less_likely_the_redder():
    spans = SPAN.findall(surprise_page(TOKENS, np.array([0.0, 1.0, 4.0, 20.0]), "2.3 bits a token"))
    assert [float(cover) for _, _, cover, *_ in spans] == [0.0, 0.062, 0.25, 0.5]
    assert spans[3][3] == "20.00 bits"


def test_nothing_to_show():
    assert not SPAN.findall(contribution_page([], np.zeros(0), ""))
