"""Rank search as a library call: what is varied, what is tried and in which order, what is stored, and the front."""

from __future__ import annotations

import itertools
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import HandsetError, StorageError, UsageError
from pipeline.graph import count
from pipeline.search import Price, Ranked, RankSearch, Trial, rank_study
from pipeline.search.rank_space import AXES, LOWEST, decomposed
from pipeline.search.rank_trials import FACTS, pareto

SEARCH = runpy.run_path(str(Path(__file__).with_name("search_network.py")))
SHAPE, Small, model = SEARCH["SHAPE"], SEARCH["Small"], SEARCH["model"]


class Judge:
    """An accuracy without data: how close the outputs for one noise are to the network's own. Keeps what it was asked."""

    def __init__(self, model: nn.Module) -> None:
        self.x = torch.randn((16, *SHAPE[1:]), generator=torch.Generator().manual_seed(1))
        self.own, self.macs = self._of(model), []  # type: ignore[var-annotated]

    def __call__(self, module: nn.Module) -> float:
        self.macs.append(macs(module))
        error = float((self._of(module) - self.own).norm() / self.own.norm())
        return 1 / (1 + error)

    def _of(self, module: nn.Module) -> Tensor:
        with torch.no_grad():
            return module(self.x)


def macs(module: nn.Module) -> int:
    return count(module, SHAPE).macs


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ranks.db'}"


def told(found: Ranked) -> list[tuple[Any, ...]]:
    """The trials in their order, without their numbers."""
    return [(one.ranks, one.cost, one.accuracy, one.params, one.macs) for one in found.trials]


@pytest.mark.parametrize(
    ("make", "method", "said"),
    [
        (Small, "alds", "there is no rank search by 'alds'; try: cp, svd, tucker2"),
        (lambda: nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU()), "tucker2", "has no layer that tucker2 makes smaller"),
        (lambda: nn.Sequential(nn.Conv2d(2, 1, 1)), "svd", "has no layer that svd makes smaller"),
    ],
)
def test_nothing_to_search(make: Callable[[], nn.Module], method: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        RankSearch(method=method, trials=2).run(make(), SHAPE, lambda _: 1.0, macs)


def test_a_layer_without_numbers_is_named(model: nn.Module) -> None:
    with torch.no_grad():
        model.get_parameter("second.weight")[0] = torch.nan
    with pytest.raises(UsageError, match="'second' holds NaN"):
        RankSearch(trials=2).run(model, SHAPE, lambda _: 1.0, macs)


# what is tried


def test_the_front_is_what_no_trial_beats(model: nn.Module) -> None:
    judge = Judge(model)
    found = RankSearch(trials=30).run(model, SHAPE, judge, macs)
    assert [one.number for one in found.trials] == list(range(30)) and not found.stopped
    assert (found.trials[0].ranks, found.trials[0].cost, found.trials[0].accuracy) == ({}, macs(model), 1.0)
    for one in found.trials:
        real = decomposed(model, "tucker2", one.ranks)
        assert one.cost == one.macs == macs(real) and one.params == sum(each.numel() for each in real.parameters())
        assert one.accuracy == pytest.approx(judge(real))
    rated = {(one.cost, one.accuracy) for one in found.trials}
    beaten = {
        (cost, accuracy) for (cost, accuracy), (less, more) in itertools.permutations(rated, 2)
        if less <= cost and more >= accuracy
    }  # fmt: skip
    assert [(one.cost, one.accuracy) for one in found.front] == sorted(rated - beaten)
    assert any(one.number > 8 for one in found.front), "nothing was found beyond the starts"


def test_a_front_of_equals_has_the_first_of_them() -> None:
    costs = [(2.0, 0.5), (1.0, 0.5), (1.0, 0.5), (1.0, 0.4), (3.0, 0.9), (0.5, None), (None, None)]
    trials = [Trial(number, {}, 1, 1, cost, None, accuracy) for number, (cost, accuracy) in enumerate(costs)]
    assert [one.number for one in pareto(trials)] == [1, 4]


@pytest.mark.parametrize("method", AXES)
def test_the_budget_is_kept_and_what_is_over_it_is_not_judged(method: str, model: nn.Module) -> None:
    budget, judge = 0.5 * macs(model), Judge(model)
    found = RankSearch(method=method, trials=14, budget=budget).run(model, SHAPE, judge, macs)
    over = [one for one in found.trials if one.cost is not None and one.cost > budget]
    assert over and not any(one.feasible or one.accuracy is not None for one in over)
    assert judge.macs and max(judge.macs) <= budget
    assert all(one.accuracy is not None for one in found.trials if one not in over)
    assert found.front and all(one.cost is not None and one.cost <= budget for one in found.front)


def test_the_same_network_is_judged_once(model: nn.Module) -> None:
    """Of 3 input channels a dozen shares are the same rank."""
    judge = Judge(model)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    judge.own = judge._of(network)
    found = RankSearch(trials=25).run(network, SHAPE, judge, macs)
    different = {str(one.ranks): one.accuracy for one in found.trials}
    assert len(judge.macs) == len(different) < 20
    assert all(one.accuracy == different[str(one.ranks)] for one in found.trials)


def test_a_seed_tries_the_same_and_another_one_does_not(model: nn.Module) -> None:
    first, same, other = (
        told(RankSearch(trials=13, seed=seed).run(model, SHAPE, Judge(model), macs)) for seed in (0, 0, 1)
    )
    assert first == same and first[:8] == other[:8] and first[9:] != other[9:]


def test_a_judge_may_change_what_it_is_given(model: nn.Module) -> None:
    before = {name: values.clone() for name, values in model.state_dict().items()}

    def judge(module: nn.Module) -> float:
        for values in module.state_dict().values():
            values.zero_()
        return 0.5

    found = RankSearch(trials=3).run(model, SHAPE, judge, macs)
    assert [one.accuracy for one in found.trials] == [0.5] * 3
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())


