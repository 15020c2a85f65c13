from limbeck.storage.jsonl import append_lines, whole_lines


def test_half_a_line_does_not_count(tmp_path):
    path = tmp_path / "made" / "log.jsonl"
    assert whole_lines(path) == []
    append_lines(path, ["eins", "zwölf"])
    with path.open("ab") as stream:
        stream.write(b"drei")
    assert whole_lines(path) == ["eins", "zwölf"]
    append_lines(path, ["vier"])
    assert path.read_text(encoding="utf-8") == "eins\nzwölf\nvier\n"
    append_lines(path, [])
    assert whole_lines(path) == ["eins", "zwölf", "vier"]
