"""Content negotiation between the two forms of a report."""


def prefers_html(accept: str) -> bool:
    """Tell whether `Accept` ranks text/html above application/json, as browsers do."""
    ranks = dict(_entry(entry) for entry in accept.split(","))
    return _rank(ranks, "text", "html") > _rank(ranks, "application", "json")


def _entry(entry: str) -> tuple[str, float]:
    media_type, *parameters = (part.strip().lower() for part in entry.split(";"))
    quality = next((p.removeprefix("q=") for p in parameters if p.startswith("q=")), "1")
    try:
        return media_type, float(quality)
    except ValueError:
        return media_type, 0.0


def _rank(ranks: dict[str, float], kind: str, subtype: str) -> float:
    for media_type in (f"{kind}/{subtype}", f"{kind}/*", "*/*"):
        if media_type in ranks:
            return ranks[media_type]
    return 0.0
