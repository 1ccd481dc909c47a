"""The command: scripts/pack [NAME ...], one archive after the other, one message for each that fails."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from torchserve_models.packing.archive.earlier_versions import KEPT
from torchserve_models.packing.build import Packed, pack, say
from torchserve_models.packing.errors import PackingError
from torchserve_models.packing.models import LAYOUT, Layout, default_models, known_models
from torchserve_models.packing.sources.conversion import TORCHVISION, StateDict


def main(arguments: Sequence[str] | None = None, layout: Layout = LAYOUT) -> int:
    """The exit code: 0 when every archive is there, 1 when one is not, 2 for a wrong command line."""
    options = _parser(layout).parse_args(arguments)
    names = options.names or default_models(layout)
    if options.source is not None and len(options.names) != 1:
        _parser(layout).error("--from takes one source, so it needs exactly one NAME")
    if options.calibrate is not None and len(options.names) != 1:
        _parser(layout).error("--calibrate is for one model, so it needs exactly one NAME")
    if options.pickled and options.source is None:
        _parser(layout).error("--pickled is for a source that --from names")
    state_dict = _state_dict(options, layout)
    if options.handler is not None and len(options.names) != 1:
        _parser(layout).error("--handler is for one model, so it needs exactly one NAME")
    signal.signal(signal.SIGTERM, _terminate)
    failed = 0
    for name in names:
        try:
            packed = pack(
                name,
                options.weights,
                options.source,
                options.store,
                options.update,
                say,
                layout,
                options.calibrate,
                options.pickled,
                state_dict,
                handler=options.handler,
                labels=None if state_dict else options.labels,
                keep=options.keep,
            )
        except PackingError as error:
            say(f"{name}: error: {error}")
            failed = 1
        except KeyboardInterrupt:
            say(
                f"{name}: interrupted; nothing was changed in the store, and a download goes on where it stopped."
            )
            return 130
        else:
            print(describe(packed), flush=True)
    return failed


def describe(packed: Packed) -> str:
    """What one archive is, for a person."""
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


def _state_dict(options: argparse.Namespace, layout: Layout) -> StateDict | None:
    given = (options.state_dict, options.transforms)
    wanted = (options.source or "").startswith(TORCHVISION)
    if not wanted and any(given):
        _parser(layout).error(f"--state-dict and --transforms belong to --from {TORCHVISION}ARCHITECTURE")
    if not wanted:
        if options.labels is not None and (options.source is None or options.handler is not None):
            _parser(layout).error("--labels is for a classifier that --from names")
        return None
    if options.state_dict is None or options.labels is None:
        _parser(layout).error(f"--from {TORCHVISION}ARCHITECTURE needs --state-dict FILE and --labels FILE")
    return StateDict(options.state_dict.expanduser(), options.labels.expanduser(), options.transforms)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of archives (0 or more)")
    return int(text)


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    """SIGTERM ends like an exception, so that no temporary file stays."""
    sys.exit(128 + number)


def _parser(layout: Layout) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/pack",
        description="Builds model archives (model_store/NAME.mar) for TorchServe.",
        epilog="HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE are respected.",
    )
    parser.add_argument(
        "names",
        metavar="NAME",
        nargs="*",
        help=f"what to pack, of {', '.join(known_models(layout))}; without any, those with starters: "
        f"{', '.join(default_models(layout))}. With --from, any name",
    )
    parser.add_argument(
        "--weights",
        choices=("auto", "pretrained", "starter"),
        default="auto",
        help="pretrained: from the hub, pinned by models/lock.json. starter: small ones of this repository. "
        "auto (default): pretrained where the hub answers within five seconds, otherwise starter, and it says so",
    )
    parser.add_argument(
        "--from",
        dest="source",
        metavar="SOURCE",
        help="another source for NAME: a repository on the hub, a folder laid out like one, or "
        "torchvision:ARCHITECTURE with --state-dict and --labels",
    )
    parser.add_argument(
        "--pickled",
        action="store_true",
        help="take pytorch_model.bin where SOURCE has no safetensors; torch reads it without running code from it",
    )
    parser.add_argument(
        "--state-dict",
        type=Path,
        metavar="FILE",
        help="the weights for torchvision:ARCHITECTURE: .pth or .safetensors",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="the labels of the classifier that --from names: one a line, or JSON, a list or a mapping such as "
        "ImageNet's class index; needed for torchvision:ARCHITECTURE",
    )
    parser.add_argument(
        "--transforms",
        metavar="WEIGHTS",
        help="prepare images as torchvision does for these weights of ARCHITECTURE, such as IMAGENET1K_V2 "
        "(default: those that FILE is, else the first that torchvision lists)",
    )
    parser.add_argument(
        "--handler",
        metavar="FILE",
        help="a Python file with your own handler; --from is then the folder with what it loads, or left out",
    )
    parser.add_argument(
        "--update",
        action="store_true",
        help="take the commit that the hub's branch is at now, and lock that one",
    )
    parser.add_argument(
        "--calibrate",
        metavar="FOLDER",
        help="make an int8 network for an image classifier from the images in FOLDER; later packs keep it. "
        "none: drop it",
    )
    parser.add_argument(
        "--keep",
        type=_count,
        default=KEPT,
        metavar="N",
        help="how many earlier archives of NAME stay in the store, as NAME-VERSION.mar (default: %(default)s)",
    )
    parser.add_argument(
        "--store",
        type=Path,
        default=layout.store,
        metavar="DIR",
        help="where the archives go (default: model_store/)",
    )
    return parser
