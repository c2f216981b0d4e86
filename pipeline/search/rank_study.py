"""The study of a rank search: Optuna's, in memory or in a database that several machines share.

Optuna's and SQLAlchemy's errors become ours here. Nothing is enqueued: SQLite would give one enqueued trial to two machines.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline.errors import StorageError, UsageError
from pipeline.search.rank_space import LOWEST, Shares

if TYPE_CHECKING:
    from optuna import Study, Trial

BUSY_S = 60
"""How long one waits for another's write to a SQLite file."""
EXAMPLE = "sqlite:///ranks.db"
TRIES = 5
PAUSE_S = 0.5
"""Several machines that begin at once make the same tables, and all but one fail at first."""
LONGEST_NAME = 200


def open_study(url: str | None, name: str, about: Mapping[str, str]) -> Study:
    """The study of that name, made where it is not there.

    Args:
        url: of a database as SQLAlchemy has it, "sqlite:///ranks.db"; None: in memory.
        about: what all trials of the study have in common. It is stored with a new one.

    Raises: UsageError: there is no such database, or its study is about something else.
    """
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

    if not 0 < len(name) <= LONGEST_NAME:
        raise UsageError(f"a study was asked with a name of {len(name)} characters", try_=f"1 ... {LONGEST_NAME}")
    for tries in range(TRIES):
        try:
            return _opened(url, name, about)
        except (OptunaError, SQLAlchemyError, ImportError, ValueError, RuntimeError) as error:
            if tries < TRIES - 1 and isinstance(error, DBAPIError | OptunaError):
                time.sleep(PAUSE_S)
                continue
            # SQLAlchemy repeats what it cannot read as a URL, which may hold a password
            where = shown(url or "")
            why = f": {_told(error)}" if where else ""
            raise UsageError(f"no study can be kept in {where or 'what was given'}{why}", try_=EXAMPLE) from error
    raise AssertionError("the last try returns or raises")


def _opened(url: str | None, name: str, about: Mapping[str, str]) -> Study:
    import optuna
    from optuna.storages import InMemoryStorage, RDBStorage

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    options = {"connect_args": {"timeout": BUSY_S}} if (url or "").startswith("sqlite") else {}
    storage = InMemoryStorage() if url is None else RDBStorage(url, engine_kwargs=options)
    study = optuna.create_study(
        storage=storage, study_name=name, directions=["maximize", "minimize"], load_if_exists=True
    )  # accuracy, cost
    known = study.user_attrs
    if not known and study.get_trials(deepcopy=False):
        raise UsageError(f"the study {name!r} is there, and is no rank search", try_="another --study")
    for key, value in about.items():
        if key not in known:
            study.set_user_attr(key, value)
        elif known[key] != value:
            what = f"the study {name!r} is of another {key}: {str(known[key])[:80]}, and {value[:80]} was asked"
            raise UsageError(what, try_="another --study")
    return study


def suggest(
    study: Study, trial: Trial, names: Sequence[str], starts: Sequence[Mapping[str, float]], seed: int
) -> Shares:
    """The shares of a trial: those of the starts first, one a trial, then what tree-structured Parzen estimators suggest,
    which see the constraints.

    By the trial's place alone: a search that is stopped and gone on with tries what it would have tried, and machines that
    share a study do not try the same.
    """
    import numpy as np
    from optuna.exceptions import ExperimentalWarning
    from optuna.samplers import PartialFixedSampler, TPESampler
    from optuna.trial import TrialState

    failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    place = trial.number - sum(one.number < trial.number for one in failed)
    fixed = dict(starts[place]) if place < len(starts) else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        own = TPESampler(seed=int(np.random.SeedSequence((seed, place)).generate_state(1)[0]))
        study.sampler = PartialFixedSampler(fixed, own)
    return {name: trial.suggest_float(name, LOWEST, 1.0, step=LOWEST) for name in names}


@contextlib.contextmanager
def storage_errors() -> Iterator[None]:
    """Raises: StorageError: the database failed."""
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (OptunaError, SQLAlchemyError) as error:
        raise StorageError(f"the study's storage failed: {_told(error)}", try_="the same command again") from error


def shown(url: str) -> str:
    """The URL without its password; empty where it is none."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        return ""


def _told(error: Exception) -> str:
    text = str(getattr(error, "orig", None) or error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__
