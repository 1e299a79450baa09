"""The caption grammar: `a COLOUR DIGIT [MOTION] [SPEED]`, one object or two joined by `and`.

    "a red 3 moving right and a blue 7 circling clockwise quickly"
      └ Subject(colour="red", digit=3, motion="moving right", speed="")
                                  └ Subject("blue", 7, "circling clockwise", "quickly")

Read by `text` (words to tokens), `moving_digits` (subjects to pixels) and `judge` (pixels back to subjects).
"""

from dataclasses import dataclass
from difflib import get_close_matches

COLOURS = {  # RGB in [0, 1], far apart in direction so that a dimmed colour can still be told
    "red": (1.0, 0.15, 0.1),
    "green": (0.1, 0.9, 0.2),
    "blue": (0.1, 0.25, 1.0),
    "yellow": (1.0, 0.9, 0.1),
    "purple": (0.75, 0.1, 1.0),
    "cyan": (0.1, 0.95, 1.0),
    "white": (1.0, 1.0, 1.0),
}
DIRECTIONS = ("left", "right", "up", "down")
MOTIONS = (
    "standing still",
    *(f"moving {direction}" for direction in DIRECTIONS),
    "circling clockwise",
    "circling anticlockwise",
)
SPEEDS = ("slowly", "", "quickly")
WORDS = ("a", "and", *COLOURS, *"0123456789", *dict.fromkeys(" ".join((*MOTIONS, *SPEEDS)).split()))
MEANT = {  # words near to known ones in meaning, not in spelling
    **dict(zip(("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"), "0123456789", strict=True)),
    **dict.fromkeys(("fast", "quick", "rapid", "rapidly", "swiftly", "speedily", "faster"), "quickly"),
    **dict.fromkeys(("slow", "slower", "leisurely", "gently"), "slowly"),
    **dict.fromkeys(("static", "stationary", "resting", "motionless", "unmoving", "fixed"), "standing still"),
    **dict.fromkeys(("rotating", "orbiting", "turning", "spinning", "looping"), "circling"),
    **dict.fromkeys(("counterclockwise", "counter-clockwise", "anti-clockwise"), "anticlockwise"),
    **dict.fromkeys(("going", "sliding", "drifting", "flying", "walking", "travelling", "traveling"), "moving"),
    **dict.fromkeys(("upward", "upwards", "north"), "up"),
    **dict.fromkeys(("downward", "downwards", "south"), "down"),
    **dict.fromkeys(("leftward", "leftwards", "west"), "left"),
    **dict.fromkeys(("rightward", "rightwards", "east"), "right"),
    **dict.fromkeys(("violet", "magenta"), "purple"),
    **dict.fromkeys(("turquoise", "aqua", "teal"), "cyan"),
    **dict.fromkeys(("crimson", "scarlet"), "red"),
    **dict.fromkeys(("an", "the"), "a"),
    **dict.fromkeys(("&", "+", "plus", "with"), "and"),
}
OTHER_COLOURS = ("pink", "orange", "brown", "black", "grey", "gray", "golden", "silver", "lime", "indigo")  # no nearest one
GRAMMAR = "a COLOUR DIGIT [MOTION] [SPEED], one object or two joined by 'and'"


@dataclass(frozen=True)
class Subject:
    """What a caption says of one object. `motion` and `speed` are "" where nothing is said."""

    colour: str
    digit: int
    motion: str = ""
    speed: str = ""

    def __str__(self) -> str:
        return " ".join(part for part in ("a", self.colour, str(self.digit), self.motion, self.speed) if part)


def parse_caption(caption: str) -> tuple[Subject, ...]:
    """Read a caption into one or two subjects.

    Raises `TypeError` for anything but a string, and `ValueError` for an empty caption, a word outside the vocabulary
    (naming the nearest known words: a word is never dropped) or an order of words outside the grammar.
    """
    if not isinstance(caption, str):
        raise TypeError(f"a caption is a string such as 'a red 3 moving right', not {type(caption).__name__}")
    words = caption.lower().split()
    if not words:
        raise ValueError(f"the caption is empty: write {GRAMMAR}")
    for word in words:
        if word not in WORDS:
            alike = list(COLOURS) if word in OTHER_COLOURS else get_close_matches(word, WORDS, n=3, cutoff=0.4)
            near = [MEANT[word]] if word in MEANT else alike
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known words: {' '.join(WORDS)}"
            raise ValueError(f"unknown word {word!r} in caption {caption!r}: {hint}")
    parts = f"{' '.join(words)} ".split(" and ")  # the space: after a last "and" an object is missing
    if len(parts) > 2:
        raise ValueError(f"{len(parts)} objects in caption {caption!r}: one or two are accepted")
    return tuple(_parse_subject(part.split(), caption) for part in parts)


def format_caption(subjects: tuple[Subject, ...]) -> str:
    """The inverse of `parse_caption`."""
    return " and ".join(map(str, subjects))


def _parse_subject(words: list[str], caption: str) -> Subject:
    def fail(where: str, given: str, accepted: str):
        raise ValueError(f"caption {caption!r}: expected {where} ({accepted}), got {given}; the grammar is {GRAMMAR}")

    queue = list(words)

    def take(where: str, accepted: tuple[str, ...]) -> str:
        if not queue or queue[0] not in accepted:
            fail(where, repr(queue[0]) if queue else "nothing", " ".join(accepted))
        return queue.pop(0)

    take("an article", ("a",))
    colour = take("a colour", tuple(COLOURS))
    digit = take("a digit", tuple("0123456789"))
    motion = speed = ""
    if queue and queue[0] in ("standing", "moving", "circling"):
        verb = queue.pop(0)
        motion = f"{verb} {take('the motion', tuple(m.split()[1] for m in MOTIONS if m.startswith(verb)))}"
    if queue and queue[0] in SPEEDS:
        speed = queue.pop(0)
    if queue:
        fail("the end of the object", repr(queue[0]), "at most one motion, then at most one speed")
    return Subject(colour, int(digit), motion, speed)
