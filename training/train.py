"""Fine-tune MobileNetV2 on lung CT slices. Research only, never a medical device.

    accelerate launch training/train.py                                   generated phantoms, offline, minutes
    accelerate launch training/train.py --data DIR --init imagenet1k-v2   folders of pictures or DICOM, parquet, Hub id
    accelerate launch training/train.py --data DIR --labels labels.csv    a table says the label of each file or series
    accelerate launch training/train.py --data DIR --folds 5 --seeds 0,1  cross-validation, then a model from all
    accelerate launch training/train.py --resume runs/NAME                go on where a run stopped, bit for bit
    accelerate launch --num_processes 4 training/train.py ...             several GPUs
    torchrun --nproc_per_node 2 training/train.py ...                     several processes on CPUs

The model repo is written to OUTPUT_DIR/model. `python training/train.py` is the same with one process.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from lungct_hf.allocator import keep_freed_memory
from lungct_hf.errors import exit_on_error, require
from lungct_hf.fit.options import Options, parse_options, save_options

RECIPES = Path(__file__).resolve().parent / "recipes"

with exit_on_error():  # whatever a user can act on is one sentence, not a traceback
    # Threads that soon sleep while they wait: steps are several times quicker beside other work, a tenth slower alone.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    keep_freed_memory()
    if __name__ == "__main__":  # a worker process that starts anew imports this file and has no flags
        # Before the slow imports, so that --help and a mistyped flag are answered at once.
        OPTIONS = parse_options(sys.argv[1:], RECIPES, __doc__ or "")
    require("accelerate", "train")
    from lungct_hf.model import build_network, check_architecture, check_init, load_init  # noqa: I001
    import numpy as np
    import torch
    from accelerate import Accelerator, PartialState
    from accelerate.utils import broadcast_object_list, parse_flag_from_env, set_seed

    from lungct_hf.cohort import Split
    from lungct_hf.evaluation import score
    from lungct_hf.fit import cross_validation as cv
    from lungct_hf.fit.checkpoint import load_checkpoint, save_checkpoint, sole_owner
    from lungct_hf.fit.data import Slices, contract_of, describe_data, describe_run, load_slices, training_batches
    from lungct_hf.fit.device import on_cpu
    from lungct_hf.fit.evidence import Answers, HeldOut, answer, calibrate, held_out, sources_of
    from lungct_hf.fit.frozen import adapt_norm, check_stages, keep_front, predict_validation
    from lungct_hf.fit.inference import mean_log_loss
    from lungct_hf.fit.learner import Learner, class_weights
    from lungct_hf.fit.model_repo import chosen_by, split_record, write_model_repo
    from lungct_hf.fit.probes import probe
    from lungct_hf.fit.processes import compiled_by, compiling, epoch_bar, finish_trackers, make_accelerator, stop_here
    from lungct_hf.fit.report import print_summary
    from lungct_hf.fit.schedule import Schedule
    from lungct_hf.fit.stopping import Stopped, StopRequest
    from lungct_hf.fit.tracking import CsvTracker
    from lungct_hf.hub import ModelRepo, push_folder, require_write_token
    from lungct_hf.release.prepare import check_contents


class Learned(NamedTuple):
    """The end of the training: the chosen network, `record` for lungct.json (init, training), where it was trained."""

    network: torch.nn.Module
    record: dict[str, Any]
    accelerator: Accelerator


def main(options: Options) -> int:
    torch.set_num_threads(options.threads)
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    # Without this, accelerate starts several independent runs when torchrun finds no GPU.
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or on_cpu(options.device, found, print))
    options = broadcast_object_list([options])[0]  # one run folder for all processes
    check_architecture(options.recipe.architecture)
    check_stages(options.recipe)
    check_init(options.init, options.recipe.architecture)
    with sole_owner(options.run, print) if state.is_main_process else nullcontext():
        if options.push_to_hub and state.is_main_process:
            require_write_token(options.push_to_hub)
        if (options.run / "model").is_dir():
            state.print(f"This run is finished; its model is in {options.run / 'model'}.")
            code = 0
        else:
            stop = StopRequest()
            try:
                with compiling():
                    code = (cross_validate if options.folds else train_once)(options, stop)
            except Stopped:
                state.print("\nStopped.")
                code = stop.exit_code
        if code:
            state.print(f"Continue with: --resume {options.run}")
        elif state.is_main_process and options.push_to_hub:
            model, message = options.run / "model", "Train a lungct_hf model"
            check_contents(ModelRepo.in_folder(model), message, require_write_token(options.push_to_hub))
            result = push_folder(model, options.push_to_hub, message=message, private=options.private)
            print(f"Pushed {result.url} at {result.commit_sha}")
    state.destroy_process_group()
    return code


def train_once(options: Options, stop: StopRequest, shared: Slices | None = None) -> int:
    """One run: learn on the training fold, choose on the validation fold, judge once on the test fold."""
    state = PartialState()
    if state.is_main_process:
        save_options(options)
    slices = shared or load_slices(options)
    cohort, split = slices.cohort, cv.split_of(options, slices.cohort)
    describe_data(state.print, cohort, split)

    turns, parts, trained = (split.rotated() if options.recipe.rotate_validation else [split]), [], []
    for number, turn in enumerate(turns):
        if number:
            state.print(f"Again with another validation fold ({number + 1} of {len(turns)}), for the calibration.")
        part = replace(options, run=options.run / f"turn-{number}") if number else options
        learned = learn(part, stop, slices, turn, norm_rows=split.indices("train"))
        if learned is None:
            return stop.exit_code
        found, features = held_out(learned.network, slices, turn, learned.accelerator)
        parts.append(found)
        trained.append(learned.record["training"])
    known, test = split.indices("train"), split.indices("test")
    if options.recipe.refit:
        best = statistics.median_high(record["best_epoch"] for record in trained)
        learned = refit(options, stop, slices, split, epochs=best)
        if learned is None:
            return stop.exit_code
        learned.record["training"]["seconds_before"] = round(sum(record["seconds"] for record in trained), 1)
        known = np.concatenate([known, split.indices("validation")])
        features = answer(learned.network, slices, known, learned.accelerator)[1]

    training, asked = (features, sources_of(cohort)[known]), (learned.network, slices, test, learned.accelerator)
    tested = HeldOut.of(test, *answer(*asked), training)
    answers = Answers(HeldOut.joined(parts), tested, probe(learned.network, slices, known, test, learned.accelerator))
    calibration = calibrate(split, answers.validation, training)
    if state.is_main_process:
        provenance = {**describe_run(options, cohort), "split": split_record(split), **learned.record}
        contract = contract_of(options, slices, known, provenance)
        evidence = {"cohort": cohort, "split": split, "answers": answers, "calibration": calibration}
        metrics = write_model_repo(model := options.run / "model", learned.network.cpu(), contract, **evidence)
        if shared:
            cv.print_fold(metrics)
        else:
            print_summary(metrics, provenance, model, pushed=bool(options.push_to_hub))
    return 0


def refit(options: Options, stop: StopRequest, slices: Slices, split: Split, *, epochs: int) -> Learned | None:
    """The same training anew on the training and the validation fold, to the epoch that validation chose."""
    PartialState().print(f"Once more on the training and validation folds together: {epochs} epochs.")
    both = replace(split, split=np.where(split.split == "validation", "train", split.split))
    # The statistics of the first network serve again, and so does what its frozen stages gave.
    part = replace(options, run=options.run / "refit")
    return learn(part, stop, slices, both, epochs=epochs, norm_rows=split.indices("train"))


def cross_validate(options: Options, stop: StopRequest) -> int:
    """One run for each fold and seed, a report on all their test predictions, then a model from every slice."""
    state = PartialState()
    if state.is_main_process:
        save_options(options)
    slices = load_slices(options)
    cv.check_folds(options, slices.cohort)
    for part in cv.fold_runs(options):
        state.print(f"\nSeed {part.seed}, fold {part.fold} of {part.fold_count}: {part.run}")
        with sole_owner(part.run, print) if state.is_main_process else nullcontext():
            if (part.run / "model").is_dir():
                state.print("This fold is finished.")
            elif train_once(part, stop, slices):
                return stop.exit_code
        state.wait_for_everyone()

    evidence = None
    if state.is_main_process:
        evidence = cv.pool(options, slices.cohort)
        cv.write_evidence(evidence, options.run / "evaluation")
        cv.print_evidence(evidence, options.run / "evaluation")
    split, epochs = broadcast_object_list([(evidence.split, evidence.epochs) if evidence else None])[0]

    state.print(
        f"The published model: all {len(slices.cohort)} slices, {epochs} epochs "
        f"({chosen_by(options, has_validation=False)})."
    )
    learned = learn(options, stop, slices, split, epochs=epochs)
    if learned is None:
        return stop.exit_code
    features = answer(learned.network, slices, split.indices("train"), learned.accelerator)[1]
    if evidence:
        provenance = {**describe_run(options, slices.cohort), "split": evidence.split_record(), **learned.record}
        contract = contract_of(options, slices, split.indices("train"), provenance)
        model = options.run / "model"
        calibration = evidence.calibrate(features, sources_of(slices.cohort))
        cv.write_published(model, learned.network.cpu(), contract, evidence, calibration, slices.cohort)
        cv.print_end(model, pushed=bool(options.push_to_hub))
    return 0


def learn(
    options: Options,
    stop: StopRequest,
    slices: Slices,
    split: Split,
    epochs: int | None = None,
    norm_rows: np.ndarray | None = None,
) -> Learned | None:
    """Train, from a checkpoint where there is one; None when it was asked to stop.

    Without a validation fold the last of `epochs` is taken, by when the learning rate is down. `norm_rows` are the
    slices that `adapt_norm` measures, by default those trained on.
    """
    history = CsvTracker(options.run / "logs" / "metrics.csv")
    accelerator = make_accelerator(options, history)
    say, recipe, is_main = accelerator.print, options.recipe, accelerator.is_main_process
    cohort = slices.cohort
    train, validation = split.indices("train"), split.indices("validation")
    last = epochs or recipe.epochs

    # ------------------------------------------------------------------ network, start weights, optimizer
    set_seed(options.seed)
    network = build_network(recipe.architecture, len(cohort.classes), drop_rate=recipe.drop_rate)
    init_record = None
    if is_main:  # the other processes receive these weights when the network is prepared
        init = load_init(options.init, recipe.architecture, say=say)
        init.apply(network)
        if recipe.adapt_norm:
            adapt_norm(network, slices, train if norm_rows is None else norm_rows, options.seed)
        init_record = init.record()
    batches = training_batches(slices, train, options, accelerator)
    learner = Learner(
        network,
        recipe,
        accelerator,
        schedule=Schedule.of(recipe, batches.steps, epochs),
        loss_weights=class_weights(cohort.labels[train], len(cohort.classes)) if recipe.class_weights else None,
        seed=options.seed,
    )

    # ------------------------------------------------------------------ continue an earlier run
    checkpoints = options.run / "checkpoints"
    identity = {
        "split": split.hash,
        "processes": accelerator.num_processes,
        "mixed_precision": accelerator.mixed_precision,
    }
    seconds_before = 0.0
    if options.resume:
        state = load_checkpoint(checkpoints)
        if state is None:
            say(f"No checkpoint in {options.run}: starting from the beginning.")
        else:
            options.check_identity(state["identity"], identity)
            learner.restore(state["learner"])
            seconds_before, init_record = state["seconds"], state["init"]
            say(f"Continuing at step {learner.step} of {last * batches.steps}.")
    features = keep_front(learner.network, slices, options, batches)  # of the weights that go on, whatever --init gave
    history.continue_from(learner.step)
    accelerator.init_trackers("tensorboard", config=recipe.to_dict())
    started = time.monotonic()

    def checkpoint() -> None:
        seconds = seconds_before + time.monotonic() - started
        content = {"identity": identity, "learner": learner.state(), "seconds": seconds, "init": init_record}
        if is_main:
            save_checkpoint(checkpoints, learner.step, content)

    # ------------------------------------------------------------------ train
    slices_per_step = recipe.batch_size * recipe.accumulate * accelerator.num_processes
    epoch = learner.step // batches.steps
    stop.begin_steps()
    while epoch < last and not learner.has_stalled:
        first, losses = learner.step % batches.steps, list[float]()
        all_slices, done = batches.steps * slices_per_step, first * slices_per_step
        bar = epoch_bar(f"epoch {epoch + 1}/{last}", slices=all_slices, done=done, shown=is_main)
        epoch_started = time.monotonic()
        for number, (inputs, labels) in enumerate(batches.epoch(epoch, first), start=1):
            if number % recipe.accumulate == 1 % recipe.accumulate:
                learner.start_step()
            learner.add_batch(inputs, labels)
            bar.update(len(labels) * accelerator.num_processes)
            if number % recipe.accumulate:
                continue
            losses.append(learner.end_step())
            bar.set_postfix(loss=f"{sum(losses[-20:]) / len(losses[-20:]):.3f}", refresh=False)
            if learner.step % batches.steps == 0:
                break  # the epoch is judged before anything is kept of it
            if stop.agreed(accelerator):
                bar.close()
                checkpoint()
                return stop_here(accelerator, learner.step)
            if learner.step % options.checkpoint_every == 0:
                checkpoint()
        bar.close()
        rate = (batches.steps - first) * slices_per_step / (time.monotonic() - epoch_started)

        # -------------------------------------------------------------- judge the epoch on the validation fold
        mean_loss = torch.tensor(sum(losses) / len(losses), device=accelerator.device)
        mean_loss = float(accelerator.reduce(mean_loss, reduction="mean"))  # over the processes
        values = {"epoch": epoch + 1, "train/loss": mean_loss, "train/images_per_s": rate}
        told = f"epoch {epoch + 1:3d}/{last}  loss {mean_loss:.3f}  {rate:5.1f} images/s"
        learner.share_average()
        if len(validation):
            logits = predict_validation(learner.averaged, slices, features, validation, accelerator)
            truth = cohort.labels[validation]
            balanced = score(truth, logits, cohort.classes)["balanced_accuracy"]
            log_loss = mean_log_loss(truth, logits)
            is_best = learner.judge(epoch, (balanced, -log_loss) if recipe.choose == "best" else (epoch,))
            values |= {"validation/balanced_accuracy": balanced, "validation/log_loss": log_loss}
            told += f"  validation: balanced accuracy {balanced:.3f}, log loss {log_loss:.3f}"
            told += "  best" if is_best and recipe.choose == "best" else ""
        else:
            learner.judge(epoch, (epoch,))
        accelerator.log(values, step=learner.step)
        say(told)
        checkpoint()
        epoch += 1
        if stop.agreed(accelerator):
            return stop_here(accelerator, learner.step)

    # ------------------------------------------------------------------ the chosen weights
    finish_trackers(accelerator)
    stop.end_steps()
    assert learner.best is not None
    chosen = (
        build_network(recipe.architecture, len(cohort.classes))
        .to(accelerator.device)
        .to(memory_format=torch.channels_last)
    )
    chosen.load_state_dict(learner.best["weights"])
    training = {
        "epochs": epoch,
        "best_epoch": learner.best["epoch"] + 1,
        "chosen_by": chosen_by(options, has_validation=len(validation) > 0),
        "steps": learner.step,
        "seconds": round(seconds_before + time.monotonic() - started, 1),
        "processes": accelerator.num_processes,
        "mixed_precision": accelerator.mixed_precision,
        "compiled": compiled_by(accelerator),
    }
    return Learned(chosen, {"init": init_record, "training": training}, accelerator)


if __name__ == "__main__":
    with exit_on_error():
        code = main(OPTIONS)
    sys.exit(code)
