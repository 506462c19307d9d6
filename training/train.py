"""Fine-tune MobileNetV2 on lung CT slices: normal, benign, malignant. Research only, never a medical device.

    accelerate launch training/train.py                                   generated phantoms, offline, minutes
    accelerate launch training/train.py --data DIR --init imagenet1k-v2   class folders, imagefolder, parquet, Hub id
    accelerate launch training/train.py --resume runs/NAME                go on where a run stopped, bit for bit
    accelerate launch --num_processes 4 training/train.py ...             several GPUs
    torchrun --nproc_per_node 2 training/train.py ...                     several processes on CPUs

The model repo is written to OUTPUT_DIR/model. `python training/train.py` is the same with one process.
"""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from pathlib import Path

from lungct_hf.errors import UsageError, exit_on_error, require
from lungct_hf.fit.options import Options, parse_options, save_options

RECIPES = Path(__file__).resolve().parent / "recipes"

with exit_on_error():  # whatever a user can act on is one sentence, not a traceback
    # Before the slow imports, so that --help and a mistyped flag are answered at once.
    OPTIONS = parse_options(sys.argv[1:], RECIPES, __doc__ or "")
    require("accelerate", "train")
    from lungct_hf.model import build_network, load_init  # noqa: I001
    import torch
    from accelerate import Accelerator, PartialState
    from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list, parse_flag_from_env, set_seed
    from tqdm import tqdm

    from lungct_hf.cohort import load_cohort, make_split
    from lungct_hf.evaluation import score
    from lungct_hf.fit.augment import Augmentation
    from lungct_hf.fit.batches import Squares, TrainingBatches
    from lungct_hf.fit.checkpoint import load_checkpoint, save_checkpoint, sole_owner
    from lungct_hf.fit.evidence import calibrate
    from lungct_hf.fit.inference import mean_log_loss, predict_rows, predict_with_features
    from lungct_hf.fit.learner import Learner, class_weights
    from lungct_hf.fit.model_repo import data_record, software_record, split_record, write_model_repo
    from lungct_hf.fit.report import print_summary
    from lungct_hf.fit.schedule import Schedule
    from lungct_hf.fit.stopping import StopRequest
    from lungct_hf.fit.tracking import CsvTracker
    from lungct_hf.hub import push_folder, require_write_token
    from lungct_hf.labels import LABELS
    from lungct_hf.model.contract import Contract
    from lungct_hf.slices.phantom import write_phantom_cohort
    from lungct_hf.slices.preprocess import Preprocessing


def main() -> int:
    # ------------------------------------------------------------------ processes
    # Without this, accelerate starts several independent runs when torchrun finds no GPU.
    on_cpu = not torch.accelerator.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU")
    torch.set_num_threads(OPTIONS.threads)
    state = PartialState(cpu=on_cpu)
    options = broadcast_object_list([OPTIONS])[0]  # one run folder for all processes
    with sole_owner(options.run, print) if state.is_main_process else nullcontext():
        return run(options)


