"""The parent locator, right and wrong in every field (R95 to R99, R101)."""

import struct
from uuid import UUID

import pytest

from tests.support.builder import (
    VHDX_LOCATOR_TYPE,
    LocatorEntrySpec,
    golden_g3,
    linkage_text,
    parent_locator,
    same_bytes_guid,
)
from vhdx2raw.errors import CorruptImageError, UnsupportedImageError
from vhdx2raw.findings import Findings
from vhdx2raw.vhdx.locator import ParentLocator, parse_parent_locator

GUID = UUID("ff34003b-11ed-4cf8-a166-b2be05e20b80")
LINKAGE = linkage_text(GUID)
ZERO = linkage_text(UUID(int=0))
NAME = ("relative_path", ".\\base.vhdx")
LINK = ("parent_linkage", LINKAGE)

Entry = tuple[str, str] | LocatorEntrySpec


def read(
    *entries: Entry, **fields: int | bytes | UUID
) -> tuple[ParentLocator, list[tuple[str, str]]]:
    """Build a locator and read it; give it and what is unusual about it."""
    findings = Findings()
    locator = parse_parent_locator(parent_locator(entries, **fields), findings)  # type: ignore[arg-type]
    return locator, [(finding.rule, str(finding)) for _, finding in findings.reported]


def assert_corrupt(item: bytes, rule: str, text: str) -> None:
    """Read an item that is refused with exactly this text."""
    findings = Findings()
    with pytest.raises(CorruptImageError) as caught:
        parse_parent_locator(item, findings)
    assert type(caught.value) is CorruptImageError
    assert caught.value.finding.rule == rule
    assert caught.value.message == f"metadata item Parent Locator: {text}"


# -- right ones ------------------------------------------------------------------------------


def test_locator_of_golden_g3() -> None:
    item = golden_g3().locator
    assert item is not None
    findings = Findings()
    locator = parse_parent_locator(item, findings)
    assert locator.linkages == (same_bytes_guid(0x22),)
    assert locator.paths == {"relative_path": ".\\g1.vhdx"}
    assert findings.reported == []


def test_locator_like_that_of_windows() -> None:
    """The five entries of build 17763, in its order; parent_linkage2 is zero (R101)."""
    entries = {
        "parent_linkage": LINKAGE,
        "absolute_win32_path": "C:\\Users\\me\\base.vhdx",
        "relative_path": ".\\base.vhdx",
        "volume_path": "\\\\?\\Volume{26a21bda-a627-11d7-9931-806e6f6e6963}\\base.vhdx",
        "parent_linkage2": ZERO,
    }
    locator, warnings = read(*entries.items())
    assert locator.entries == entries
    assert locator.linkages == (GUID,)
    assert list(locator.paths) == ["relative_path", "volume_path", "absolute_win32_path"]
    assert warnings == []


def test_strings_may_lie_anywhere_and_twice() -> None:
    """R95: gaps, bytes after the last string, and two entries with the same strings."""
    locator, warnings = read(LINK, NAME, gap=b"gap!", trailing=b"after", reserved=0xFFFF)
    assert locator.linkages == (GUID,)
    assert locator.paths == {"relative_path": ".\\base.vhdx"}
    assert warnings == []


def test_unknown_keys_are_kept_and_ignored() -> None:
    """R97: keys compare exactly."""
    locator, warnings = read(LINK, ("Relative_Path", "no.vhdx"), ("colour", "blue"))
    assert locator.paths == {}
    assert locator.entries["colour"] == "blue"
    assert warnings == []


def test_locator_without_a_path_is_read() -> None:
    """R98: then the user has to name the parent."""
    locator, _ = read(LINK)
    assert (locator.linkages, locator.paths) == ((GUID,), {})


@pytest.mark.parametrize("count", [1, 2, 255, 256])
def test_up_to_256_entries_are_read(count: int) -> None:
    entries = [LINK, *((f"key{number}", "value") for number in range(count - 1))]
    locator, _ = read(*entries)
    assert len(locator.entries) == count


# -- bounds and type (R95, R96) --------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 19])
def test_item_shorter_than_its_head(length: int) -> None:
    item = parent_locator([LINK])[:length]
    assert_corrupt(
        item,
        "R95",
        f"is shorter than the 20 bytes of its head: found {length} bytes (MS-VHDX 2.6.2.6.1)",
    )


