"""ImageNet start weights as a named step of training: torchvision's V2 file, a given file, or none."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from ..errors import LungCTError, UsageError, brief
from ..files import sha256_of
from .names import rename_to_timm
from .network import ARCHITECTURE

# torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V2; eight hex digits of its sha256 are in the name.
V2_URL = "https://download.pytorch.org/models/mobilenet_v2-7ebf99e0.pth"
V2_SHA256_PREFIX = "7ebf99e0"
_TIMEOUT_SECONDS = 15.0


@dataclass(frozen=True)
class InitWeights:
    """Where training starts: `kind` is imagenet1k-v2, stand-in (another file) or random; `state` has timm's names."""

    kind: str
    source: str | None = None
    sha256: str | None = None
    state: dict[str, torch.Tensor] | None = None

    def apply(self, network: nn.Module) -> None:
        """Copy everything but the classifier into `network`, whose new fully connected layer stays as it is."""
        if self.state is None:
            return
        body = {name: value for name, value in self.state.items() if not name.startswith("classifier.")}
        wanted = {name: value for name, value in network.state_dict().items() if not name.startswith("classifier.")}
        wrong = [name for name, value in body.items() if name not in wanted or wanted[name].shape != value.shape]
        missing = [name for name in wanted if name not in body and not name.endswith("num_batches_tracked")]
        if wrong or missing:
            raise LungCTError(
                f"The start weights {self.source} do not fit this architecture (first difference: "
                f"{(wrong + missing)[0]}). Fix: a state dict of timm's network of that name, or --init random."
            )
        network.load_state_dict(body, strict=False)

    def record(self) -> dict[str, str | None]:
        """The entry for lungct.json."""
        return {"kind": self.kind, "source": self.source, "sha256": self.sha256}


def check_init(spec: str, architecture: str) -> None:
    """Look whether `--init` can mean anything for an architecture, before anything is fetched or read.

    Raises UsageError: the V2 weights for another network than theirs, or a file that is not there.
    """
    if spec == "imagenet1k-v2" and architecture != ARCHITECTURE:
        raise UsageError(
            f"--init imagenet1k-v2 are weights of {ARCHITECTURE}, not of {architecture}. Fix: --init PATH with a "
            f"state dict of timm's {architecture}, or --init random."
        )
    if spec not in ("random", "imagenet1k-v2", "auto") and not Path(spec).expanduser().is_file():
        raise UsageError(
            f"--init {spec}: no such file. Needed: imagenet1k-v2, auto, random, or a .pth/.safetensors file."
        )


def load_init(spec: str, architecture: str = ARCHITECTURE, *, say: Callable[[str], None] = print) -> InitWeights:
    """Resolve `--init`: "imagenet1k-v2", "auto", "random" or the path of a .pth or .safetensors file.

    "auto" takes the V2 weights for mobilenetv2_100, when they are cached or can be fetched, and otherwise says in one
    line why training starts from random weights. Raises UsageError as `check_init`, LungCTError when weights that were
    asked for cannot be had.
    """
    check_init(spec, architecture)
    if spec == "random":
        return InitWeights("random")
    if spec == "imagenet1k-v2":
        return _from_file(fetch_v2(), source=V2_URL)
    if spec == "auto":
        if architecture != ARCHITECTURE:
            say(
                f"Starting from random weights: the ImageNet-1K V2 weights are of {ARCHITECTURE}, not of "
                f"{architecture}. --init PATH takes a file of your own."
            )
            return InitWeights("random")
        try:
            return _from_file(fetch_v2(), source=V2_URL)
        except LungCTError as error:
            say(f"Starting from random weights: {error}")
            return InitWeights("random")
    path = Path(spec).expanduser()
    return _from_file(path, source=path.name)


def v2_cache_path() -> Path:
    """Where torch.hub (and so torchvision) keeps the V2 file."""
    return Path(torch.hub.get_dir()) / "checkpoints" / V2_URL.rpartition("/")[2]


def fetch_v2() -> Path:
    """The V2 file in torch's cache, downloaded if need be, its sha256 prefix checked every time.

    Raises LungCTError when it cannot be reached, is cut short or has the wrong hash; no broken file stays behind.
    """
    path = v2_cache_path()
    if path.is_file():
        if sha256_of(path).startswith(V2_SHA256_PREFIX):
            return path
        path.unlink()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _download(V2_URL, temporary)
        found = sha256_of(temporary)
        if not found.startswith(V2_SHA256_PREFIX):
            raise LungCTError(
                f"{V2_URL} gave a file with sha256 {found[:8]}..., needed {V2_SHA256_PREFIX}.... "
                "Fix: try again, or another network (a proxy may have answered); nothing was kept."
            )
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _download(url: str, target: Path) -> None:
    help_text = "Fix: check the network, or use --init random or --init PATH with a file you have."
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as reply, target.open("wb") as handle:
            expected = int(reply.headers.get("Content-Length") or 0)
            with tqdm(total=expected or None, unit="B", unit_scale=True, desc="ImageNet-1K V2", delay=2) as bar:
                while chunk := reply.read(1 << 18):
                    handle.write(chunk)
                    bar.update(len(chunk))
            if expected and handle.tell() != expected:
                raise LungCTError(f"{url} was cut short: {handle.tell()} of {expected} bytes came. {help_text}")
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise LungCTError(f"{url} could not be reached ({reason}). {help_text}") from error


def _from_file(path: Path, *, source: str) -> InitWeights:
    digest = sha256_of(path)
    kind = "imagenet1k-v2" if digest.startswith(V2_SHA256_PREFIX) else "stand-in"
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise many types for a damaged file
        raise LungCTError(
            f"{path.name} is not a readable weight file ({brief(error)}). "
            "Needed: a state dict saved by torch (.pth, loadable with weights_only) or safetensors."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise LungCTError(f"{path.name} does not hold a plain state dict (names to tensors).")
    if not any(name.startswith("conv_stem.") for name in state):
        state = rename_to_timm(state)
    return InitWeights(kind, source, digest, state)
