"""The command `pack`, which builds model archives."""

import json
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from torchserve_models.cli.options import JsonOutput, StoreOption, WeightsOption
from torchserve_models.cli.typer_helpers import create_app, examples, expand_options
from torchserve_models.exit_codes import ExitCode

if TYPE_CHECKING:
    from torchserve_models.packing import PackedArchive, PackRequest

TORCHVISION = "torchvision:"
app = create_app()


def parse_count(value: Any) -> int:
    """Parse a number of archives. Raises ValueError if it is not an integer of at least 0."""
    text = str(value)
    if not text.isdecimal():
        raise ValueError(f"{text!r} is not a number of archives (0 or more)")
    return int(text)


@dataclass(frozen=True, kw_only=True)
class PackOptions:
    """The options of `pack`. Raises ValueError for options that cannot be combined."""

    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            show_default="those with starter weights",
            help="Models of models/ to pack; with --from or --handler, one name of your choice.",
        ),
    ] = None
    weights: WeightsOption = "auto"
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="SOURCE",
            help="Another source for NAME: a repository on the hub, a folder with the same files, or "
            "torchvision:ARCHITECTURE with --state-dict and --labels.",
        ),
    ] = None
    pickled: Annotated[
        bool,
        typer.Option(
            "--pickled",
            help="Use pytorch_model.bin if SOURCE has no safetensors; torch reads it without running code from it.",
        ),
    ] = False
    state_dict: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Weights for torchvision:ARCHITECTURE: .pth or .safetensors."),
    ] = None
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Labels of the classifier of --from: one per line, or JSON: a list or a mapping such as ImageNet's "
            "class index. Required for torchvision:ARCHITECTURE.",
        ),
    ] = None
    transforms: Annotated[
        str | None,
        typer.Option(
            metavar="WEIGHTS",
            show_default="those of FILE if it is known, else the first in torchvision",
            help="Preprocess images as torchvision does for these weights of ARCHITECTURE, such as IMAGENET1K_V2.",
        ),
    ] = None
    handler: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Python file with a custom handler; --from is then an optional folder with the files that it loads.",
        ),
    ] = None
    update: Annotated[
        bool,
        typer.Option("--update", help="Take the latest commit of the hub's branch and lock that one."),
    ] = False
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Add an int8 network for an image classifier, calibrated on the images in FOLDER; later packs keep "
            "it. none: remove it.",
        ),
    ] = None
    keep: Annotated[
        int,
        typer.Option(
            parser=parse_count,
            metavar="N",
            help="Earlier archives of NAME that stay in the store, as NAME-VERSION.mar.",
        ),
    ] = 1
    store: StoreOption = None
    as_json: JsonOutput = False

    def __post_init__(self) -> None:
        has_one_name = len(self.names or []) == 1
        is_torchvision = (self.source or "").startswith(TORCHVISION)
        if self.source is not None and not has_one_name:
            raise ValueError("--from requires exactly one NAME")
        if self.calibrate is not None and not has_one_name:
            raise ValueError("--calibrate requires exactly one NAME")
        if self.pickled and self.source is None:
            raise ValueError("--pickled requires --from")
        if is_torchvision and (self.state_dict is None or self.labels is None):
            raise ValueError(f"--from {TORCHVISION}ARCHITECTURE requires --state-dict FILE and --labels FILE")
        if not is_torchvision and (self.state_dict or self.transforms):
            raise ValueError(f"--state-dict and --transforms require --from {TORCHVISION}ARCHITECTURE")
        if self.labels is not None and (
            self.source is None or (self.handler is not None and not is_torchvision)
        ):
            raise ValueError("--labels requires --from and cannot be combined with --handler")
        if self.handler is not None and not has_one_name:
            raise ValueError("--handler requires exactly one NAME")

    def request(self, name: str) -> "PackRequest":
        """Return the request to pack the archive of `name`."""
        from torchserve_models.packing.request import PackRequest, StateDict

        state_dict = None
        if self.state_dict and self.labels:
            state_dict = StateDict(self.state_dict.expanduser(), self.labels.expanduser(), self.transforms)
        return PackRequest(
            name=name,
            weights=self.weights,
            source=self.source,
            store=self.store,
            update=self.update,
            calibrate=self.calibrate,
            pickled=self.pickled,
            state_dict=state_dict,
            handler=self.handler,
            labels=None if state_dict else self.labels,
            keep=self.keep,
        )


@app.command(
    "pack",
    epilog=examples(
        "pack",
        "pack resnet-50 --weights pretrained",
        "pack my-classifier --from microsoft/resnet-18 --json",
        "pack resnet-50 --calibrate photos/",
        "pack my-model --handler my_handler.py --from my-files/",
    )
    + "\n\nThe environment variables HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE are respected.",
)
@expand_options
def pack_command(*, options: PackOptions) -> int:
    """Build model archives (model_store/NAME.mar) for TorchServe.

    Exit code 0 if every archive was packed or is unchanged, 1 if one failed.
    """
    from torchserve_models.packing import build, models
    from torchserve_models.packing.errors import PackingError

    layout = models.LAYOUT
    signal.signal(signal.SIGTERM, _exit_on_signal)
    exit_code = ExitCode.SUCCESS
    for name in options.names or models.default_models(layout):
        try:
            packed = build.pack(options.request(name), build.print_message, layout)
        except PackingError as error:
            if options.as_json:
                print(json.dumps({"name": name, "error": _error_as_json(error)}), flush=True)
            build.print_message(f"{name}: error: {error}")
            exit_code = ExitCode.FAILURE
        except KeyboardInterrupt:
            build.print_message(
                f"{name}: interrupted. The store was not changed. An interrupted download resumes with the next run."
            )
            return ExitCode.INTERRUPTED
        else:
            print(
                json.dumps(asdict(packed), default=str) if options.as_json else describe(packed), flush=True
            )
    return exit_code


def describe(packed: "PackedArchive") -> str:
    """Return a human-readable description of an archive."""
    return "\n".join(
        (
            f"{packed.name}: {'unchanged' if packed.unchanged else 'packed'}",
            f"  version  {packed.version}",
            f"  weights  {packed.weights}",
            *([f"  prepared {packed.prepared}"] if packed.prepared else []),
            f"  size     {packed.size / 1e6:,.1f} MB",
            f"  sha256   {packed.sha256}",
            f"  path     {packed.path}",
        )
    )


def _error_as_json(error: Exception) -> dict[str, str]:
    return {"type": type(error).__name__, "message": str(error)}


def _exit_on_signal(_number: int, _frame: FrameType | None) -> NoReturn:
    """Raise SystemExit on SIGTERM, so that temporary files are removed."""
    sys.exit(ExitCode.TERMINATED)
