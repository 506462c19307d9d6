"""The parts of a run: what they promise, on small examples and without a process of their own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from helpers import write_cohort
from lungct_hf.cohort import load_cohort
from lungct_hf.errors import LungCTError, UsageError
from lungct_hf.fit.augment import Augmentation
from lungct_hf.fit.batches import Squares, TrainingBatches, random_stream
from lungct_hf.fit.checkpoint import load_checkpoint, save_checkpoint
from lungct_hf.fit.learner import Learner, class_weights
from lungct_hf.fit.options import parse_options, save_options
from lungct_hf.fit.recipe import Recipe, load_recipe
from lungct_hf.fit.schedule import Schedule
from lungct_hf.model import build_network
from lungct_hf.slices.preprocess import Preprocessing

RECIPES = Path(__file__).resolve().parents[2] / "training" / "recipes"
SMALL = Preprocessing(size=64)


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Squares:
    return Squares(load_cohort(str(write_cohort(tmp_path_factory.mktemp("c") / "data", patients=3))), SMALL)


def batches(
    squares: Squares, *, rows: int = 27, processes: int = 1, process: int = 0, **changes: int
) -> TrainingBatches:
    numbers = {"seed": 5, "batch_size": 4, "accumulate": 1, "workers": 0} | changes
    return TrainingBatches(
        squares,
        np.arange(27) % 3,
        np.arange(rows),
        SMALL,
        Augmentation(Recipe(image_size=64, hflip=True), SMALL.fill),
        process=process,
        processes=processes,
        **numbers,
    )


def content(loader: object) -> list[torch.Tensor]:
    return [inputs for inputs, _ in loader]  # type: ignore[attr-defined]


def test_an_epoch_can_be_entered_anywhere(squares: Squares) -> None:
    whole, rest = content(batches(squares).epoch(2)), content(batches(squares).epoch(2, first_step=4))
    assert len(whole) == 6 and len(rest) == 2
    assert all(torch.equal(a, b) for a, b in zip(whole[4:], rest, strict=True))


def test_batches_do_not_depend_on_workers_or_on_what_was_drawn_before(squares: Squares) -> None:
    plain = content(batches(squares).epoch(1))
    np.random.seed(1), torch.manual_seed(1)
    assert all(torch.equal(a, b) for a, b in zip(plain, content(batches(squares, workers=2).epoch(1)), strict=True))
    other = content(batches(squares, seed=6).epoch(1))
    assert not all(torch.equal(a, b) for a, b in zip(plain, other, strict=True))


def test_histograms_are_lent_within_the_training_fold_alone(squares: Squares) -> None:
    """And whether they are leaves every other draw where it was."""
    still: dict[str, Any] = {"image_size": 64, "shift": 0, "scale": 0, "rotate": 0, "brightness": 0, "contrast": 0}
    asked: set[int] = set()

    class Watched:
        def __getitem__(self, row: int) -> np.ndarray:
            asked.add(row)
            return squares[row]

    def drawn(share: float) -> list[torch.Tensor]:
        augmentation = Augmentation(Recipe(**(still | {"other_histogram": share})), SMALL.fill)
        made = batches(Watched(), rows=9)  # type: ignore[arg-type]
        slices = replace(made._slices, augmentation=augmentation)  # type: ignore[type-var]
        return [slices[0, row][0] for row in range(9)]

    never, always, again = drawn(0.0), drawn(1.0), drawn(1.0)
    assert asked == set(range(9))
    assert all(torch.equal(a, b) for a, b in zip(always, again, strict=True))
    assert sum(not torch.equal(a, b) for a, b in zip(never, always, strict=True)) > 4
    some = drawn(0.5)
    assert all(any(torch.equal(one, each) for each in pair) for one, *pair in zip(some, never, always, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(some, never, strict=True))


def test_processes_share_an_epoch_without_overlap(squares: Squares) -> None:
    parts = [batches(squares, processes=2, process=process) for process in (0, 1)]
    assert parts[0].steps == parts[1].steps == 3
    seen = [key for part in parts for batch in part.epoch(0).batch_sampler for key in batch]
    assert len(seen) == len(set(seen)) == 24


def test_a_fold_smaller_than_a_batch_is_one_batch_and_too_much_accumulation_is_refused(squares: Squares) -> None:
    assert [len(inputs) for inputs in content(batches(squares, rows=3).epoch(0))] == [3]
    with pytest.raises(UsageError, match="27"):
        batches(squares, accumulate=7)
    assert batches(squares, accumulate=3).steps == 2


def test_augmentation_is_small_deterministic_and_mirrors_only_when_declared(squares: Squares) -> None:
    square = squares[20]
    mild = Augmentation(Recipe(shift=0, scale=0, rotate=0, brightness=0, contrast=0), SMALL.fill)
    assert np.array_equal(mild(square, random_stream(0)), square)
    flipping = Augmentation(Recipe(shift=0, scale=0, rotate=0, brightness=0, contrast=0, hflip=True), SMALL.fill)
    seen = {flipping(square, random_stream(number)).tobytes() for number in range(12)}
    assert seen == {square.tobytes(), np.ascontiguousarray(square[:, ::-1]).tobytes()}
    usual = Augmentation(Recipe(), SMALL.fill)
    assert np.array_equal(usual(square, random_stream(3)), usual(square, random_stream(3)))
    changed = np.abs(usual(square, random_stream(3)).astype(int) - square).mean()
    assert 1 < changed < 60


def test_affine_goes_where_it_says() -> None:
    square = np.zeros((64, 64, 3), np.uint8)
    square[30:34, 30:34] = 255
    moved = Augmentation(Recipe(), (0, 0, 0))._affine(square, angle=0.0, zoom=1.0, shift=(10.0, -6.0))
    rows, columns = np.nonzero(moved[..., 0] > 128)
    assert (rows.mean(), columns.mean()) == pytest.approx((31.5 - 6, 31.5 + 10), abs=0.6)
    larger = Augmentation(Recipe(), (0, 0, 0))._affine(square, angle=0.3, zoom=2.0, shift=(0.0, 0.0))
    assert (larger[..., 0] > 128).sum() == pytest.approx(64, rel=0.25)


def test_schedule_rises_then_falls_to_zero() -> None:
    schedule = Schedule(steps=110, head_steps=10, lr=1.0, head_lr=3.0, warmup=0.1)
    rates = [schedule(step) for step in range(110)]
    assert rates[:10] == [3.0] * 10
    assert rates[10:20] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert max(rates[10:]) == 1.0 and rates[20:] == sorted(rates[20:], reverse=True)
    assert 0 <= rates[-1] < 0.01


def test_class_weights_come_from_the_given_labels_and_balance_them() -> None:
    labels = np.array([0] * 6 + [1] * 3 + [2] * 1)
    weights = class_weights(labels, 3).numpy()
    assert (weights * np.bincount(labels)).tolist() == pytest.approx([10 / 3] * 3)


def make_learner(**changes: object) -> Learner:
    recipe = Recipe(architecture="mobilenetv2_035", image_size=64, **changes)  # type: ignore[arg-type]
    torch.manual_seed(0)
    schedule = Schedule(steps=20, head_steps=2, lr=1e-2, head_lr=1e-2, warmup=0.1)
    network = build_network(recipe.architecture, 3, drop_rate=recipe.drop_rate)
    return Learner(network, recipe, Accelerator(cpu=True), schedule=schedule, loss_weights=None, seed=1)


def one_step(learner: Learner) -> float:
    stream = random_stream(9, learner.step)
    inputs = torch.from_numpy(stream.normal(size=(4, 3, 64, 64)).astype(np.float32))
    learner.start_step()
    learner.add_batch(inputs, torch.tensor([0, 1, 2, 0]))
    return learner.end_step()


def test_head_first_leaves_the_body_and_its_statistics_alone() -> None:
    learner = make_learner()
    before = {name: value.clone() for name, value in learner.network.state_dict().items()}
    one_step(learner), one_step(learner)
    changed = {name for name, value in learner.network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"classifier.weight", "classifier.bias"}
    one_step(learner)
    after = learner.network.state_dict()
    assert not torch.equal(after["conv_stem.weight"], before["conv_stem.weight"])
    assert not torch.equal(after["bn1.running_mean"], before["bn1.running_mean"])


@pytest.mark.parametrize("changes", [{"ema_decay": 0.0}, {"ema_decay": 0.9}, {"cutmix": 1.0}], ids=str)
def test_a_restored_learner_goes_on_bit_for_bit(tmp_path: Path, changes: dict[str, float]) -> None:
    straight = make_learner(drop_rate=0.5, **changes)
    for _ in range(3):
        one_step(straight)
    straight.judge(0, (0.5, -1.0))
    save_checkpoint(tmp_path, straight.step, {"learner": straight.state()})
    straight_losses = [one_step(straight) for _ in range(3)]

    resumed = make_learner(drop_rate=0.5, **changes)
    torch.manual_seed(123)
    resumed.restore(load_checkpoint(tmp_path)["learner"])  # type: ignore[index]
    assert [one_step(resumed) for _ in range(3)] == straight_losses
    for name, value in straight.averaged.state_dict().items():
        assert torch.equal(value, resumed.averaged.state_dict()[name]), name
    assert resumed.best["epoch"] == 0  # type: ignore[index]


def test_cutmix_pastes_patches_and_shares_the_labels_by_area() -> None:
    learner, seen = make_learner(cutmix=1.0), []
    learner.network.register_forward_hook(lambda _, inputs, logits: seen.append((inputs[0], logits)))
    own = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 3, 64, 64).contiguous()
    labels, shares = torch.tensor([0, 1, 2, 0]), set()
    for _ in range(6):
        learner.start_step()
        learner.add_batch(own.clone(), labels)
        loss, (inputs, logits) = learner.end_step(), seen.pop()
        one_hot, expected = torch.eye(3)[labels], torch.zeros(4, 3)
        for i, values in enumerate(inputs):
            kept = float((values == own[i]).float().mean())
            (other,) = {int(value) for value in values.unique()} - {i} or {i}
            expected[i] = kept * one_hot[i] + (1 - kept) * one_hot[other]
            shares.add(round(kept, 6))
        soft = torch.nn.CrossEntropyLoss(label_smoothing=Recipe().label_smoothing)
        assert loss == pytest.approx(float(soft(logits, expected)), rel=1e-5)
    assert len(shares) > 3 and any(0.1 < share < 0.9 for share in shares)


def test_patience_and_the_best_epoch() -> None:
    learner = make_learner(patience=2)
    judged = [
        learner.judge(epoch, score) for epoch, score in enumerate([(0.5, -1.0), (0.5, -0.9), (0.4, 0), (0.5, -0.9)])
    ]
    assert judged == [True, True, False, False]
    assert learner.best["epoch"] == 1 and learner.has_stalled  # type: ignore[index]


def test_checkpoints_are_whole_and_few(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, {"step": step})
    (tmp_path / ".step-00000004.pt.99.tmp").write_bytes(b"half")
    assert load_checkpoint(tmp_path) == {"step": 3}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002.pt", "step-00000003.pt"]
    (tmp_path / "step-00000003.pt").write_bytes(b"damaged")
    with pytest.raises(LungCTError, match="step-00000003.pt is damaged"):
        load_checkpoint(tmp_path)


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, 1, {"step": 1})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lungct_hf.files.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, 2, {"step": 2})
    assert load_checkpoint(tmp_path) == {"step": 1}
    assert len(list(tmp_path.iterdir())) == 1


# ---------------------------------------------------------------- flags


def options(*argv: str) -> object:
    return parse_options(list(argv), RECIPES, "")


def test_flags_win_over_the_recipe_and_the_recipe_over_defaults(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("epochs: 3\nhead_epochs: 0\nlr: 1\n")
    recipe = options("--recipe", str(tmp_path / "mine.yaml"), "--epochs", "4", "--no-class-weights").recipe  # type: ignore[attr-defined]
    assert (recipe.epochs, recipe.lr, recipe.class_weights, recipe.batch_size) == (4, 1.0, False, Recipe().batch_size)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_are_valid(path: Path) -> None:
    Recipe(**load_recipe(path.stem, RECIPES))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("optimiser_name: 1", "unknown key"),
        ("eopchs: 3", "did you mean 'epochs'"),
        ("epochs: many", "epochs must be int"),
        ("hflip: 1", "hflip must be bool"),
        ("- a", "key: value"),
        ("a: [", "not readable YAML"),
        ("epochs: 0", "--epochs 0 is out of range"),
        ("image_size: 32", "64 to 1024"),
    ],
)
def test_a_bad_recipe_is_one_sentence(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "r.yaml").write_text(content)
    with pytest.raises(UsageError, match=sentence):
        options("--recipe", str(tmp_path / "r.yaml"))


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--fold", "5"], "--fold 5 does not exist"),
        (["--fold-count", "2"], "at least 3"),
        (["--folds", "2"], "at least 3"),
        (["--folds", "0"], "at least 3"),
        (["--folds", "3", "--fold", "1"], "--fold belongs to a single run"),
        (["--folds", "3", "--fold-count", "5"], "--fold-count belongs to a single run"),
        (["--folds", "3", "--seeds", "1,1"], "different numbers"),
        (["--folds", "3", "--seeds", "1", "--seed", "2"], "both given"),
        (["--seeds", "0,1"], "add --folds"),
        (["--checkpoint-every", "0"], "1 or more"),
        (["--recipe", "nope"], "no such recipe"),
        (["--cutmix", "-1"], "--cutmix -1.0 is out of range"),
        (["--cutmix", "nan"], "--cutmix nan is out of range"),
        (["--cutmix", "inf"], "--cutmix inf is out of range"),
        (["--resume", "nowhere"], "no such run"),
    ],
)
def test_a_bad_flag_is_one_sentence(argv: list[str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        options(*argv)


def test_a_finished_or_running_folder_is_not_overwritten_and_resume_brings_the_same_options(tmp_path: Path) -> None:
    first = options("--output-dir", str(tmp_path), "--epochs", "7", "--data", "x")
    save_options(first)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="already holds a run"):
        options("--output-dir", str(tmp_path))
    again = options("--output-dir", str(tmp_path), "--resume", "--push-to-hub", "me/x")
    assert again.fixed() == first.fixed() and again.push_to_hub == "me/x"  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="--epochs 8 contradicts"):
        options("--resume", str(tmp_path), "--epochs", "8")
    with pytest.raises(UsageError, match="--class-weights False contradicts"):
        options("--resume", str(tmp_path), "--no-class-weights")


def test_the_command_line_that_is_published_names_no_folder_of_mine(tmp_path: Path) -> None:
    command = options("--data", str(tmp_path / "patients"), "--output-dir", str(tmp_path)).command  # type: ignore[attr-defined]
    assert str(tmp_path) not in command and "--data patients" in command
    joined = options(f"--data={tmp_path / 'patients'}", f"--output-dir={tmp_path}").command  # type: ignore[attr-defined]
    assert str(tmp_path) not in joined and "--data=patients" in joined


def test_a_chosen_number_of_epochs_has_a_schedule_of_its_own() -> None:
    recipe = Recipe(epochs=10, head_epochs=3)
    short = Schedule.of(recipe, 20, epochs=2)
    assert short.steps == 40 and short.head_steps == 40  # a head-first phase cannot be longer than the whole
    whole, half = Schedule.of(recipe, 20), Schedule.of(recipe, 20, epochs=5)
    assert half(99) < 0.01 * recipe.lr < whole(99)
