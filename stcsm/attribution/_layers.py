"""What a rule's parameters must find in the encoder: layers wide enough, and layers of those names."""

from __future__ import annotations

from stcsm.attribution._percentile import highest_useful_percentile, percentile_rank
from stcsm.attribution._sites import Site
from stcsm.attribution._warn import warn_user

__all__ = ["check_names", "warn_narrow"]


def check_names(sites: list[Site], names: tuple[str | int, ...]) -> None:
    """Refuse names that no activation answers to."""
    for name in names:
        if not any(site.answers_to(name) for site in sites):
            raise ValueError(
                f"Expected signed_layers to name activations of the encoder, found {name!r}; there are: "
                + "; ".join(f"{site.index} or {site.path!r} ({site.where})" for site in sites)
                + "."
            )


def warn_narrow(sites: list[Site], percentile: float) -> None:
    """Warn of layers so narrow that nothing exceeds the percentile, and name one that something would."""
    narrow = [site for site in sites if percentile_rank(site.cells, percentile) == 0]
    if not narrow:
        return
    useful = highest_useful_percentile(min(site.cells for site in narrow))
    places = "; ".join(f"{site.where} ({site.cells} cell{'s' * (site.cells != 1)})" for site in narrow)
    advice = (
        "of one cell nothing ever does: use rectgrad_const, which has no percentile"
        if useful is None
        else f"percentile={useful} would let something pass"
    )
    warn_user(
        f"Nothing passes through these layers, too narrow for the {percentile:g}th percentile: {places}; {advice}. "
        "Where they are the only way from inputs to latents, every map is zero."
    )
