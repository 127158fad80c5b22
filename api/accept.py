"""Content negotiation between JSON, which every call speaks, and another form of the same."""


def prefers(accept: str, media_type: str) -> bool:
    """Tell whether `Accept` ranks the media type above application/json, as browsers do HTML."""
    ranks = dict(_entry(entry) for entry in accept.split(","))
    return _rank(ranks, media_type) > _rank(ranks, "application/json")


def _entry(entry: str) -> tuple[str, float]:
    media_type, *parameters = (part.strip().lower() for part in entry.split(";"))
    quality = next((p.removeprefix("q=") for p in parameters if p.startswith("q=")), "1")
    try:
        return media_type, float(quality)
    except ValueError:
        return media_type, 0.0


def _rank(ranks: dict[str, float], wanted: str) -> float:
    for media_type in (wanted, f"{wanted.partition('/')[0]}/*", "*/*"):
        if media_type in ranks:
            return ranks[media_type]
    return 0.0
