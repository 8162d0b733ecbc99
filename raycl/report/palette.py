"""The colours of every figure, for both themes, and what tells settings apart without them.

The hues keep their distance for the common colour blindnesses and stand out by at least
3 : 1 from the ground; a setting has a marker and a dash beside its hue.
"""

from __future__ import annotations

from dataclasses import dataclass

LEVELS = 20
"""Steps of the scale of heat maps: five points each."""

_HIGH_TEXT = 12
"""The first step on which the text of the upper half reads better, in both themes."""

MARKERS = ("circle", "square", "triangle", "diamond")
DASHES = ((), (7, 3), (2, 2.5), (8, 3, 2, 3), (12, 3))


@dataclass(frozen=True)
class Theme:
    """Colours by role."""

    ground: str
    card: str
    ink: str
    muted: str
    hair: str
    strong: str
    """Axis lines and borders that must be seen."""
    accent: str
    hues: tuple[str, ...]
    ramp: tuple[str, ...]
    on_low: str
    on_high: str
    """Text on the lower and on the upper steps of the ramp."""
    good: str
    watch: str
    bad: str


def _ramp(*stops: str) -> tuple[str, ...]:
    """`LEVELS` colours evenly along the stops."""
    colours = [[int(stop[i : i + 2], 16) for i in (1, 3, 5)] for stop in stops]
    found = []
    for level in range(LEVELS):
        place = level / (LEVELS - 1) * (len(colours) - 1)
        low = min(int(place), len(colours) - 2)
        pairs = zip(colours[low], colours[low + 1], strict=True)
        found.append("#" + "".join(f"{round(a + (b - a) * (place - low)):02x}" for a, b in pairs))
    return tuple(found)


LIGHT = Theme(
    ground="#f7f7f4",
    card="#ffffff",
    ink="#191b1f",
    muted="#5c636e",
    hair="#e6e6e1",
    strong="#8b919b",
    accent="#0b62a8",
    hues=(
        "#0b6fb8", "#d1531a", "#0a8a68", "#a84b93", "#a87400", "#2b8fcf", "#7a5a2c", "#4a48b0",
    ),
    ramp=_ramp("#f3f6fa", "#cfe0f0", "#86b8dc", "#3a86c0", "#135a9c", "#08306b"),
    on_low="#191b1f",
    on_high="#ffffff",
    good="#0a7a50",
    watch="#96650a",
    bad="#b3321b",
)  # fmt: skip

DARK = Theme(
    ground="#0f1115",
    card="#171a20",
    ink="#e8e9ec",
    muted="#9ba3af",
    hair="#282d36",
    strong="#6b7380",
    accent="#74b9f5",
    hues=(
        "#58a9ee", "#f0834d", "#3cc398", "#dd8fcb", "#e3ad3b", "#9bd3fb", "#c9a574", "#9c9ff2",
    ),
    ramp=_ramp("#1c222c", "#1d3552", "#22568a", "#3b82bf", "#7dbcea", "#e4f3ff"),
    on_low="#ffffff",
    on_high="#10151c",
    good="#55c596",
    watch="#e0ae4e",
    bad="#f28a72",
)  # fmt: skip


def level_of(percent: float) -> int:
    """The step of the scale that a percentage lies on."""
    return max(0, min(LEVELS - 1, int(percent / 100 * LEVELS)))


def has_high_text(level: int) -> bool:
    """Whether numbers on this step take the colour of the upper steps."""
    return level >= _HIGH_TEXT


def css_variables(theme: Theme) -> str:
    """The theme as CSS custom properties."""
    roles = ("ground", "card", "ink", "muted", "hair", "strong", "accent", "good", "watch", "bad")
    pairs = [(role, getattr(theme, role)) for role in roles]
    pairs += [("on-low", theme.on_low), ("on-high", theme.on_high)]
    pairs += [(f"c{i}", hue) for i, hue in enumerate(theme.hues)]
    pairs += [(f"h{i}", colour) for i, colour in enumerate(theme.ramp)]
    return "".join(f"--{name}:{value};" for name, value in pairs)
