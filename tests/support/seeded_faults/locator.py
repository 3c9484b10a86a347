"""Faults of the parent locator (2.6.2.6)."""

from __future__ import annotations

from dataclasses import replace

from tests.support.builder import LocatorEntrySpec, parent_locator
from tests.support.chains import RELATIVE
from tests.support.seeded_faults.disks import (
    KEYS,
    LINKAGE,
    LOCATOR_ITEM,
    UNKNOWN,
    child,
    disk,
    family,
    locator,
)
from tests.support.seeded_faults.fault import error, fault, note, warning

WRONG_LOCATORS = (
    (
        "R95",
        "is cut off in its head",
        parent_locator(KEYS)[:19],
        "is shorter than the 20 bytes of its head",
    ),
    ("R95", "has no entry", parent_locator(KEYS, count=0), "not have 1 to 256 entries: found 0"),
    ("R95", "has 257 entries", parent_locator(KEYS, count=257), "not have 1 to 256 entries"),
    ("R95", "is cut off in its table", parent_locator(KEYS)[:40], "is too short for its entries"),
    (
        "R95",
        "has a value outside of it",
        locator(LocatorEntrySpec("x", "y", value_offset=4096)),
        "has an impossible place: found offset 4096, length 2",
    ),
    (
        "R95",
        "has a key of no length",
        locator(LocatorEntrySpec("x", "y", key_length=0)),
        "has an impossible place: found offset 208, length 0",
    ),
    (
        "R95",
        "has a value of 3 bytes",
        locator(LocatorEntrySpec("x", "yy", value_length=3)),
        "has an impossible place: found offset 210, length 3",
    ),
    (
        "R96",
        "is of another type",
        parent_locator(KEYS, locator_type=UNKNOWN),
        f"is of an unknown type: found {UNKNOWN}",
    ),
    (
        "R97",
        "has a key that is no text",
        locator(LocatorEntrySpec(b"\x00\xd8", "y")),
        "a key is no valid text: found 00d8",
    ),
    (
        "R97",
        "has two values of a key",
        locator(LocatorEntrySpec("relative_path", "x")),
        "the key relative_path has two different values",
    ),
    (
        "R98",
        "names no version",
        parent_locator({"relative_path": RELATIVE}),
        "the key parent_linkage is missing",
    ),
    ("R99", "has no GUID", locator(parent_linkage="{base}"), "is no GUID: found '{base}'"),
)

LOCATOR_FAULTS = (
    fault(
        "R94",
        "a child has no locator",
        disk(has_parent=True),
        error("R94", "Parent Locator: a differencing disk needs one: found none"),
    ),
    fault(
        "R94",
        "a disk without a parent has a locator",
        disk(has_parent=False, locator=locator()),
        warning("R94", "is not differencing; its parent locator is ignored", LOCATOR_ITEM),
    ),
    *(
        fault(rule, f"the locator {what}", family(child(locator=raw)), error(rule, text))
        for rule, what, raw, text in WRONG_LOCATORS
    ),
    fault(
        "R95",
        "the reserved field of the locator is not zero",
        family(child(locator=parent_locator(KEYS, reserved=1))),
        note("R95", "its reserved field is not zero: found 0x1"),
    ),
    fault(
        "R97",
        "a path ends with a NUL",
        family(child(locator=locator(relative_path=f"{RELATIVE}\0"))),
        note("R97", "a value ends with NUL characters, which are ignored"),
    ),
    replace(
        fault(
            "R98",
            "the locator names no path",
            family(child(locator=parent_locator({"parent_linkage": LINKAGE}))),
            warning("R98", "names no path, so that the parent has to be named by the user"),
            error("R110", "was not found, .* tried nothing"),
        ),
        refused=True,
    ),
    fault(
        "R99",
        "a GUID has no braces",
        family(child(locator=locator(parent_linkage=LINKAGE[1:-1]))),
        note("R99", "parent_linkage is a GUID without braces"),
    ),
)
