"""What tasks share: the splits that are asked for, and tables of metrics."""

from pipelines.task import print_metrics


def test_a_table_names_systems_where_there_are_several(capsys):
    print_metrics("test: 3 pairs", {"model": {"bleu": 12.345, "chr_f": 6.0}, "words": {"bleu": 1.0, "chr_f": 2.0}}, 2)
    out = capsys.readouterr().out
    assert "test: 3 pairs" in out and "system" in out and "chr f" in out
    assert all(text in out for text in ("model", "12.35", "6.00", "words", "1.00"))
    print_metrics("test: 3 tokens", {"model": {"loss": 0.5}})
    out = capsys.readouterr().out
    assert "0.5000" in out and "system" not in out and "model" not in out