@pytest.mark.parametrize("count", [0, 257, 65535])
def test_impossible_number_of_entries(count: int) -> None:
    entries = [LINK, *((f"key{number}", "value") for number in range(max(0, min(count, 257) - 1)))]
    assert_corrupt(
        parent_locator(entries, count=count),
        "R95",
        f"does not have 1 to 256 entries: found {count} (MS-VHDX 2.6.2.6.1)",
    )


@pytest.mark.parametrize("length", [20, 31, 32, 43])
def test_item_too_short_for_its_entries(length: int) -> None:
    item = parent_locator([LINK, NAME])[:length]
    assert_corrupt(item, "R95", "is too short for its entries: found 2 entries (MS-VHDX 2.6.2.6.1)")


@pytest.mark.parametrize(
    ("fields", "facts"),
    [
        ({"key_offset": 0}, "offset 0, length 28"),
        ({"value_offset": 0}, "offset 0, length 76"),
        ({"key_length": 0}, "offset 32, length 0"),
        ({"value_length": 0}, "offset 60, length 0"),
        ({"key_length": 27}, "offset 32, length 27"),
        ({"value_length": 75}, "offset 60, length 75"),
        ({"key_offset": 110}, "offset 110, length 28"),
        ({"value_offset": 62}, "offset 62, length 76"),
        ({"key_offset": 0xFFFFFFFF}, "offset 4294967295, length 28"),
        ({"value_offset": 0xFFFFFFFE}, "offset 4294967294, length 76"),
        ({"key_length": 0xFFFE}, "offset 32, length 65534"),
        ({"value_length": 0xFFFE}, "offset 60, length 65534"),
    ],
)
def test_key_or_value_in_an_impossible_place(fields: dict[str, int], facts: str) -> None:
    item = parent_locator([LocatorEntrySpec(*LINK, **fields)])  # type: ignore[arg-type]
    assert len(item) == 136
    assert_corrupt(
        item, "R95", f"a key or value has an impossible place: found {facts} (MS-VHDX 2.6.2.6.2)"
    )


def test_value_may_end_with_the_item() -> None:
    locator, _ = read(LocatorEntrySpec(*LINK, value_offset=60, value_length=76))
    assert locator.linkages == (GUID,)


@pytest.mark.parametrize(
    "guid", [UUID(int=0), same_bytes_guid(9), UUID(bytes=VHDX_LOCATOR_TYPE.bytes_le)]
)
def test_unknown_type_is_not_supported(guid: UUID) -> None:
    """R96: before anything else in the item is looked at."""
    item = parent_locator([], locator_type=guid)
    with pytest.raises(UnsupportedImageError) as caught:
        parse_parent_locator(item, Findings())
    assert caught.value.finding.rule == "R96"
    assert caught.value.message == (
        f"metadata item Parent Locator: is of an unknown type: found {guid} (MS-VHDX 2.6.2.6.1)"
    )


# -- strings (R97) ---------------------------------------------------------------------------


def test_key_that_is_no_text() -> None:
    """An unpaired surrogate: keys are decoded strictly."""
    key = struct.pack("<3H", 0x61, 0xD800, 0x62)
    item = parent_locator([LINK, LocatorEntrySpec(key, "value")])
    assert_corrupt(item, "R97", "a key is no valid text: found 610000d86200 (MS-VHDX 2.6.2.6.2)")


@pytest.mark.parametrize(
    "units", [(0x61, 0xD800, 0x62), (0xDC00,), (0x61, 0xDBFF), (0xDC01, 0xD801)]
)
def test_value_may_hold_unpaired_surrogates(units: tuple[int, ...]) -> None:
    """As Windows file names may."""
    raw = struct.pack(f"<{len(units)}H", *units)
    locator, warnings = read(LINK, LocatorEntrySpec("relative_path", raw))
    assert locator.paths["relative_path"] == "".join(map(chr, units))
    assert warnings == []


def test_paired_surrogates_are_one_character() -> None:
    locator, _ = read(LINK, ("relative_path", "\N{GRINNING FACE}.vhdx"))
    assert locator.paths["relative_path"] == "\N{GRINNING FACE}.vhdx"


