"""The command line: `minilumiere generate | train | evaluate | claims | info`, each with `--help`.

Exit code 0 on success, 2 with one clear line on bad input, 130 after Ctrl-C, 141 where nobody reads what is printed. All that
can be checked before long work is. What a command needs is imported when it runs: `--help` waits for no torch.
"""

import argparse
import os
import signal
import sys
import time
from contextlib import suppress
from functools import partial

from minilumiere.config import SCALES, STAGES, STYLES, VERSION, get_scale, smoking

NOBODY_READS = 141  # 128 + SIGPIPE, as other programs end
CLAIMS = "Measure what the paper claims, on tiny and the CPU, and write the verdicts into a ledger."


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage above it."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message}\n")


def build_parser() -> Parser:
    parser = Parser("minilumiere", description="Text to video of moving digits, after Lumiere.")
    parser.add_argument("--version", action="version", version=f"minilumiere {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser, metavar="COMMAND")

    def command(name: str, run, help: str, samples: bool = True) -> Parser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(action=run, seed=0)
        sub.add_argument("--scale", default="tiny", choices=SCALES, help="default: tiny")
        if samples:  # else nothing is drawn, on any device
            sub.add_argument("--seed", type=int, default=0, help="default: 0")
            sub.add_argument("--device", default=None, help="default: cuda where there is one, else cpu")
        return sub

    generate = command("generate", run_generate, "Generate a video of a caption.")
    generate.add_argument("caption", help="such as 'a red 3 moving right'")
    generate.add_argument("-o", "--output", default="out.gif", help=".gif .apng .png .webp or .mp4; default: out.gif")
    generate.add_argument("--steps", type=int, help="sampling steps; default: the scale's")
    generate.add_argument("--guidance", type=float, help="classifier-free guidance weight; default: the scale's")
    generate.add_argument("--frames", type=int, help="a multiple of the temporal factor; default: the scale's")
    generate.add_argument("--fast", action="store_true", help="by the few-step student (tiny only): its guidance is inside")
    generate.add_argument("--image", help="file of the first frame, of output or base size")
    generate.add_argument("--style", help=f"one of {', '.join(STYLES)}; default: none")
    generate.add_argument("--alpha", type=float, help="of the style's weights, 0 to 1; default: the style's own")
    generate.add_argument("--no-super-resolution", action="store_true", help="save the base model's clip")
    generate.add_argument("--zoom", type=int, default=1, help="enlarge each pixel of the saved clip; default: 1")

    train = command("train", run_train, "Train one stage, or all of them, resuming where it was left.")
    train.add_argument("stage", metavar="STAGE", choices=("all", *STAGES), help=f"all, or one of {', '.join(STAGES)}")
    train.add_argument("--steps", type=int, help="default: the stage's, or those that a run began with; more extend it")
    train.add_argument("--minutes", type=float, help="instead of steps: as many as take so long, of all stages together")
    train.add_argument("--batch", type=int, help="default: the stage's")
    train.add_argument("--from-shipped", action="store_true", help="go on from the shipped weights, not from fresh ones")
    # Not --run: torchrun would take it for an abbreviation of its own --run-path.
    train.add_argument(
        "--folder", dest="run", metavar="FOLDER", help="of checkpoint and log; default: runs/SCALE-STAGE (of all: runs)"
    )
    train.add_argument("--save-minutes", type=float, default=3, help="between checkpoints; default: 3")
    train.add_argument("--stop-minutes", type=float, default=float("inf"), help="stop, resumably, after so many minutes")
    train.add_argument("--compile", action="store_true", help="compile the net first: minutes, for faster steps on a GPU")
    train.add_argument("--ship", action="store_true", help="when done, put the weights into data/weights")

    evaluate = command("evaluate", run_evaluate, "Judge generated clips beside real ones.")
    evaluate.add_argument("--samples", type=int, default=128, help="one-object captions, or cases a task; default: 128")
    evaluate.add_argument("--fast", action="store_true", help="of the few-step student (tiny only)")
    evaluate.add_argument("--frames", type=int, help="of a clip, a multiple of the temporal factor; default: the scale's")
    evaluate.add_argument("--no-super-resolution", action="store_true", help="judge the base model's clips")
    instead = evaluate.add_mutually_exclusive_group()
    instead.add_argument("--tasks", action="store_true", help="image-to-video, inpainting and cinemagraphs instead")
    instead.add_argument("--styles", action="store_true", help="stylization and video-to-video instead")

    claims = commands.add_parser("claims", help="Measure what the paper claims: data/claims.json.", description=CLAIMS)
    claims.set_defaults(action=run_claims, seed=0)
    claims.add_argument(
        "--train", action="store_true", help="make the small trainings first, those that are not there yet: hours"
    )
    claims.add_argument("--only", nargs="+", metavar="ROW", help="of these rows, such as 3 or 4b; metrics: of the laboratory")
    claims.add_argument("--output", help="file of the ledger; default: data/claims.json")
    claims.add_argument("--folder", default="runs/claims", help="of trainings, and of rows so far; default: runs/claims")

    command("info", run_info, "Sizes and shipped weights of a scale.", samples=False)
    return parser


def run_generate(options: argparse.Namespace) -> None:
    from minilumiere.pipeline import load
    from minilumiere.viz.files import check_output, save_video

    check_output(options.output, get_scale(options.scale).fps, options.zoom)
    if options.alpha is not None and options.style is None:
        raise ValueError("--alpha needs a --style")
    pipe = load(options.scale, options.device, options.fast)
    if options.style is not None:
        pipe = pipe.in_style(options.style, options.alpha)
    announce_smoke()
    begun = time.perf_counter()
    make = pipe.generate if options.image is None else partial(pipe.image_to_video, options.image)
    video = make(
        options.caption,
        options.seed,
        steps=options.steps,
        guidance=options.guidance,
        frames=options.frames,
        super_resolution=not options.no_super_resolution,
        progress=True,
    )
    seconds = time.perf_counter() - begun
    path = save_video(video, options.output, fps=pipe.scale.fps, zoom=options.zoom)
    t, _, height, width = video.shape
    print(f"{path}: {t} frames of {width}x{height}, '{options.caption}', {seconds:.1f} s on {pipe.device}")


def run_train(options: argparse.Namespace) -> None:
    from minilumiere.training.loop import TrainOptions, train
    from minilumiere.training.plan import train_all
    from minilumiere.weights.checkpoint import check_writable
    from minilumiere.weights.shipped import ship, weights_path

    keys = (
        "stage",
        "scale",
        "steps",
        "minutes",
        "batch",
        "seed",
        "from_shipped",
        "run",
        "device",
        "save_minutes",
        "stop_minutes",
        "compile",
    )
    for name in ("steps", "minutes", "batch"):  # in `TrainOptions` 0 is the stage's own; here that is said by leaving it out
        if (given := getattr(options, name)) is None:
            setattr(options, name, 0)
        elif given == 0:
            raise ValueError(f"--{name} must be more than 0, got {given}: leave it out for the stage's own")
    settings, scale = TrainOptions(**{key: getattr(options, key) for key in keys}), get_scale(options.scale)
    first = os.environ.get("RANK", "0") == "0"  # of several processes, one prints and ships
    if options.ship:
        check_writable(weights_path("t2i", scale))
    try:
        if options.stage == "all":
            if not options.ship:
                raise ValueError("train all needs --ship: every stage is built on the shipped weights of those before it")
            announce_smoke()
            for line in train_all(settings):
                print(line if first else "", end="\n" if first else "", flush=True)
            return
        settings.checked()
        announce_smoke()
        finished = train(settings)
    except KeyboardInterrupt as stop:  # before its first step, too: there was nothing to save
        what = "train all" if options.stage == "all" else settings.folder
        stop.args = (f"{what}: stopped; the same command resumes it",)
        raise
    if first:
        print(f"{settings.folder}: {'finished' if finished else 'stopped; the same command resumes it'}")
        if options.ship and finished:
            print(f"shipped as {ship(settings.folder, options.stage, scale)}")


def run_evaluate(options: argparse.Namespace) -> None:
    from minilumiere.evaluation.judge import load_judge
    from minilumiere.evaluation.quality import evaluate
    from minilumiere.evaluation.style_scores import evaluate_styles
    from minilumiere.evaluation.tasks import evaluate_tasks
    from minilumiere.pipeline import load
    from minilumiere.validate import check_number

    check_number(options.samples, "samples", 1, 100_000, int)
    if options.frames is not None:
        check_number(options.frames, "frames", 1, 10_000, int)
    if (options.frames is not None or options.no_super_resolution) and (options.tasks or options.styles):
        raise ValueError("--frames and --no-super-resolution go with neither --tasks nor --styles")
    plain = partial(evaluate, frames=options.frames, large=not options.no_super_resolution)
    measure = evaluate_styles if options.styles else evaluate_tasks if options.tasks else plain
    pipe = load(options.scale, options.device, options.fast)
    if options.frames is not None:
        pipe.base.check_frames(options.frames)
    load_judge(str(pipe.device))  # if it is not there, that is said before clips are made
    announce_smoke()
    print(measure(pipe, options.samples, options.seed))


def run_claims(options: argparse.Namespace) -> None:
    from pathlib import Path

    from minilumiere.evaluation.claims import ledger
    from minilumiere.evaluation.claims.trained import VARIANTS_OF
    from minilumiere.training.ablations import train_ablations, trainings
    from minilumiere.training.rival import train_rival
    from minilumiere.validate import check_path
    from minilumiere.weights.checkpoint import check_writable

    if smoking() and options.output is None:
        raise ValueError("MINILUMIERE_SMOKE is on, and what comes of it is poor: give another --output than the ledger")
    path = Path(ledger.LEDGER_FILE if options.output is None else check_path(options.output, "output"))
    folder, rows = check_path(options.folder, "folder"), {claim.row for claim in ledger.chosen(options.only)[0]}
    ledger.read_ledger(path), check_writable(path), check_writable(folder / "rows" / "1.json")
    announce_smoke()
    progress = sys.stderr is not None
    try:
        if options.train:
            names = dict.fromkeys(name for row in VARIANTS_OF if row in rows for name in VARIANTS_OF[row])
            left = sum(not done for *_, done in trainings(folder, tuple(names)))
            print(f"small trainings to make: {left}, of about a minute of one core each", flush=True)
            train_ablations(folder, progress, tuple(names))
            if rows & {"5", "6"}:
                train_rival(folder, progress)
        for line in ledger.measure_claims(options.only, path, folder, progress):
            print(line, flush=True)
    except KeyboardInterrupt as stop:
        stop.args = ("claims: stopped; the same command resumes it",)
        raise


def run_info(options: argparse.Namespace) -> None:
    import torch

    from minilumiere.weights.shipped import read_manifest

    scale = get_scale(options.scale)
    out = scale.output_size
    print(f"scale {scale.name}: {scale.frames} frames at {scale.fps} fps, {scale.size}x{scale.size} -> {out}x{out}")
    print(f"  temporal factor {scale.temporal_factor}, SSR windows of {scale.window} frames, overlap {scale.overlap}")
    print(f"  {scale.steps} steps, guidance {scale.guidance}, SSR {scale.ssr_steps} steps; torch {torch.__version__}")
    rows = {name: entry for name, entry in read_manifest().items() if name.startswith(f"{scale.name}/")}
    print(f"  {'weights':<31}{'KiB':>6}{'steps':>8}{'minutes':>9}{'loss':>9}  device" if rows else "  no trained weights yet")
    for name, entry in rows.items():
        kib = entry["bytes"] // 1024
        print(f"  {name:<31}{kib:>6}{entry['step']:>8}{entry['minutes']:>9.1f}{entry['loss']:>9.4f}  {entry['device']}")


def announce_smoke() -> None:
    """Say so where few steps are taken instead of those asked for."""
    if smoking() and os.environ.get("RANK", "0") == "0":
        print("minilumiere: MINILUMIERE_SMOKE is on: 4 steps at most, for tests; what comes of it is poor", file=sys.stderr)


def open_streams() -> None:
    """Open what was closed (`2>&-`), lest a file take its place; print what the terminal's encoding lacks as escapes."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (to the end of the process)
        with suppress(AttributeError, ValueError):
            getattr(sys, name).reconfigure(errors="backslashreplace")


def flush() -> OSError | None:
    """Let what was printed reach its reader. Returns the error where it cannot, and is silent from then on."""
    try:
        sys.stdout.flush()
    except OSError as error:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error
    return None


def main(arguments: list[str] | None = None) -> int:
    """Run the command line. Returns the exit code."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that spin slow down a busy machine tenfold
    open_streams()
    code, message = 0, ""
    try:
        options = build_parser().parse_args(arguments)
        if not 0 <= options.seed <= 2**60:
            raise ValueError(f"--seed must be from 0 to {2**60}, got {options.seed}")
        options.action(options)
    except SystemExit:  # of the parser, which has printed what there is to say
        flush()
        raise
    except BrokenPipeError:
        code = NOBODY_READS
    except KeyboardInterrupt as stop:
        code, message = 128 + getattr(stop, "signal", signal.SIGINT), str(stop) or "interrupted, nothing was saved"
    except (ValueError, TypeError, OSError, ArithmeticError, RuntimeError, ImportError, MemoryError) as error:
        code, message = 2, " ".join(str(error).split()) or type(error).__name__
    if (unread := flush()) is not None and code == 0:
        code, message = (NOBODY_READS, "") if isinstance(unread, BrokenPipeError) else (2, f"could not print: {unread}")
    if message:  # now that the error, and the progress bars that it held on to, are gone
        print(f"minilumiere: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
