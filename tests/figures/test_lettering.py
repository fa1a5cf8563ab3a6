from mlflow_yolo.figures.lettering import families, legible, wrapped


def test_a_character_without_glyph_becomes_its_code_point() -> None:
    assert legible("a\ue000b") == "a<U+E000>b"  # private use: no font has it


def test_plain_text_is_left_as_it_is() -> None:
    assert legible("Straße $5 <script>") == "Straße $5 <script>"


def test_line_breaks_and_controls_become_spaces() -> None:
    assert legible("a\nb\tc\0d") == "a b c d"


def test_long_text_is_cut_in_the_middle_to_the_length_asked_for() -> None:
    cut = legible("abcdefghijklmnop", longest=10)
    assert cut == "abcdef…nop"
    assert len(cut) == 10
    assert legible("", longest=10) == ""


def test_wrapping_keeps_words_and_existing_breaks() -> None:
    lines = wrapped("one two three four five six\nseven", width_in=1.0, font_size=9.0).splitlines()
    assert " ".join(lines) == "one two three four five six seven"
    assert lines[-1] == "seven"
    assert max(map(len, lines)) <= 14  # 72 points an inch, 5.04 a character
    assert len(lines) == 3


def test_the_first_font_is_the_one_that_matplotlib_ships() -> None:
    assert families()[0] == "DejaVu Sans"
