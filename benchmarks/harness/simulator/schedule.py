"""A seed expands to the life of a run: its table, its options, and what fails in each session."""

from __future__ import annotations

import errno
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.simulator.disk import Event
from harness.simulator.judge import CONTEXT, Prompt
from harness.simulator.power import MODES

Census = dict[tuple[str, str, str], int]  # calls of a session by thread, kind and place

ERRORS = {
    "sync": (errno.EIO, errno.ENOSPC, errno.EDQUOT),
    "write": (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    "create": (errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EIO, errno.ENOSPC, errno.EROFS),
    "open": (errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EIO),
    "open_folder": (errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EIO),
    "rename": (errno.EIO, errno.ENOSPC, errno.EACCES),
    "remove": (errno.EIO, errno.EACCES),
    "remove_tree": (errno.EIO, errno.EACCES),
    "make_folder": (errno.EIO, errno.ENOSPC, errno.EACCES),
    "read": (errno.EIO,),
    "truncate": (errno.EIO,),
    "lock": (errno.EIO,),
    "status": (errno.EACCES, errno.EIO),
    "names": (errno.EACCES, errno.EIO),
}
LATE = {"sync", "rename", "write", "remove", "make_folder", "truncate", "create"}
# Where a crash could cost something: what is written, forced and named there.
COMMITTING = {"create", "write", "sync", "rename", "truncate"}
COMMITS = {"journal", "part", "reads", "run", "record", "complete", "plan", "manifest", "plan file"}
VISITORS = ("reader", "status", "second writer")


@dataclass(frozen=True)
class Row:
    """A pair of the input; `reject`: a row that the plan refuses; `long`: one that does not fit."""

    texts: tuple[str, str, str]
    reject: bool = False

    @property
    def marks(self) -> Prompt:
        """What names its texts."""
        return tuple(text.split()[0].strip("[]") for text in self.texts)

    @property
    def too_long(self) -> bool:
        """Whether no judge can hold its prompts."""
        return sum(map(len, self.texts)) > CONTEXT


@dataclass
class Session:
    """One command on the run, and what fails in it."""

    resume: bool
    events: list[Event] = field(default_factory=list)
    deaths: tuple[int, ...] = ()
    stop_at: int | None = None
    unstartable: bool = False
    hangs: tuple[int, ...] = ()
    computes: bool = False  # while it hangs
    loads_that_hang: int = 0
    power: str | None = None  # what a kill of it is followed by: how the disk loses

    def __str__(self) -> str:
        what = [str(event) for event in self.events]
        what += [f"engine dies at batch {number}" for number in self.deaths]
        what += [f"Ctrl-C at batch {self.stop_at}"] if self.stop_at else []
        what += ["engine does not load"] if self.unstartable else []
        how = "and computes" if self.computes else "at rest"
        what += [f"engine hangs at batch {number}, {how}" for number in self.hangs]
        what += [f"engine hangs in {self.loads_that_hang} loads"] if self.loads_that_hang else []
        what += [f"a kill loses power, {self.power}"] if self.power else []
        return f"{'resume' if self.resume else 'score'}: {'; '.join(what) or 'nothing fails'}"


@dataclass
class Life:
    """All that a seed decides."""

    seed: int
    rows: list[Row]
    options: dict[str, object]
    sessions: list[Session]
    poison: frozenset[Prompt]
    broken: frozenset[Prompt]
    shaky: frozenset[Prompt]
    compacts: bool  # with DuckDB, which takes a tenth of a second
    reuses: bool  # the reads of an earlier run of half of the rows

    def __str__(self) -> str:
        lines = [
            f"seed {self.seed}: {len(self.rows)} rows, {self.options}",
            *(
                f"  {name}: {sorted(prompts)}"
                for name, prompts in (
                    ("poison", self.poison), ("broken", self.broken), ("shaky", self.shaky),
                )
                if prompts
            ),
            f"  hand-off file: {self.compacts}, reuse: {self.reuses}",
            *(f"  {number}. {session}" for number, session in enumerate(self.sessions, 1)),
        ]  # fmt: skip
        return "\n".join(lines)


def expand(seed: int, census: dict[str, Census]) -> Life:
    """Return the life that a seed stands for; `census` has the calls of score and of resume."""
    draw = random.Random(seed)
    rows = _rows(draw)
    prompts = sorted({prompt for row in rows for prompt in prompts_of(row)})
    kind = draw.choices(("sound", "poison", "broken", "shaky"), (80, 6, 6, 8))[0]
    some = frozenset(draw.sample(prompts, min(2, len(prompts))))
    sessions = [_session(draw, number, census, kind) for number in range(draw.randint(1, 4))]
    return Life(
        seed=seed,
        rows=rows,
        options={
            "part_rows": draw.choice((4, 8, 16, 1000)),
            "part_seconds": draw.choice((0.5, 3600.0, 3600.0)),
            "bucket_bytes": draw.choice((200, 600, 2000, 1 << 20)),
        },
        sessions=sessions,
        poison=some if kind == "poison" else frozenset(),
        broken=some if kind == "broken" else frozenset(),
        shaky=some if kind == "shaky" else frozenset(),
        compacts=draw.random() < 0.08,
        reuses=draw.random() < 0.04,
    )


def prompts_of(row: Row) -> Sequence[Prompt]:
    """Return the prompts that a row asks: both orders."""
    instruction, first, second = row.marks
    return (instruction, first, second), (instruction, second, first)


def _rows(draw: random.Random) -> list[Row]:
    count = draw.randint(8, 40)
    instructions = draw.randint(1, max(1, count // 3))
    grouped = draw.random() < 0.6  # else texts are copied into the plan
    filler = "weigh these words " * draw.choice((0, 1, 4))
    rows = []
    for number in range(count):
        which = number * instructions // count if grouped else draw.randrange(instructions)
        responses = [f"[R{2 * number}] {filler}", f"[R{2 * number + 1}] {filler}"]
        rows.append(Row((f"[Q{which}] {filler}", responses[0], responses[1])))
    for number in range(count):
        if draw.random() < 0.1:  # a duplicate, or the same responses in the other order
            instruction, first, second = draw.choice(rows).texts
            swapped = draw.random() < 0.5
            texts = (instruction, second, first) if swapped else (instruction, first, second)
            rows[number] = Row(texts)
    if grouped:
        rows.sort(key=lambda row: int(row.marks[0][1:]))
    if draw.random() < 0.15:
        index = draw.randrange(count)
        rows[index] = Row(rows[index].texts, reject=True)
    if draw.random() < 0.1:
        index = draw.randrange(count)
        instruction, first, second = rows[index].texts
        mark = f"[R{2 * count + 1}] "
        rows[index] = Row((instruction, first, mark + "x" * CONTEXT))
    if all(row.reject for row in rows):
        rows[0] = Row(rows[0].texts)
    return rows


def _session(draw: random.Random, number: int, census: dict[str, Census], kind: str) -> Session:
    session = Session(resume=number > 0 and draw.random() < 0.8)
    calls = census["resume" if session.resume else "score"]
    for _ in range(draw.choices((1, 2, 3), (70, 20, 10))[0]):
        what = draw.choices(
            ("error", "short", "full", "kill", "power", "visitor", "engine"),
            (30, 5, 6, 17, 22, 12, 8),
        )[0]
        if what == "engine":
            _fail_engine(draw, session, kind)
        elif what == "visitor":
            event = _event(draw, calls, draw.choice(VISITORS))
            session.events.append(event)
        else:
            event = _event(draw, calls, "kill" if what == "power" else what)
            session.events.append(event)
            if what == "power":
                session.power = draw.choice(MODES)
    return session


def _fail_engine(draw: random.Random, session: Session, kind: str) -> None:
    what = draw.choice(("deaths", "hangs", "loading", "stop", "unstartable"))
    session.computes = draw.random() < 0.5
    if what in {"deaths", "hangs"} and kind != "poison" and not (session.deaths + session.hangs):
        most = 1 if kind == "shaky" else 2  # a third one would give a prompt up
        batches = tuple(sorted(draw.sample(range(1, 5), draw.randint(1, most))))
        setattr(session, what, batches)
    elif what == "loading":
        session.loads_that_hang = draw.randint(1, 2)
    elif what == "stop":
        session.stop_at = draw.randint(1, 4)
    elif what == "unstartable":
        session.unstartable = True


def _event(draw: random.Random, census: Census, action: str) -> Event:
    """Choose a call: any call as likely as another, or any kind of call, or one of a commit."""
    kinds = {"short": {"write"}, "full": {"write", "create"}, "error": set(ERRORS)}
    keys = sorted(key for key in census if key[1] in kinds.get(action, {key[1]}))
    how = draw.choices(("any call", "any kind of call", "a commit"), (30, 20, 50))[0]
    if how == "a commit":
        commits = [key for key in keys if key[1] in COMMITTING and key[2] in COMMITS]
        place = draw.choice(sorted({place for _, _, place in commits}))
        keys = [key for key in commits if key[2] == place]
    weights = [census[key] for key in keys] if how == "any call" else None
    role, kind, place = draw.choices(keys, weights)[0]
    nth = draw.randint(1, census[role, kind, place])
    late = draw.random() < 0.5 and kind in LATE and action in {"error", "kill"}
    error = draw.choice(ERRORS[kind]) if action == "error" else 0
    return Event(role, kind, place, nth, action, error, late)


def merged(censuses: Sequence[Counter[tuple[str, str, str]]]) -> Census:
    """Return the most calls of each key in some sessions."""
    total: Census = {}
    for census in censuses:
        for key, count in census.items():
            total[key] = max(count, total.get(key, 0))
    return total