def test_a_network_without_a_price_is_not_feasible_and_says_why(model: nn.Module) -> None:
    judge = Judge(model)

    def price(module: nn.Module) -> Price:
        known = isinstance(module.get_submodule("second"), nn.Conv2d)
        return Price(macs(module) / 1e6, 1.0) if known else Price(None, 0.75, "the table does not know a kernel")

    found = RankSearch(trials=6, budget=1e9).run(model, SHAPE, judge, price)
    without = [one for one in found.trials if "second" in one.ranks]
    assert without and len(without) < 6
    for one in without:
        assert (one.cost, one.coverage, one.accuracy, one.feasible) == (None, 0.75, None, False)
        assert one.why == "the table does not know a kernel"
    assert all(one.coverage == 1.0 and one.feasible and not one.why for one in found.trials if one not in without)
    with pytest.raises(UsageError, match="no network that was tried has a price: no kernel"):
        RankSearch(trials=3).run(model, SHAPE, judge, lambda _: Price(None, 0.0, "no kernel"))


def test_a_budget_that_no_trial_meets(model: nn.Module) -> None:
    judge = Judge(model)
    with pytest.raises(UsageError, match=r"no trial of 9 meets the budget of 7: the smallest costs (\d+); try: .*\1 or"):
        RankSearch(trials=9, budget=7).run(model, SHAPE, judge, macs)
    assert judge.macs == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"trials": 0}, "with 0 trials; try: 1 or more"),
        ({"budget": 0}, "a budget of 0; try"),
        ({"budget": float("nan")}, "a budget of nan"),
        ({"seed": -1}, "the seed -1"),
        ({"study": ""}, "a name of 0 characters"),
        ({"study": "x" * 201}, "a name of 201 characters"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], said: str, model: nn.Module) -> None:
    with pytest.raises(UsageError, match=said):
        RankSearch(**settings).run(model, SHAPE, Judge(model), macs)


