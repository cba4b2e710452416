from yt8m_tf.console import tables


def test_columns_are_aligned_and_cells_are_unchanged() -> None:
    rows = [("model", "GAP@20", "bytes"), ("moe, 2 folds", "0.8000", "1,000"), ("total", "", "1e5"), ("nan", "-1", "")]
    assert tables.aligned(rows, num_left=1).splitlines() == [
        "model         GAP@20  bytes",
        "moe, 2 folds  0.8000  1,000",
        "total                   1e5",
        "nan               -1",
    ]
    assert tables.markdown(rows[0], rows[1:3]).splitlines() == [
        "| model        |   GAP@20 |   bytes |",
        "|:-------------|---------:|--------:|",
        "| moe, 2 folds |   0.8000 |   1,000 |",
        "| total        |          |     1e5 |",
    ]
    assert tables.aligned(rows[:2], num_left=3) == "model         GAP@20  bytes\nmoe, 2 folds  0.8000  1,000"
