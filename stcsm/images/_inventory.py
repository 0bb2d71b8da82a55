"""What became of every picture."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Inventory"]


@dataclass(frozen=True)
class Inventory:
    """What became of every picture: nothing is left out without being counted.

    Attributes
    ----------
    listed, used
        Pictures in the attribute table, and those that the dataset holds.
    missing
        Listed, but no such file, or one of no bytes.
    extra
        Files that no row lists.
    unplaced
        On disk, but without landmarks.
    empty
        Pictures of whose crop nothing lies within the picture (or, with ``outside="skip"``, not all of it).
    clipped
        Pictures part of whose crop lies outside; they are used.
    """

    listed: int
    used: int
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    unplaced: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()
    clipped: tuple[str, ...] = ()

    def __str__(self) -> str:
        kinds = {
            "without a file": self.missing,
            "files not listed": self.extra,
            "without landmarks": self.unplaced,
            "with an empty crop": self.empty,
            "with a clipped crop": self.clipped,
        }
        told = [
            f"{len(names)} {what} ({names[0]}{', ...' if len(names) > 1 else ''})"
            for what, names in kinds.items()
            if names
        ]
        return f"{self.used} of {self.listed} pictures used" + "".join(f"; {text}" for text in told)