def test_nul_after_a_value_is_a_note() -> None:
    locator, warnings = read(("parent_linkage", LINKAGE + "\0"), ("relative_path", "a.vhdx\0\0"))
    assert locator.linkages == (GUID,)
    assert locator.paths == {"relative_path": "a.vhdx"}
    text = "metadata item Parent Locator: a value ends with NUL characters, which are ignored"
    assert warnings == [("R97", f"{text} (MS-VHDX 2.6.2.6.2)")] * 2


def test_nul_after_a_key_is_a_note() -> None:
    locator, warnings = read(("parent_linkage\0", LINKAGE), NAME)
    assert locator.linkages == (GUID,)
    assert [rule for rule, _ in warnings] == ["R97"]


def test_nul_character_inside_a_value_stays() -> None:
    locator, warnings = read(LINK, ("relative_path", "a\0b.vhdx"))
    assert locator.paths == {"relative_path": "a\0b.vhdx"}
    assert warnings == []


def test_duplicate_key_with_the_same_value_is_read() -> None:
    locator, warnings = read(LINK, NAME, LINK, NAME)
    assert locator.paths == {"relative_path": ".\\base.vhdx"}
    assert warnings == []


@pytest.mark.parametrize("key", ["parent_linkage", "relative_path", "colour"])
def test_duplicate_key_with_another_value_is_refused(key: str) -> None:
    item = parent_locator([LINK, NAME, (key, LINKAGE), (key, "another")])
    assert_corrupt(item, "R97", f"the key {key} has two different values (MS-VHDX 2.6.2.6.2)")


def test_hostile_key_makes_one_short_line() -> None:
    key = "k\n" * 8000
    item = parent_locator([LINK, NAME, (key, LINKAGE), (key, "another")])
    with pytest.raises(CorruptImageError, match="has two different values") as caught:
        parse_parent_locator(item, Findings())
    assert len(str(caught.value)) < 1000
    assert "\n" not in str(caught.value)


# -- linkage (R98, R99, R101) ----------------------------------------------------------------


def test_missing_linkage() -> None:
    item = parent_locator([NAME, ("parent_linkage2", LINKAGE)])
    assert_corrupt(item, "R98", "the key parent_linkage is missing (MS-VHDX 2.6.2.6.3)")


def test_guid_in_upper_case_is_read_without_a_warning() -> None:
    locator, warnings = read(("parent_linkage", LINKAGE.upper()))
    assert (locator.linkages, warnings) == ((GUID,), [])


@pytest.mark.parametrize("key", ["parent_linkage", "parent_linkage2"])
def test_guid_without_braces_is_read_with_a_note(key: str) -> None:
    locator, warnings = read(*({"parent_linkage": LINKAGE} | {key: str(GUID)}).items())
    assert set(locator.linkages) == {GUID}
    text = f"metadata item Parent Locator: {key} is a GUID without braces: found {GUID}"
    assert warnings == [("R99", f"{text} (MS-VHDX 2.6.2.6.3)")]


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "{}",
        LINKAGE[:-1],
        LINKAGE[1:],
        LINKAGE + " ",
        "{" + LINKAGE + "}",
        LINKAGE.replace("-", ""),
        LINKAGE.replace("f", "g"),
        LINKAGE.replace("-", "\N{HYPHEN}"),
        LINKAGE.replace("1", "\N{FULLWIDTH DIGIT ONE}"),
        "urn:uuid:" + str(GUID),
        "\x1b[31m" + LINKAGE,
    ],
)
@pytest.mark.parametrize("key", ["parent_linkage", "parent_linkage2"])
def test_text_that_is_no_guid(key: str, text: str) -> None:
    """R99: the message is ASCII."""
    item = parent_locator(({"parent_linkage": LINKAGE} | {key: text}).items())
    assert_corrupt(item, "R99", f"{key} is no GUID: found {text!a} (MS-VHDX 2.6.2.6.3)")


def test_second_linkage_is_as_good_as_the_first() -> None:
    other = same_bytes_guid(7)
    locator, warnings = read(LINK, ("parent_linkage2", linkage_text(other)))
    assert (locator.linkages, warnings) == ((GUID, other), [])


def test_zero_as_the_second_linkage_means_none() -> None:
    """R101; as the first one it means a parent without an identity."""
    assert read(LINK, ("parent_linkage2", ZERO))[0].linkages == (GUID,)
    assert read(("parent_linkage", ZERO))[0].linkages == (UUID(int=0),)
