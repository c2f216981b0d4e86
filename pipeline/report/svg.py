"""SVG elements as escaped markup: horizontal places are percents, vertical ones pixels, so text never stretches."""

from __future__ import annotations

from markupsafe import Markup, escape


def tag(name: str, *children: str, **attributes: str | float | None) -> Markup:
    """One element. `class_` is class, `text_anchor` is text-anchor; None leaves an attribute out.

    Children that are plain str are escaped, Markup is not.
    """
    written = Markup("").join(
        Markup(' {}="{}"').format(
            key.rstrip("_").replace("_", "-"), value if isinstance(value, str) else coordinate(value)
        )
        for key, value in attributes.items()
        if value is not None
    )
    inside = Markup("").join(escape(child) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), written, inside)


def coordinate(value: float) -> str:
    """A number as short as it can be with three decimals."""
    text = f"{value:.3f}".rstrip("0").rstrip(".")
    return "0" if text in {"", "-0"} else text


def pc(value: float) -> str:
    return f"{coordinate(value)}%"


def picture(*children: str, height: float, title: str, desc: str = "", class_: str = "") -> Markup:
    """A chart as wide as its container and `height` pixels high, with the words that stand for it."""
    heading = [tag("title", title), *([tag("desc", desc)] if desc else [])]
    return tag(
        "svg",
        *heading,
        *children,
        class_=f"chart {class_}".strip(),
        width="100%",
        height=height,
        role="img",
        aria_label=title,
    )


def stretched(*children: str, x: float, width: float, y: float, height: float) -> Markup:
    """A window with 1000 x 1000 units inside, whatever its shape: paths cannot be written in percents."""
    return tag(
        "svg",
        *children,
        x=pc(x),
        width=pc(width),
        y=y,
        height=height,
        viewBox="0 0 1000 1000",
        preserveAspectRatio="none",
    )


def line(points: list[tuple[float, float]], class_: str) -> Markup:
    """A line from point to point in a stretched window."""
    path = "L".join(f"{x:.0f} {y:.0f}" for x, y in points)
    return tag("path", d=f"M{path}", class_=f"line {class_}") if points else Markup("")


def dots(points: list[tuple[float, float]], class_: str) -> Markup:
    """Round dots in a stretched window as one path: lines of no length with round caps."""
    if not points:
        return Markup("")
    return tag("path", d="".join(f"M{x:.0f} {y:.0f}h0" for x, y in points), class_=f"dots {class_}")