@pytest.mark.parametrize("value", [float("nan"), -0.1, 1.5])
def test_what_is_no_accuracy(value: float, model: nn.Module) -> None:
    with pytest.raises(UsageError, match=f"was found {value} accurate"):
        RankSearch(trials=2).run(model, SHAPE, lambda _: value, macs)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_what_is_no_cost(value: float, model: nn.Module) -> None:
    with pytest.raises(UsageError, match=f"was priced at {value}"):
        RankSearch(trials=2).run(model, SHAPE, Judge(model), lambda _: value)


# what is stored


def test_a_stopped_search_goes_on_with_what_it_would_have_tried(
    model: nn.Module, url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = RankSearch(trials=12).run(model, SHAPE, Judge(model), macs)
    judge = Judge(model)

    def until(count: int) -> Callable[[nn.Module], float]:
        def judged(module: nn.Module) -> float:
            if len(judge.macs) == count:
                raise KeyboardInterrupt
            return judge(module)

        return judged

    counts: list[int] = []
    parts = [
        RankSearch(trials=12, storage=url).run(model, SHAPE, until(limit), macs, lambda _, n: counts.append(n))
        for limit in (2, 5, 99)
    ]
    assert [one.stopped for one in parts] == [True, True, False]
    assert told(parts[0]) == told(whole)[: len(parts[0].trials)] and 2 <= len(parts[0].trials) < 12
    assert parts[0].front == pareto(parts[0].trials)
    assert told(parts[2]) == told(whole)
    assert counts == list(range(1, 13))
    states = [one.state.name for one in optuna.load_study(study_name="ranks", storage=url).trials]
    assert (states.count("COMPLETE"), states.count("FAIL"), len(states)) == (12, 2, 14)
    assert capfd.readouterr() == ("", "")


def test_a_full_study_is_read_and_nothing_is_tried(model: nn.Module, url: str) -> None:
    first = RankSearch(trials=4, storage=url).run(model, SHAPE, Judge(model), macs)
    judge = Judge(model)
    again = RankSearch(trials=3, storage=url).run(model, SHAPE, judge, macs)
    assert again == first and judge.macs == []


def test_two_machines_share_one_study(model: nn.Module, url: str) -> None:
    """The second one begins while the first judges its third network."""
    judge, found = Judge(model), []

    def judged(module: nn.Module) -> float:
        if len(judge.macs) == 2 and not found:
            found.append(RankSearch(trials=6, storage=url).run(model, SHAPE, judge, macs))
        return judge(module)

    whole = RankSearch(trials=10, storage=url).run(model, SHAPE, judged, macs)
    numbers = [[one.number for one in some.trials] for some in (found[0], whole)]
    assert len(numbers[0]) == 6 and set(numbers[0]) < set(numbers[1]) == set(range(10))
    assert len(judge.macs) == len({str(one.ranks) for one in whole.trials})


def test_constraints_are_stored_for_the_sampler(model: nn.Module, url: str) -> None:
    budget = 0.5 * macs(model)
    found = RankSearch(trials=9, budget=budget, storage=url).run(model, SHAPE, Judge(model), macs)
    stored = optuna.load_study(study_name="ranks", storage=url).trials
    assert [one.constraints["over the budget"] for one in stored] == [(one.cost or 0) / budget - 1 for one in found.trials]
    assert [one.constraints["no price"] for one in stored] == [0.0] * 9
    assert [one.values for one in stored] == [[one.accuracy or 0.0, one.cost] for one in found.trials]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"method": "svd"}, "of another method: tucker2, and svd was asked; try: another --study"),
        ({"budget": 5e4}, "of another budget: 60000.0, and 50000.0 was asked"),
        ({"about": {"data": "cifar10"}}, "of another data: digits, and cifar10 was asked"),
    ],
)
def test_a_study_of_something_else_is_refused(changed: dict[str, Any], said: str, model: nn.Module, url: str) -> None:
    usual: dict[str, Any] = {"trials": 2, "budget": 6e4, "storage": url, "about": {"data": "digits"}}
    with pytest.raises(UsageError, match="no trial of 1 meets"):  # the network as it is
        RankSearch(**{**usual, "trials": 1}).run(model, SHAPE, Judge(model), macs)
    with pytest.raises(UsageError, match=said):
        RankSearch(**{**usual, **changed}).run(model, SHAPE, Judge(model), macs)
    RankSearch(**{**usual, **changed, "study": "other"}).run(model, SHAPE, Judge(model), macs)


