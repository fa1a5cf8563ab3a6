"""Gates that read the file itself: are these the bytes, do they say what they are, are they small enough."""

from typing import Any

from mlflow_yolo.registry.fetching import SHA_TAG
from mlflow_yolo.registry.gates.evidence import Evidence
from mlflow_yolo.registry.gates.gate import Verdict
from mlflow_yolo.registry.gates.limits import Limits
from mlflow_yolo.registry.gates.own_words import WORDS, check_file, own_words
from mlflow_yolo.variant import Variant, digest, read_variant, size_mb


def integrity(evidence: Evidence, limits: Limits) -> Verdict:
    """Are the bytes those that were registered and benchmarked, and does their format's own library accept them?

    The file's digest, read again, is that of `variant.json` and of the version's tag; a version without the tag fails.
    """
    candidate = evidence.candidate
    found, tag = digest(candidate.file), candidate.fetched.tags.get(SHA_TAG, "")
    value, limit = f"sha256 {found[:12]}", f"== {tag[:12] or 'tag'}"
    for where, said in (("variant.json", candidate.variant.sha256), (f"tag {SHA_TAG}", tag)):
        if said != found:
            why = f"the file has sha256 {found}, {where} says {said or 'nothing'}. Register the variant again."
            return Verdict("integrity", value, limit, False, why)
    check_file(candidate.file)
    return Verdict("integrity", value, limit, True)


def metadata(evidence: Evidence, limits: Limits) -> Verdict:
    """Do the file itself, `variant.json` and the registered parent agree on what the model is?

    A parent of another input size is named but refuses nothing: `compress` makes one at 256 instead of 320 pixels on
    purpose, and accuracy and speed are judged against the parent as it is.
    """
    variant, parent = evidence.candidate.variant, evidence.parent
    differing = _difference(variant, own_words(evidence.candidate.file), "the file")
    note = f"its parent cannot be compared: {evidence.parent_note}" if evidence.parent_note else ""
    if not differing and parent is not None:
        theirs = read_variant(parent.folder, check=False)
        who = f"its parent, version {parent.version},"
        differing = _difference(variant, {**_of_variant(theirs), "imgsz": variant.imgsz}, who)
        if theirs.imgsz != variant.imgsz:
            note = f"its input is {_pixels(variant)} pixels, that of its parent, version {parent.version}, is "
            note += f"{_pixels(theirs)}."
    if differing:
        word, _, sentence = differing.partition(": ")
        return Verdict("metadata", word, "equal", False, f"{sentence}. Export the model again.")
    return Verdict("metadata", f"{len(WORDS)} words", "equal", True, note)


def size(evidence: Evidence, limits: Limits) -> Verdict:
    """Is the file small enough?"""
    found = size_mb(evidence.candidate.file)
    value = f"{found:.2f} MB"
    if limits.size_mb is None:
        return Verdict("size", value, "no limit set", True)
    passed = found <= limits.size_mb
    why = "" if passed else "Use a smaller kind or network, or raise size_mb."
    return Verdict("size", value, f"<= {limits.size_mb:g} MB", passed, why)


def _of_variant(variant: Variant) -> dict[str, Any]:
    return {word: getattr(variant, word) for word in WORDS}


def _difference(variant: Variant, said: dict[str, Any], who: str) -> str:
    """Return the first word on which `variant.json` and another disagree, and how; empty for none."""
    for word, own in _of_variant(variant).items():
        if said.get(word) != own:
            other = f"says {word}={_short(said[word])}" if word in said else f"does not say {word}"
            return f"{word}: {who} {other}, variant.json says {_short(own)}"
    return ""


def _pixels(variant: Variant) -> str:
    return "x".join(map(str, variant.imgsz))


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