def run(options: Options) -> int:
    history = CsvTracker(options.run / "logs" / "metrics.csv")
    accelerator = make_accelerator(options, history)
    say, recipe, is_main = accelerator.print, options.recipe, accelerator.is_main_process
    if options.push_to_hub and is_main:
        require_write_token(options.push_to_hub)
    if (options.run / "model").is_dir():
        say(f"This run is finished; its model is in {options.run / 'model'}.")
        if is_main:
            push(options)
        return 0
    if is_main:
        save_options(options)
    stop = StopRequest()
    set_seed(options.seed)

    # ------------------------------------------------------------------ data
    with accelerator.main_process_first():
        data = options.data or str(write_phantom_cohort(options.run / "phantoms", seed=options.seed))
        cohort = load_cohort(
            data,
            group_column=options.group_column,
            grouping=options.grouping,
            on_bad_file=options.on_bad_file,
            progress=is_main,
        )
    split = make_split(
        cohort,
        options.protocol,
        fold=options.fold,
        folds=options.fold_count,
        seed=options.seed,
        margin=options.margin,
    )
    preprocessing = Preprocessing(size=recipe.image_size)
    squares = Squares(cohort, preprocessing, progress=is_main)
    train, validation = split.indices("train"), split.indices("validation")
    describe_data(say, cohort, split)

    # ------------------------------------------------------------------ network, start weights, optimizer
    network = build_network(recipe.architecture, drop_rate=recipe.drop_rate)
    init_record = None
    if is_main:  # the other processes receive these weights when the network is prepared
        init = load_init(options.init, say=say)
        init.apply(network)
        init_record = init.record()
    batches = TrainingBatches(
        squares,
        cohort.labels,
        train,
        preprocessing,
        Augmentation(recipe, preprocessing.fill),
        seed=options.seed,
        batch_size=recipe.batch_size,
        accumulate=recipe.accumulate,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
        workers=options.loader_workers(accelerator.device.type),
    )
    learner = Learner(
        network,
        recipe,
        accelerator,
        schedule=Schedule(
            steps=recipe.epochs * batches.steps,
            head_steps=recipe.head_epochs * batches.steps,
            lr=recipe.lr,
            head_lr=recipe.head_lr,
            warmup=recipe.warmup,
        ),
        loss_weights=class_weights(cohort.labels[train], len(LABELS)) if recipe.class_weights else None,
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
            say(f"Continuing at step {learner.step} of {recipe.epochs * batches.steps}.")
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
    while epoch < recipe.epochs and not learner.has_stalled:
        first = learner.step % batches.steps
        losses: list[float] = []
        bar = tqdm(
            total=batches.steps * slices_per_step,
            initial=first * slices_per_step,
            desc=f"epoch {epoch + 1}/{recipe.epochs}",
            unit="img",
            mininterval=0.5 if sys.stderr.isatty() else 10,  # a log file gets few lines
            delay=0 if sys.stderr.isatty() else 5,
            disable=not is_main,
            leave=False,
        )
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
            if stop.agreed(accelerator):
                bar.close()
                checkpoint()
                say(f"\nStopped at step {learner.step}. Continue with: --resume {options.run}")
                accelerator.end_training()
                return stop.exit_code
            if learner.step % options.checkpoint_every == 0 and learner.step % batches.steps:
                checkpoint()
        bar.close()
        rate = (batches.steps - first) * slices_per_step / (time.monotonic() - epoch_started)

        # -------------------------------------------------------------- judge the epoch on the validation fold
        learner.share_average()
        logits = predict_rows(learner.averaged, squares, validation, preprocessing, accelerator)
        truth = cohort.labels[validation]
        balanced, log_loss = score(truth, logits)["balanced_accuracy"], mean_log_loss(truth, logits)
        is_best = learner.judge(epoch, (balanced, -log_loss))
        mean_loss = torch.tensor(sum(losses) / len(losses), device=accelerator.device)
        mean_loss = float(accelerator.reduce(mean_loss, reduction="mean"))  # over the processes
        values = {"epoch": epoch + 1, "train/loss": mean_loss, "train/images_per_s": rate}
        values |= {"validation/balanced_accuracy": balanced, "validation/log_loss": log_loss}
        accelerator.log(values, step=learner.step)
        say(
            f"epoch {epoch + 1:3d}/{recipe.epochs}  loss {mean_loss:.3f}  {rate:5.1f} images/s  "
            f"validation: balanced accuracy {balanced:.3f}, log loss {log_loss:.3f}{'  best' if is_best else ''}"
        )
        checkpoint()
        epoch += 1

    # ------------------------------------------------------------------ judge the best weights, once, on the test fold
    best = learner.best
    published = build_network(recipe.architecture).to(accelerator.device).to(memory_format=torch.channels_last)
    published.load_state_dict(best["weights"])
    answers = {
        name: predict_with_features(published, squares, split.indices(name), preprocessing, accelerator)
        for name in ("train", "validation", "test")
    }
    accelerator.end_training()
    if not is_main:
        return 0
    calibration = calibrate(cohort, split, answers)  # on the validation groups only

    # ------------------------------------------------------------------ write and push the model repo
    provenance = {
        **software_record(),
        "command": options.command,
        "seed": options.seed,
        "init": init_record,
        "data": data_record(cohort, "phantom" if options.data is None else cohort.kind),
        "split": split_record(split),
        "recipe": {"name": options.recipe_name, **recipe.to_dict()},
        "training": {
            "epochs": epoch,
            "best_epoch": best["epoch"] + 1,
            "steps": learner.step,
            "seconds": round(seconds_before + time.monotonic() - started, 1),
            "processes": accelerator.num_processes,
            "mixed_precision": accelerator.mixed_precision,
        },
    }
    model = options.run / "model"
    contract = Contract(recipe.architecture, preprocessing, provenance=provenance)
    metrics = write_model_repo(
        model, published.cpu(), contract, cohort=cohort, split=split, answers=answers, calibration=calibration
    )
    print_summary(metrics, provenance, model, pushed=bool(options.push_to_hub))
    push(options)
    return 0


def push(options: Options) -> None:
    if options.push_to_hub:
        model, message = options.run / "model", "Train a lungct_hf model"
        result = push_folder(model, options.push_to_hub, message=message, private=options.private)
        print(f"Pushed {result.url} at {result.commit_sha}")


def make_accelerator(options: Options, history: CsvTracker) -> Accelerator:
    try:
        return Accelerator(
            cpu=PartialState().device.type == "cpu",
            mixed_precision=options.mixed_precision,
            gradient_accumulation_steps=options.recipe.accumulate,
            log_with=["tensorboard", history],
            project_dir=options.run / "logs",
            # Head-first epochs leave the body without gradients; several processes must be told to expect that.
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=options.recipe.head_epochs > 0)],
        )
    except ValueError as error:  # accelerate refuses a precision that this machine does not have
        raise UsageError(f"--mixed-precision {options.mixed_precision}: {error} Fix: --mixed-precision no.") from error


def describe_data(say, cohort, split) -> None:
    counts = ", ".join(f"{count} {name}" for name, count in cohort.counts().items())
    say(f"{len(cohort)} slices ({counts}) in {len(set(split.groups))} groups ({split.grouping}).")
    sizes = ", ".join(f"{name} {len(split.indices(name))}" for name in ("train", "validation", "test"))
    say(f"Split {split.protocol}: {sizes}; {split.groups_crossing} groups on both sides; hash {split.hash[:12]}.")


if __name__ == "__main__":
    with exit_on_error():
        code = main()
    sys.exit(code)