def test_a_study_of_another_network_or_input_is_refused(model: nn.Module, url: str) -> None:
    RankSearch(trials=1, storage=url).run(model, SHAPE, Judge(model), macs)
    with pytest.raises(UsageError, match=r"of another network: \w{16} on 1x3x8x8, and \w{16} on 1x3x16x16 was asked"):
        RankSearch(trials=1, storage=url).run(model, (1, 3, 16, 16), Judge(model), macs)
    with torch.no_grad():
        model.get_parameter("linear.bias")[0] += 1
    with pytest.raises(UsageError, match="of another network"):
        RankSearch(trials=1, storage=url).run(model, SHAPE, Judge(model), macs)


def test_a_study_of_somebody_else_is_refused(model: nn.Module, url: str) -> None:
    study = optuna.create_study(study_name="ranks", storage=url)
    study.tell(study.ask(), 1.0)
    with pytest.raises(UsageError, match="'ranks' is there, and is no rank search"):
        RankSearch(trials=2, storage=url).run(model, SHAPE, Judge(model), macs)


@pytest.mark.parametrize(
    "facts",
    [None, {}, {"params": 1}, {"cost": "1"}, {"cost": -1.0}, {"accuracy": float("inf")}, {"cost": None}, {"macs": "x"}],
)
def test_a_trial_that_others_wrote_is_named(facts: dict[str, Any] | None, model: nn.Module, url: str) -> None:
    RankSearch(trials=1, storage=url).run(model, SHAPE, Judge(model), macs)
    study = optuna.load_study(study_name="ranks", storage=url)
    usual = study.trials[0].user_attrs[FACTS]
    whole = facts and {**usual, **facts} if facts != {"params": 1} else facts
    trial = study.ask({name: optuna.distributions.FloatDistribution(LOWEST, 1.0, step=LOWEST)
                       for name in study.trials[0].params})  # fmt: skip
    if whole is not None:
        trial.set_user_attr(FACTS, whole)
    study.tell(trial, (0.5, 1.0))
    with pytest.raises(StorageError, match="trial 1 of the study cannot be read"):
        RankSearch(trials=2, storage=url).run(model, SHAPE, Judge(model), macs)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("nonsense:secret", "no study can be kept in what was given; try: sqlite:///ranks.db"),
        ("foo://u:secret@h/d", r"no study can be kept in foo://u:\*\*\*@h/d: Can't load plugin"),
        ("mysql://u:secret@h/d", r"kept in mysql://u:\*\*\*@h/d: Failed to import"),
        ("sqlite:////no/such/folder/x.db", "unable to open database file"),
    ],
)
def test_a_bad_url_is_refused_without_its_password(
    bad: str, said: str, model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_study, "PAUSE_S", 0)
    with pytest.raises(UsageError, match=said) as error:
        RankSearch(trials=2, storage=bad).run(model, SHAPE, Judge(model), macs)
    assert "secret" not in str(error.value)


def test_a_file_that_is_no_database_is_refused(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_study, "PAUSE_S", 0)
    (tmp_path / "x.db").write_text("no database" * 1000)
    with pytest.raises(UsageError, match="file is not a database"):
        RankSearch(trials=2, storage=f"sqlite:///{tmp_path / 'x.db'}").run(model, SHAPE, Judge(model), macs)


def test_a_storage_that_fails_on_the_way_is_one_line(model: nn.Module, url: str) -> None:
    path = Path(url.removeprefix("sqlite:///"))

    def judge(module: nn.Module) -> float:
        path.write_bytes(b"no database any more" * 1000)
        return 0.5

    with pytest.raises(HandsetError, match="the study's storage failed: ") as error:
        RankSearch(trials=3, storage=url).run(model, SHAPE, judge, macs)
    assert isinstance(error.value, StorageError) and "\n" not in str(error.value)
